"""Training a learned optimizer: Adam on the weights, with checkpoints from which a training continues bit by bit."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from rich.console import Console

from odestop.l2o.configuration import TrainingConfiguration
from odestop.l2o.files import load, read_tensors, save, write_tensors
from odestop.l2o.networks import LearnedOptimizer
from odestop.l2o.records import Records
from odestop.l2o.training_loss import Unroll
from odestop.l2o.training_progress import TensorBoard, training_bar
from odestop.l2o.workers import Workers, workers_of

BEST, LAST, CHECKPOINT = "best.safetensors", "last.safetensors", "checkpoint.safetensors"
_HISTORY, _VALIDATION = "history.jsonl", "validation.jsonl"
# What may be another when a training is resumed: none of it enters the weights.
_MAY_CHANGE = ("steps", "device", "checkpoint_every", "tensorboard")


class Training(NamedTuple):
    """What a training leaves behind.

    Attributes
    ----------
    network
        The network that was best at validation.
    history
        One row per training step: ``step`` (from 1), ``loss`` (the objective (10)), ``mean_value`` (Σ w_k f(x_k)),
        ``final_value`` (f(x_K)), ``stopping_steps`` (N, K where a problem does not stop), ``stopped`` (the share that
        does), all means over the batch; ``gradient_norm`` (mean over the updates, before clipping),
        ``skipped_updates`` (those with a gradient that was not finite) and ``seconds``.
    validation
        One row per validation: ``step``, ``loss`` … ``stopped`` as above, and ``best``, whether none before was better.
    """

    network: LearnedOptimizer
    history: pd.DataFrame
    validation: pd.DataFrame


def train(
    configuration: TrainingConfiguration,
    output: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> Training:
    """Train a learned optimizer on the objective (10) of arXiv 2505.22509.

    Under torchrun every process calls it: each takes its share of every batch, gradients are averaged, and the first
    one writes.  On the CPU a training is deterministic by its seed for one number of threads and of processes, and
    a resumed one continues bit by bit, whenever it was interrupted.

    Parameters
    ----------
    configuration
        What to train, on what, and how.
    output
        Folder for ``best.safetensors`` (best by the objective on the validation problems), ``last.safetensors``,
        ``checkpoint.safetensors``, ``history.jsonl``, ``validation.jsonl``, ``configuration.json``, ``tensorboard/``.
    resume
        Whether to continue from the folder's checkpoint, or from the start where there is none.
    console
        Where to show the progress; None shows nothing.

    Returns
    -------
    Training
        The best network and the curves.

    Raises
    ------
    ImportError
        If safetensors is not installed, or tensorboard with ``tensorboard=True``.
    ValueError
        If the folder holds a training already and ``resume`` is false, or one of another configuration.

    Examples
    --------
    >>> import tempfile
    >>> from odestop.l2o import TrainingConfiguration, train
    >>> network, problems = {"kind": "rnnprop", "hidden": 4}, {"kind": "quadratic", "dimension": 4}
    >>> configuration = TrainingConfiguration(network, problems, steps=2, batch=3, horizon=6, segment=3)
    >>> training = train(configuration, tempfile.mkdtemp())
    >>> training.history["step"].tolist()
    [1, 2]
    """
    output = Path(output)
    with workers_of(configuration.device) as workers:
        trainer = Trainer(configuration, workers)
        _prepare(output, trainer, resume)
        _run(trainer, output, console if workers.leads else None)
        workers.wait()
        return Training(
            load(output / BEST, device=workers.device),
            pd.DataFrame(Records(output / _HISTORY).rows()),
            pd.DataFrame(Records(output / _VALIDATION).rows()),
        )


class Trainer:
    """The state of a training: the network, Adam's moments, and how many steps are done.

    Parameters
    ----------
    configuration
        What to train, on what, and how.
    workers
        The processes that share the problems.

    Attributes
    ----------
    network
        The network in training.
    step
        Training steps done.
    best
        The least validation loss so far.
    """

    def __init__(self, configuration: TrainingConfiguration, workers: Workers | None = None) -> None:
        self.configuration = configuration
        self.workers = workers or Workers(device=torch.device(configuration.device))
        self.network = configuration.build_network(self.workers.device)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=configuration.learning_rate)
        self.step = 0
        self.best = math.inf
        self._loss = configuration.loss()
        self._problems = configuration.build_problems()
        for name in ("batch", "validation_problems"):
            self.workers.share(name, getattr(configuration, name))

    def train_step(self) -> dict[str, Any]:
        """Unroll the network on the next batch of problems and move its weights; return the row of the history."""
        start = time.perf_counter()
        unroll = self._start("batch", stream=0, index=self.step)
        norms = []
        while not unroll.finished:
            unroll.advance().backward()
            if self.configuration.update == "segment" or unroll.finished:
                norms.append(self._move_weights())
        self.step += 1
        finite = [norm for norm in norms if math.isfinite(norm)]
        return {
            **self._summary(unroll),
            "gradient_norm": sum(finite) / len(finite) if finite else math.nan,
            "skipped_updates": len(norms) - len(finite),
            "seconds": time.perf_counter() - start,
        }

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Evaluate the objective on the validation problems; return the row of the validation table."""
        unroll = self._start("validation_problems", stream=1, index=0)
        while not unroll.finished:
            unroll.advance()
        summary = self._summary(unroll)
        # The first one is the best so far, even if it is no number.
        best = summary["loss"] < self.best or not math.isfinite(self.best)
        if best:
            self.best = summary["loss"]
        return {**summary, "best": best}

    def save(self, path: Path) -> None:
        """Write a checkpoint, atomically."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for index, moments in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": tensor for name, tensor in moments.items()}
        write_tensors(
            path, tensors, {"configuration": self.configuration.to_dict(), "step": self.step, "best": self.best}
        )

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises
        ------
        ValueError
            If it is of another configuration.
        """
        tensors, header = read_tensors(path)
        _check_same(self.configuration.to_dict(), header["configuration"])
        self.step, self.best = header["step"], header["best"]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        weights = {}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            if group == "network":
                weights[rest] = tensor
            else:
                index, _, moment = rest.partition(".")
                moments.setdefault(int(index), {})[moment] = tensor
        self.network.load_state_dict(weights)
        self.adam.load_state_dict({**self.adam.state_dict(), "state": moments})

    def _start(self, name: str, stream: int, index: int) -> Unroll:
        """Draw a batch of problems, of the size that a setting names, and take this process's share of it."""
        settings, problems = self.configuration, getattr(self.configuration, name)
        # The generator on the CPU looks at 32 bits of a seed only.
        seed = int(np.random.SeedSequence((settings.seed, stream, index)).generate_state(1)[0])
        generator = torch.Generator(self.workers.device).manual_seed(seed)
        objective, x0 = self._problems.sample(problems, generator, dtype=settings.torch_dtype)
        share = self.workers.share(name, problems)
        optimizer = self.network.optimizer(objective.problems(share), detach_gradient=not settings.second_derivatives)
        return self._loss.start(optimizer, x0[share])

    def _move_weights(self) -> float:
        """Take Adam's step on the averaged gradient, unless it is not finite; return its norm."""
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        self.workers.average(gradients)
        clip = self.configuration.gradient_clip
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), math.inf if clip is None else clip).item()
        if math.isfinite(norm):
            self.adam.step()
        self.adam.zero_grad()
        return norm

    def _summary(self, unroll: Unroll) -> dict[str, Any]:
        """Return the means over all problems of all processes."""
        names = ("loss", "mean_value", "final_value", "stopping_steps", "stopped")
        values = (unroll.loss, unroll.mean_value, unroll.value, unroll.steps, unroll.stopped.to(unroll.value))
        means = torch.stack([value.double().mean() for value in values])
        self.workers.average([means])
        return {"step": self.step, **dict(zip(names, means.tolist(), strict=True))}


