"""What an update rule is: the step-map protocol, and the maps that advance a time by a step size."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop._validation import check_callable, check_positive, check_positive_tensor, check_shape


@runtime_checkable
class StepMap(Protocol):
    """An update rule: the step index k = 0, 1, … and the state to the next state.

    A plain function, a closure or an `nn.Module` will do; the tensors it uses that require a gradient are the
    θ that the stopping time is differentiated in.  The state is one floating tensor of shape (*batch, m), so
    that memory such as a momentum is concatenated to the position.  Three methods are optional:

    * ``initial_state(x0)``: from the start point, shape (*batch, d), to the state, shape (*batch, m); the
      identity by default;
    * ``position(state)``: from the state back to the point that the criterion sees, shape (*batch, d); the
      identity by default;
    * ``pull_back(k, state, cotangent, parameters)``: the cotangent of the state before step k and a list of those
      of the parameters, from one of the state after it, or None where it has no formula for these parameters;
      by autograd by default.  A `TimeStepMap` gets ``t0`` as well.
    """

    def __call__(self, k: int, state: Tensor, /) -> Tensor:
        """Return the state after step ``k``."""
        ...


class TimeStepMap(nn.Module):
    """Base of the step maps of a dynamics: step k goes from t_k = t0 + k h to t_k + h.

    Subclasses implement ``forward(k, state, t0=0.0) -> state``.

    Parameters
    ----------
    dynamics
        ``dynamics(t, x) -> dx/dt`` = -A(θ, x, t), in torchdiffeq's convention: x has shape (*batch, d), or
        (*batch, m) where the dynamics has hidden state, t is 0-d for one trajectory and has shape (*batch, 1)
        for a batch, both in the dtype and on the device of the state.  A module becomes a submodule.
        ``initial_state`` and ``position`` of a dynamics with hidden state become those of the map.
    step_size
        h > 0.  A number becomes a constant that follows the dtype of the state.  A tensor, of shape () or
        (*batch,), is kept as it is and may require a gradient; an `nn.Parameter` becomes one of the map.

    Raises
    ------
    ValueError
        If the dynamics cannot be called, or the step size is not positive and finite; at a step, if the
        dynamics returns another shape than the state's.
    """

    step_size: Tensor
    evaluations_per_step: ClassVar[int] = 1
    """Evaluations of the dynamics that a step takes; subclasses that take more say so."""

    def __init__(self, dynamics: Callable[[Tensor, Tensor], Tensor], step_size: float | int | Tensor) -> None:
        super().__init__()
        self.dynamics = check_callable("dynamics", dynamics, "(t, x) -> dx/dt")
        for name in ("initial_state", "position"):
            if hasattr(dynamics, name):
                setattr(self, name, getattr(dynamics, name))
        if isinstance(step_size, Tensor):
            self.step_size = check_positive_tensor("step_size", step_size)
        else:
            constant = torch.tensor(check_positive("step_size", step_size), dtype=torch.float64)
            self.register_buffer("step_size", constant, persistent=False)

    def time(
        self, k: int | float, state: Float[Tensor, "*batch m"], t0: float | int | Tensor = 0.0
    ) -> Float[Tensor, "..."]:
        """Return t_k in the state's dtype: 0-d for one trajectory, shape (*batch, 1) for a batch.

        Between the steps k is fractional: k + 1/2 is half a step after t_k.
        """
        start = torch.as_tensor(t0, dtype=state.dtype, device=state.device)
        time = torch.add(start, self.step_size, alpha=k).to(state.dtype)
        return time if state.ndim == 1 else time.expand(state.shape[:-1]).unsqueeze(-1)

    def velocity(
        self, k: int | float, state: Float[Tensor, "*batch m"], t0: float | int | Tensor = 0.0
    ) -> Float[Tensor, "*batch m"]:
        """Return dx/dt at the time t_k and a state; k may be fractional."""
        velocity = self.dynamics(self.time(k, state, t0), state)
        return check_shape("dynamics", velocity, state.shape, "dx/dt has the shape of the state")

    def increment(self, velocity: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return h · velocity, with each trajectory's own h where the step size has shape (*batch,)."""
        h = self.step_size
        return velocity * (h if h.ndim == 0 else h.to(velocity.dtype).unsqueeze(-1))
