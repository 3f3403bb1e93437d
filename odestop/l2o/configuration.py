"""What to train, on what, and how: one configuration, from a TOML file or in Python."""

from __future__ import annotations

import dataclasses
import inspect
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from odestop._validation import check_choice, check_count, check_positive
from odestop.l2o.files import load
from odestop.l2o.networks import NETWORKS, LearnedOptimizer
from odestop.l2o.training_loss import TrainingLoss

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_UPDATES = ("segment", "unroll")
_NOT_OF_A_NETWORK = ("self", "seed", "dtype", "device")


@dataclass(frozen=True)
class TrainingConfiguration:
    """The settings of a training; the defaults are those of the paper's experiment where it states them.

    Parameters
    ----------
    network
        ``kind``, ``"rnnprop"`` (the default) or ``"l2o-dm"``, and arguments of `RNNprop` or `L2ODM`, such as
        ``hidden``; or ``file`` alone, a network to go on from, with new moments of Adam.
    problems
        ``kind``, a key of `odestop.l2o.DISTRIBUTIONS` (``"logistic"`` by default), and arguments of that distribution.
    steps
        Training steps: batches of problems, each unrolled once over the horizon.
    batch
        Problems in a batch, over all processes.
    horizon, segment, stopping_weight, threshold, sensitivity, criterion
        K, the steps between truncations, λ, ε, the derivative of N and J; see `TrainingLoss`.
    update
        When Adam moves the weights: ``"segment"``, after each segment on the gradient of its part of the objective, or
        ``"unroll"``, once after all segments on the sum.
    second_derivatives
        Whether the gradient of the objective contains ∇²f(x_k); see `LearnedStepMap`.
    learning_rate
        Adam's step size.
    gradient_clip
        The largest ‖gradient‖₂ over all weights, to which longer ones are scaled back; None to leave them.
    seed
        Seed of the weights and of the problems; batch number i depends on it and on i alone.
    dtype
        ``"float32"`` or ``"float64"``.
    device
        Where everything is, as PyTorch names it; under torchrun, ``"cuda"`` is each process's own GPU.
    validate_every
        Training steps between validations.
    validation_problems
        Problems of the validation, the same at every validation and for every λ and ε.
    checkpoint_every
        Training steps between checkpoints.
    tensorboard
        Whether to write logs for TensorBoard.

    Raises
    ------
    ValueError
        If a setting is unknown or out of range; the message names it, what came and what is accepted.

    Examples
    --------
    >>> configuration = TrainingConfiguration(network={"kind": "l2o-dm", "hidden": 8}, batch=16)
    >>> configuration.build_network().lstm.hidden
    8
    >>> TrainingConfiguration(update="step")
    Traceback (most recent call last):
    ValueError: update must be one of 'segment', 'unroll', got 'step'
    """

    network: Mapping[str, Any] = field(default_factory=dict)
    problems: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 500
    batch: int = 64
    horizon: int = 100
    segment: int = 20
    stopping_weight: float | int = 1.0
    threshold: float | int = 1e-5
    sensitivity: str = "definition3"
    criterion: str = "decrease"
    update: str = "segment"
    second_derivatives: bool = False
    learning_rate: float | int = 3e-3
    gradient_clip: float | int | None = None
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    validate_every: int = 10
    validation_problems: int = 64
    checkpoint_every: int = 10
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every", "validation_problems", "checkpoint_every"):
            check_count(name, getattr(self, name))
        for name in ("second_derivatives", "tensorboard"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        check_choice("update", self.update, _UPDATES)
        check_choice("dtype", self.dtype, tuple(_DTYPES))
        check_choice("sensitivity", self.sensitivity, ("definition3", "interpolated"))
        check_positive("learning_rate", self.learning_rate)
        if self.gradient_clip is not None:
            check_positive("gradient_clip", self.gradient_clip)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed must be an integer of at least 0, got {self.seed!r}")
        for name in ("network", "problems"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} must be a table of settings, got {getattr(self, name)!r}")
        _check_device(self.device)
        self.loss()
        self.build_network()
        self.build_problems()

    @staticmethod
    def from_toml(path: str | Path | None, overrides: Mapping[str, str] | None = None) -> TrainingConfiguration:
        """Read a TOML file; its keys are the parameters, with ``network`` and ``problems`` as tables.

        Parameters
        ----------
        path
            The file; None for an empty one.
        overrides
            Texts by dotted key, such as ``{"network.kind": "l2o-dm", "batch": "32"}``: values in TOML's notation, and
            whatever is none as a string.

        Raises
        ------
        ValueError
            If the file is missing or no TOML, or a setting is unknown or out of range.
        """
        try:
            settings = {} if path is None else tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"the configuration must be a TOML file, got {str(path)!r}: {error}") from None
        for key, text in (overrides or {}).items():
            _override(settings, key, text)
        return TrainingConfiguration.from_dict(settings)

    @staticmethod
    def from_dict(settings: Mapping[str, Any]) -> TrainingConfiguration:
        """Return the configuration of plain settings, such as `to_dict` returns.

        Raises
        ------
        ValueError
            If a setting is unknown or out of range.
        """
        accepted = [setting.name for setting in dataclasses.fields(TrainingConfiguration)]
        for name in settings:
            check_choice("the name of a setting", name, accepted)
        return TrainingConfiguration(**settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values that JSON can hold."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def loss(self) -> TrainingLoss:
        """Return the objective (10)."""
        return TrainingLoss(
            self.horizon, self.segment, self.stopping_weight, self.threshold, self.sensitivity, self.criterion
        )

    def build_network(self, device: torch.device | str = "cpu") -> LearnedOptimizer:
        """Return the network before training."""
        if "file" in self.network:
            _check_options("network", self.network, ["file"])
            return load(self.network["file"], dtype=self.torch_dtype, device=device)
        kind, options = _split("network", self.network, "rnnprop", NETWORKS)
        parameters = inspect.signature(NETWORKS[kind].__init__).parameters
        _check_options("network", options, [name for name in parameters if name not in _NOT_OF_A_NETWORK])
        return NETWORKS[kind](**options, seed=self.seed, dtype=self.torch_dtype, device=device)

    def build_problems(self) -> Any:
        """Return the distribution of the problems."""
        from odestop.l2o.problems import DISTRIBUTIONS

        kind, options = _split("problems", self.problems, "logistic", DISTRIBUTIONS)
        distribution = DISTRIBUTIONS[kind]
        _check_options("problems", options, [setting.name for setting in dataclasses.fields(distribution)])
        return distribution(**options)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of weights and problems."""
        return _DTYPES[self.dtype]


def _split(name: str, table: Mapping[str, Any], default: str, kinds: Mapping[str, type]) -> tuple[str, dict[str, Any]]:
    """Return the kind and the other entries of a table."""
    options = dict(table)
    return check_choice(f"{name}.kind", options.pop("kind", default), tuple(kinds)), options


def _check_options(table: str, options: Mapping[str, Any], accepted: Sequence[str]) -> None:
    for name in options:
        check_choice(f"the name of a setting in {table}", name, accepted)


def _check_device(device: object) -> None:
    try:
        if not isinstance(device, str):
            raise RuntimeError
        torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device must be a device as PyTorch names it, such as 'cpu' or 'cuda', got {device!r}"
        ) from None


def _override(settings: dict[str, Any], key: str, text: str) -> None:
    """Set a dotted key to a value in TOML's notation, or else to the text itself."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, name = key.split(".")
    for table in tables:
        settings = settings.setdefault(table, {})
        if not isinstance(settings, dict):
            raise ValueError(f"--set must name a setting, got {key!r}, where {table!r} is no table")
    settings[name] = value