def _prepare(output: Path, trainer: Trainer, resume: bool) -> None:
    """Restore a training's checkpoint and cut its records there, or start with an empty folder."""
    checkpoint = output / CHECKPOINT
    if checkpoint.exists() or (output / _HISTORY).exists():
        if not resume:
            raise ValueError(
                f"output must be a folder without a training, got {str(output)!r}; continue that one with resume=True "
                "(--resume), or choose another folder"
            )
        if checkpoint.exists():
            trainer.restore(checkpoint)
    # Nobody may write before all have looked.
    trainer.workers.wait()
    if trainer.workers.leads:
        output.mkdir(parents=True, exist_ok=True)
        settings = json.dumps(trainer.configuration.to_dict(), indent=2)
        (output / "configuration.json").write_text(settings + "\n", encoding="utf-8")
        for name in (_HISTORY, _VALIDATION):
            Records(output / name).cut(trainer.step)


def _run(trainer: Trainer, output: Path, console: Console | None) -> None:
    """Train to the end, writing down everything on the way."""
    settings, leads = trainer.configuration, trainer.workers.leads
    history, validation = Records(output / _HISTORY), Records(output / _VALIDATION)
    with (
        training_bar(console, settings.steps, trainer.step) as show,
        TensorBoard.at(output / "tensorboard" if settings.tensorboard and leads else None, trainer.step) as board,
    ):
        while trainer.step < settings.steps:
            row = trainer.train_step()
            last = trainer.step == settings.steps
            checked = trainer.validate() if trainer.step % settings.validate_every == 0 or last else None
            if not leads:
                continue
            history.append(row)
            board.write("training", row)
            if checked is not None:
                validation.append(checked)
                board.write("validation", checked)
                if checked["best"]:
                    _save_network(trainer, output / BEST, checked)
            if last:
                _save_network(trainer, output / LAST, checked)
            if trainer.step % settings.checkpoint_every == 0 or last:
                trainer.save(output / CHECKPOINT)
            show(row)


def _save_network(trainer: Trainer, path: Path, checked: dict[str, Any] | None) -> None:
    save(trainer.network, path, {"configuration": trainer.configuration.to_dict(), "validation": checked})


def _check_same(now: dict[str, Any], before: dict[str, Any]) -> None:
    """Raise if a setting that must not change has changed."""
    for name in now.keys() - set(_MAY_CHANGE):
        if now[name] != before.get(name):
            raise ValueError(
                f"{name} must be {before.get(name)!r}, as in the training that is resumed, got {now[name]!r}; only "
                f"{', '.join(_MAY_CHANGE)} may change"
            )
