"""A continuous stopping-time question after its arguments were checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from odestop._functions import TrackedFunction

_SELECT_BELOW = 0.75


@dataclass(frozen=True)
class StoppingProblem:
    """dx/dt = F(t, x), x(t0) = x0, stopped at J(x) ≤ ε, for a batch of independent trajectories.

    Attributes
    ----------
    dynamics, criterion
        F(t, x), with t of shape () or (*batch, 1), and J(t, x), with t of shape (*batch,).
    initial_state
        Shape (*batch, d).
    threshold
        ε, shape (*batch, levels).
    t0
        Shape (*batch,), like ε in the dtype and on the device of the state.
    initial_slope, initial_value
        F(t0, x0) and J(t0, x0).
    orientation
        +1 where the event is a fall of J to the level, -1 where it is a rise, shape (n, levels).
    separable
        Whether F and J were seen to treat the rows of a batch alike and apart, so that any selection of rows may be
        evaluated alone.  Parameters that differ per trajectory, for example, tie a row to its place.
    """

    dynamics: TrackedFunction
    criterion: TrackedFunction
    initial_state: Tensor
    threshold: Tensor
    t0: Tensor
    initial_slope: Tensor
    initial_value: Tensor
    orientation: np.ndarray
    separable: bool = False

    @property
    def batch(self) -> torch.Size:
        """Shape of the batch; empty for a single trajectory."""
        return self.initial_state.shape[:-1]

    def field(self, t: Tensor, x: Tensor) -> Tensor:
        """F without a graph."""
        return self.dynamics(broadcast_time(t), x)

    def field_again(self, t: Tensor, x: Tensor) -> Tensor:
        """F without a graph, of a recomputation that is not counted."""
        return self.dynamics.again(broadcast_time(t), x)

    def field_with_graph(self, t: Tensor, x: Tensor) -> Tensor:
        """F with a graph, for a gradient."""
        return self.dynamics.with_graph(broadcast_time(t), x)

    def to_device(self, values: np.ndarray) -> Tensor:
        """Host values, one per trajectory, as a tensor of the batch's shape beside the state."""
        tensor = torch.from_numpy(values).to(dtype=self.initial_state.dtype)
        return tensor.to(self.initial_state.device).reshape(self.batch)

    def row_mask(self, rows: np.ndarray) -> Tensor:
        """Host booleans, one per trajectory, as a tensor of the batch's shape beside the state."""
        return torch.from_numpy(rows).to(self.initial_state.device).reshape(self.batch)

    def worth_selecting(self, rows: np.ndarray) -> bool:
        """Whether evaluating ``rows`` alone is possible and saves more than it costs."""
        return self.separable and bool(rows.sum() <= _SELECT_BELOW * rows.size)

    def levels_to_device(self, values: np.ndarray) -> Tensor:
        """Host values of shape (n, levels) as a tensor of shape (*batch, levels) beside the state."""
        tensor = torch.from_numpy(values).to(dtype=self.initial_state.dtype)
        return tensor.to(self.initial_state.device).reshape(self.threshold.shape)

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """Host values rounded to the dtype of the state, so that host and device mean the same number."""
        if self.initial_state.dtype == torch.float64:
            return values
        return torch.from_numpy(values).to(self.initial_state.dtype).double().numpy()

    def refuse_hidden_dependence(self) -> None:
        """Raise if F or J depends on x in a way that autograd does not see: its gradients would be wrong in silence."""
        x, t = self.initial_state.detach(), self.t0.detach()
        for function, evaluate in (
            (self.dynamics, lambda x: self.dynamics.with_graph(broadcast_time(t), x)),
            (self.criterion, lambda x: self.criterion.with_graph(t, x)),
        ):
            if function.tracks_state:
                continue
            here, nearby = evaluate(x.clone().requires_grad_()), evaluate((1.1 * x + 0.1).requires_grad_())
            if not torch.equal(here, nearby):
                raise RuntimeError(
                    f"{function.name} depends on x, but its value carries no gradient with respect to x: it detaches "
                    "its argument, or calls autograd inside without create_graph=True"
                )

    @property
    def resolution(self) -> float:
        """Unit of rounding of the state's dtype."""
        return torch.finfo(self.initial_state.dtype).eps


def broadcast_time(t: Tensor) -> Tensor:
    """Time as the dynamics sees it: 0-d for one trajectory, (*batch, 1) for a batch."""
    return t if t.ndim == 0 else t.unsqueeze(-1)


def is_separable(
    dynamics: TrackedFunction, criterion: TrackedFunction, t: Tensor, x: Tensor, slope: Tensor, value: Tensor
) -> bool:
    """Evaluate the last and the first row alone, in this order, and see whether F and J are what they were."""
    if value.numel() < 4:
        return False
    rows = torch.tensor([value.numel() - 1, 0], device=x.device)
    x, t, slope, value = select(x, rows), t.reshape(-1)[rows], select(slope, rows), value.reshape(-1)[rows]
    try:
        alone = dynamics.again(broadcast_time(t), x), criterion.again(t, x)
    except Exception:  # whatever a user's function raises for a shape that it does not expect
        return False
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    return all(
        one.shape == other.shape
        and torch.allclose(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))
        for one, other in zip(alone, (slope, value), strict=True)
    )


def select(states: Tensor, rows: Tensor) -> Tensor:
    """Rows of a tensor of shape (*batch, d), by their flat indices, as shape (m, d)."""
    return states.reshape(-1, states.shape[-1])[rows]


def scatter(states: Tensor, rows: Tensor, into: Tensor) -> Tensor:
    """Copy of ``into``, shape (*batch, d), with ``states`` of shape (m, d) in the rows of the given flat indices."""
    return into.reshape(-1, into.shape[-1]).index_copy(0, rows, states).reshape(into.shape)


def to_host(*tensors: Tensor) -> list[np.ndarray]:
    """Tensors of one shape as flat float64 arrays, in one transfer."""
    stacked = torch.stack(tensors).detach().reshape(len(tensors), -1).cpu().double()
    return list(stacked.numpy())
