"""The choice between an ordinary and a stabilised method, from what the first steps of the ordinary one show."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from odestop.solvers.one_step import OneStepMethod
from odestop.solvers.runge_kutta import RungeKutta, Tsitouras5
from odestop.solvers.stabilised import ROCK4, StabilisedRungeKutta

Array = np.ndarray


@dataclass(frozen=True)
class Automatic:
    """Start with a method for mild flows, and start again with one for stiff flows if that promises to be cheaper.

    After each accepted step, from a few on, the evaluations that are left are predicted for both methods.  The time
    that is left follows from the rate at which J falls.  The step that accuracy allows, which in dissipative flows
    grows with time, is extrapolated to the middle of that time; the mild method cannot use more of it than its
    stability limit, the stiff one pays for it by the square root in stages.  The stiff method starts again at t0, so
    that the whole solve, and its gradient, are those of one method; a long solve loses a few percent by that.

    Alias ``"auto"``, with `Tsitouras5` and `ROCK4`; ``solution.stats.method`` says which was used.

    Parameters
    ----------
    mild, stiff
        The two methods.
    advantage
        The stiff method must promise so many times fewer evaluations.
    first_look
        Accepted steps before the first prediction.

    Examples
    --------
    >>> import torch, odestop
    >>> for stiffness in (3.0, 30_000.0):
    ...     rates = torch.tensor([1.0, stiffness], dtype=torch.float64)
    ...     solution = odestop.continuous_stopping_time(
    ...         lambda t, x: -rates * x,
    ...         torch.ones(2, dtype=torch.float64),
    ...         lambda x: x[..., 0],
    ...         0.1,
    ...         method="auto",
    ...     )
    ...     print(solution.stats.method)
    Tsitouras5
    ROCK4
    """

    mild: RungeKutta = field(default_factory=Tsitouras5)
    stiff: StabilisedRungeKutta = field(default_factory=ROCK4)
    advantage: float = 2.0
    first_look: int = 10

    def prefers_stiff(self, elapsed: Array, remaining: Array, wanted: Array, radius: Array) -> bool:
        """Whether the stiff method is so much cheaper, for a batch in which each trajectory has its own numbers.

        Parameters
        ----------
        elapsed, remaining
            Time since t0, and predicted time to the event, shape (n,).
        wanted
            Step size that accuracy allows at present, shape (n,).
        radius
            Spectral radius ρ of ∂F/∂x, shape (n,).
        """
        usable = (elapsed > 0) & np.isfinite(remaining) & (radius > 0)
        if not usable.any():
            return False
        elapsed, remaining, wanted, radius = (a[usable] for a in (elapsed, remaining, wanted, radius))
        h = wanted * (1.0 + 0.5 * remaining / elapsed)
        mild = _evaluations(self.mild, h, radius) * remaining
        stiff = _evaluations(self.stiff, h, radius) * (elapsed + remaining)
        return bool(mild.max() > self.advantage * stiff.max())


def _evaluations(method: OneStepMethod, h: Array, radius: Array) -> Array:
    """Evaluations per unit of time at the largest stable step up to h, with those of the error estimate."""
    h = np.minimum(h, method.stability_fraction * method.stability_limit / radius)
    extra = 0 if method.fixed_stages else 2
    return (method.stages_for(h, radius) + extra) / h
