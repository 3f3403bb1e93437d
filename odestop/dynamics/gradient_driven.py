"""Flows that see f through its gradient alone, and what that structure saves in a gradient of T."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop._functions import Linearized
from odestop.objectives.base import Objective


class GradientDrivenFlow(nn.Module):
    """Base of the flows dx/dt = R(t, x, ∇f(x)); subclasses set ``objective``, f, and implement R as `response`.

    Where R works coordinate by coordinate, its derivatives r_x and r_g are vectors, and a vector-Jacobian product of
    the flow is r_x λ + ∇²f(x) (r_g λ), with the Hessian-vector product of the objective.  A gradient of T then finds
    r_x and r_g at the stages of many steps together, and carries λ backward without a graph.  The products of all other
    flows are left to autograd.

    The state may have memories behind x, each of the size of x, with x = ``position(state)``; coordinate i of R may
    then depend on coordinate i of x, of every memory, and of ∇f(x).

    Attributes
    ----------
    coordinatewise
        Whether R is known to work coordinate by coordinate.  Where it is not, its derivatives are asked, every time.

    Examples
    --------
    A flow of one's own, which cuts large partial derivatives softly:

    >>> from odestop.objectives import DiagonalQuadratic
    >>> class ClippedFlow(GradientDrivenFlow):
    ...     def __init__(self, objective, limit):
    ...         super().__init__()
    ...         self.objective, self.limit = objective, nn.Parameter(torch.tensor(limit))
    ...
    ...     def response(self, t, state, gradient):
    ...         return -self.limit * torch.tanh(gradient / self.limit)
    >>> flow = ClippedFlow(DiagonalQuadratic([1.0, 400.0]), limit=2.0)
    >>> flow(torch.tensor(0.0), torch.zeros(2)).abs().tolist()
    [0.0, 0.0]
    """

    objective: Objective
    coordinatewise = False

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch n"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch n"]:
        """Return dx/dt at t of shape () or (*batch, 1), for a state and ∇f at its position."""
        raise NotImplementedError(f"{type(self).__name__} must implement response(t, state, gradient)")

    def forward(self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Return dx/dt at t of shape () or (*batch, 1)."""
        return self.response(t, state, self.objective.gradient(self._position(state)))

    def linearized(self, t: Float[Tensor, "m *time"], states: Float[Tensor, "m *batch n"]) -> Linearized | None:
        """Return dx/dt and its derivatives at m states, or None where there is no shortcut to them.

        Parameters
        ----------
        t
            Times, shape (m, *batch, 1).
        states
            Shape (m, *batch, n).
        """
        if not self._is_as_defined():
            return None
        position = self._position(states)
        size, whole = position.shape[-1], states.shape[-1]
        if size == 0 or whole % size != 0 or not torch.equal(position, states[..., :size]):
            return None
        states = states.detach().requires_grad_()
        with torch.enable_grad():
            # Its own graph leads to parameters of the objective.
            gradient = self.objective.gradient(position.detach())
            gradient = gradient if gradient.requires_grad else gradient.detach().requires_grad_()
            slopes = self.response(t, states, gradient)
        if slopes.shape != states.shape or not slopes.requires_grad:
            return None
        derivatives = _Derivatives(slopes, states, gradient)
        # What a class says of its response does not hold for one that a subclass puts in its place.
        known = self.coordinatewise and _owner(self, "coordinatewise") is _owner(self, "response")
        if not (known or derivatives.are_all()):
            return None
        return Linearized(slopes, _pull_back(self.objective, position, derivatives.rows))

    def _is_as_defined(self) -> bool:
        """Whether a call is nothing but `response`."""
        return has_forward_of(self, GradientDrivenFlow)

    def _position(self, state: Tensor) -> Tensor:
        position = getattr(self, "position", None)
        return state if position is None else position(state)


def has_forward_of(flow: nn.Module, owner: type[nn.Module]) -> bool:
    """Whether calling ``flow`` does nothing but ``owner.forward``: it is not overridden, and has no hooks."""
    return (
        type(flow).forward is owner.forward
        and "forward" not in vars(flow)
        and not (flow._forward_hooks or flow._forward_pre_hooks)
    )


def _owner(flow: nn.Module, name: str) -> type:
    """The class that an attribute of the flow is defined in."""
    return next(cls for cls in type(flow).__mro__ if name in vars(cls))


class _Derivatives:
    """Derivatives of slopes that coordinates, trajectories and points do not mix in.

    Attributes
    ----------
    rows
        Entry (*batch, a, b, i) is ∂(part a of the slope)ᵢ/∂(part b of the state)ᵢ, and for the last b that by ∇f(x)ᵢ;
        shape (m, *batch, parts, parts + 1, d).
    """

    def __init__(self, slopes: Tensor, states: Tensor, gradient: Tensor) -> None:
        self._slopes, self._inputs = slopes, (states, gradient)
        self._size = gradient.shape[-1]
        self._parts = states.shape[-1] // self._size
        ones = torch.eye(self._parts, dtype=states.dtype, device=states.device).repeat_interleave(self._size, dim=-1)
        self.rows = torch.stack([self._product(one.expand_as(slopes)) for one in ones], dim=-3)

    def are_all(self) -> bool:
        """Whether nothing is mixed: a product with uneven weights would show it."""
        weights = _uneven(self._slopes)
        expected = self._product(weights)
        found = (weights.unflatten(-1, (self._parts, 1, self._size)) * self.rows).sum(-3)
        allowed = 1e3 * torch.finfo(weights.dtype).eps * expected.abs().amax()
        return bool(((found - expected).abs() <= allowed).all())

    def _product(self, cotangent: Tensor) -> Tensor:
        pulled = torch.autograd.grad(
            self._slopes, self._inputs, cotangent, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat(pulled, dim=-1).unflatten(-1, (self._parts + 1, self._size))


def _uneven(like: Tensor) -> Tensor:
    """Different numbers between 1/2 and 3/2, without touching the random generator."""
    index = torch.arange(like.numel(), dtype=like.dtype, device=like.device)
    return (index * 0.6180339887).frac_().add_(0.5).view_as(like)


def _pull_back(objective: Objective, position: Tensor, rows: Tensor) -> Callable[[int, Tensor], Tensor]:
    """Products with the flow's Jacobian from the derivatives of its response."""
    positions, size = position.unbind(), position.shape[-1]
    if rows.shape[-3] == 1:
        by_state, by_gradient = (part.unbind() for part in rows.squeeze(-3).unbind(-2))

        def of_position(index: int, cotangent: Tensor) -> Tensor:
            curved = objective.hessian_vector_product(positions[index], cotangent * by_gradient[index])
            return torch.addcmul(curved, cotangent, by_state[index])

        return of_position
    blocks, parts = rows.unbind(), rows.shape[-3]

    def of_parts(index: int, cotangent: Tensor) -> Tensor:
        products = (blocks[index] * cotangent.unflatten(-1, (parts, 1, size))).sum(-3)
        pulled = products[..., :-1, :].flatten(-2)
        pulled[..., :size] += objective.hessian_vector_product(positions[index], products[..., -1, :])
        return pulled

    return of_parts
