"""What an update rule is: the step-map protocol, and the maps that advance a time by a step size."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop._validation import check_positive, check_positive_tensor


@runtime_checkable
class StepMap(Protocol):
    """An update rule: the step index k = 0, 1, … and the state to the next state.

    A plain function, a closure or an `nn.Module` will do; the tensors it uses that require a gradient are the
    θ that the stopping time is differentiated in.  The state is one floating tensor of shape (*batch, m), so
    that memory such as a momentum is concatenated to the position.  Two methods are optional and default to
    the identity:

    * ``initial_state(x0)``: from the start point, shape (*batch, d), to the state, shape (*batch, m);
    * ``position(state)``: from the state back to the point that the criterion sees, shape (*batch, d).
    """

    def __call__(self, k: int, state: Tensor, /) -> Tensor:
        """Return the state after step ``k``."""
        ...


class TimeStepMap(nn.Module):
    """Base of the step maps that advance time: step k goes from t_k = t0 + k h to t_k + h.

    Subclasses implement ``forward(k, state, t0=0.0) -> state``.

    Parameters
    ----------
    step_size
        h > 0.  A number becomes a constant that follows the dtype of the state.  A tensor, of shape () or
        (*batch,), is kept as it is and may require a gradient; an `nn.Parameter` becomes one of the map.

    Raises
    ------
    ValueError
        If the step size is not positive and finite.
    """

    step_size: Tensor

    def __init__(self, step_size: float | int | Tensor) -> None:
        super().__init__()
        if isinstance(step_size, Tensor):
            self.step_size = check_positive_tensor("step_size", step_size)
        else:
            constant = torch.tensor(check_positive("step_size", step_size), dtype=torch.float64)
            self.register_buffer("step_size", constant, persistent=False)

    def time(self, k: int, state: Float[Tensor, "*batch m"], t0: float | int | Tensor = 0.0) -> Float[Tensor, "..."]:
        """Return t_k in the state's dtype: 0-d for one trajectory, shape (*batch, 1) for a batch."""
        start = torch.as_tensor(t0, dtype=state.dtype, device=state.device)
        time = torch.add(start, self.step_size, alpha=k).to(state.dtype)
        return time if state.ndim == 1 else time.expand(state.shape[:-1]).unsqueeze(-1)

    def increment(self, velocity: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return h · velocity, with each trajectory's own h where the step size has shape (*batch,)."""
        h = self.step_size
        return velocity * (h if h.ndim == 0 else h.to(velocity.dtype).unsqueeze(-1))
