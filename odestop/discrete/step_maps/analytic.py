"""Vector-Jacobian products that need no graph."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from odestop.objectives.base import Objective


def pull_back_gradient_step(
    objective: Objective,
    step_size: Tensor,
    state: Float[Tensor, "*batch d"],
    cotangent: Float[Tensor, "*batch d"],
    parameters: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]] | None:
    """Pull a cotangent λ through x - s ∇f(x): (I - s ∇²f(x)) λ for x and -λᵀ ∇f(x) for s.

    Returns None where this is not all, because there are parameters besides s.

    Parameters
    ----------
    objective
        f.
    step_size
        s, shape () or (*batch,).
    state, cotangent
        x and λ.
    parameters
        What gradients are wanted of.
    """
    if any(parameter is not step_size for parameter in parameters):
        return None
    factor = step_size if step_size.ndim == 0 else step_size.to(state.dtype).unsqueeze(-1)
    pulled = cotangent - factor * objective.hessian_vector_product(state, cotangent)
    if not parameters:
        return pulled, []
    slope = -(cotangent * objective.gradient(state)).sum(-1)
    return pulled, [(slope if step_size.ndim else slope.sum()).to(step_size.dtype)]
