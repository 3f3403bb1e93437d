"""diffrax as its users call it: the whole of T and ∇T under ``jax.jit``, batches by ``jax.vmap``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from experiments.benchmark.cases import LEARNED, Case, pose
from experiments.benchmark.peers import MAX_STEP, Answer


@dataclass(frozen=True)
class Diffrax:
    """``diffeqsolve`` with ``Event`` and ``RecursiveCheckpointAdjoint``; tuned, it has the step cap of torchdiffeq."""

    tuned: bool

    @property
    def name(self) -> str:
        """With what was tuned."""
        return "diffrax Dopri5, jitted" + (", tuned by hand" if self.tuned else "")

    def accepts(self, case: Case) -> bool:
        """Return whether diffrax is installed and jax has the device; untuned, it is not tried where tuning decides."""
        if find_spec("diffrax") is None or case.is_large or case.condition_number > (1e4 if self.tuned else 1e3):
            return False
        return case.device == "cpu" or _has_gpu()

    def answer(self, case: Case, tolerance: float) -> Answer:
        """One call for the whole batch; the first one of a case compiles."""
        function, parameters, starts = _compiled(case, MAX_STEP if self.tuned else None)
        (times, steps), gradient = function(parameters, starts, tolerance, tolerance * case.threshold**0.5)
        flat = [torch.tensor(part.__array__()).flatten() for part in gradient]
        # Six evaluations for each step of a method whose first stage is the last of the step before.
        return Answer(torch.tensor(times.__array__()), torch.cat(flat), 6 * float(steps), math.nan)


def _has_gpu() -> bool:
    import jax

    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:
        return False


@cache
def _compiled(case: Case, max_step: float | None) -> tuple[Callable[..., Any], Any, Any]:
    """Return the jitted function and what it is called with, as arrays of jax."""
    import diffrax
    import jax
    import jax.numpy as jnp
    import optimistix

    jax.config.update("jax_enable_x64", True)
    problem = pose(case)
    device = jax.devices("gpu" if case.device == "cuda" else "cpu")[0]

    def placed(tensor: torch.Tensor) -> Any:
        return jax.device_put(tensor.detach().cpu().numpy(), device)

    matrix, parameters = placed(problem.matrix), [placed(parameter) for parameter in problem.parameters]

    def learned(t: Any, x: Any, theta: Any) -> Any:
        weight_x, weight_g, weight_t, bias, readout = theta
        gradient = matrix @ x
        hidden = jnp.tanh(bias + weight_t * t + weight_x * x + weight_g * gradient)
        return -jnp.exp((readout * hidden).sum(0)) * gradient

    def scheduled(t: Any, x: Any, theta: Any) -> Any:
        return -theta[0] * jnp.exp(-theta[1] * t) * (matrix @ x)

    def excess(t: Any, y: Any, args: Any, **_: Any) -> Any:
        gradient = matrix @ y
        # In logarithms, so that the root finder's tolerance is relative.
        return jnp.log(gradient @ gradient) - math.log(problem.threshold)

    def stopping_time(theta: Any, x0: Any, rtol: Any, atol: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(learned if case.parameters == LEARNED else scheduled),
            diffrax.Dopri5(),
            0.0,
            1e9,
            None,
            x0,
            args=theta,
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol, dtmax=max_step),
            event=diffrax.Event(excess, optimistix.Newton(1e-12, 1e-12)),
            adjoint=diffrax.RecursiveCheckpointAdjoint(),
            max_steps=2 ** math.ceil(math.log2(2000 + 8 * case.condition_number)),
        )
        return solution.ts[0], solution.stats["num_steps"]

    def total(theta: Any, starts: Any, rtol: Any, atol: Any) -> Any:
        times, steps = jax.vmap(stopping_time, (None, 0, None, None))(theta, starts, rtol, atol)
        return times.sum(), (times, steps.max())

    def answer(theta: Any, starts: Any, rtol: Any, atol: Any) -> Any:
        (_, answer), gradient = jax.value_and_grad(total, has_aux=True)(theta, starts, rtol, atol)
        return jax.block_until_ready((answer, gradient))

    return jax.jit(answer), parameters, placed(problem.x0)
