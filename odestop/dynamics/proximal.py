"""Proximal flow: the flow of composite objectives, such as the lasso, and of smooth objectives over convex sets."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from odestop.dynamics._hyperparameters import at_trajectories, register_number
from odestop.objectives.composite import CompositeObjective, check_composite


class ProximalFlow(nn.Module):
    """dx/dt = prox_{s r}(x - s ∇g(x)) - x for f = g + r (Abbas, Attouch, 2015).

    The limit of the relaxed proximal gradient method x + h (prox_{s r}(x - s ∇g(x)) - x) as the relaxation h goes to
    0; h = 1 is `odestop.discrete.ProximalGradient` with the learning rate s.  If r is the indicator of a
    convex set, it is the projected flow dx/dt = P(x - s ∇g(x)) - x (Antipin, 1994; Bolte, 2003): it stays in the
    set, as its relaxed steps with h ≤ 1 do.  If r = 0 it is the gradient flow with its time divided by s.

    The field is continuous, with kinks where the proximal operator has them: T is differentiable except where a
    trajectory runs along a kink.  f has no gradient: use f(x) - f* or ‖gradient_mapping(x)‖² as J.

    Parameters
    ----------
    objective
        f = g + r, with the proximal operator of r.
    step
        s > 0, a number or a tensor of shape () or (*batch,); differentiable.  J = f - f* falls if s ≤ 1/L for the
        smoothness L of g.

    Raises
    ------
    ValueError
        If ``objective`` is not a `CompositeObjective`, or the step is not positive.

    Examples
    --------
    >>> import torch
    >>> from odestop.objectives import Lasso
    >>> flow = ProximalFlow(Lasso(torch.eye(2), torch.tensor([4.0, 1.0]), 0.5), step=1.0)
    >>> flow(torch.tensor(0.0), torch.tensor([1.0, 1.0])).tolist()
    [1.0, -0.5]
    """

    step: Tensor

    def __init__(self, objective: CompositeObjective, step: float | int | Tensor) -> None:
        super().__init__()
        self.objective = check_composite(objective)
        register_number(self, "step", step)

    def forward(self, t: Float[Tensor, "*time"], x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        return self.objective.proximal_step(x, at_trajectories(self.step, x)) - x
