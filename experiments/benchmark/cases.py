"""The questions of the benchmark: one family of quadratics, of any dimension, stiffness and number of parameters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

import odestop
from experiments.gradient_methods import joined
from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import CoordinatewisePreconditioner, ExponentialSchedule, PreconditionedFlow, RescaledGradientFlow
from odestop.objectives import Quadratic

LEARNED, SCHEDULE = "10 d", "2"
SCHEDULE_PARAMETERS = (1.0, 1e-5)
# T then grows like the condition number κ, and ρ is near 1: S = T ρ ≈ 2 κ.
_RELATIVE_THRESHOLD = 0.1


@dataclass(frozen=True)
class Case:
    """f = xᵀQx/2 with eigenvalues from 1/κ to 1, J = ‖∇f‖² ≤ 0.1/κ², x0 = 1 with noise from the second trajectory on.

    ``parameters`` is ``"10 d"`` for the preconditioner of the paper's Figure 2, and ``"2"`` for the rescaled flow
    dx/dt = -θ1 e^(-θ2 t) ∇f.  ``device`` is ``"cpu"`` or ``"cuda"``.
    """

    dimension: int
    condition_number: float
    batch: int = 1
    parameters: str = LEARNED
    device: str = "cpu"

    @property
    def threshold(self) -> float:
        """ε."""
        return _RELATIVE_THRESHOLD / self.condition_number**2

    @property
    def is_large(self) -> bool:
        """Whether an answer takes minutes on a processor."""
        return self.dimension >= 10_000 or self.condition_number >= 1e5

    @property
    def cost(self) -> float:
        """What an answer takes, roughly, in any unit: κ steps, each of overhead and a product with Q."""
        return self.condition_number * (1e6 + self.batch * self.dimension**2)

    @property
    def in_words(self) -> str:
        """What tells the case from others."""
        batch = "" if self.batch == 1 else f", batch {self.batch}"
        parameters = "" if self.parameters == LEARNED else ", 2 parameters"
        return f"d = {self.dimension}, κ = {self.condition_number:g}{batch}{parameters}"


@dataclass(frozen=True)
class Problem:
    """A case in PyTorch, float64."""

    dynamics: nn.Module
    x0: Tensor
    criterion: SquaredGradientNorm
    threshold: float

    @property
    def matrix(self) -> Tensor:
        """Q, shape (d, d)."""
        objective = self.criterion.objective
        assert isinstance(objective, Quadratic)
        return objective.matrix

    @property
    def parameters(self) -> list[nn.Parameter]:
        """θ."""
        return list(self.dynamics.parameters())


@cache
def pose(case: Case) -> Problem:
    """Return the case in PyTorch, the same one on every device."""
    objective = Quadratic.with_condition_number(case.dimension, case.condition_number, seed=0, dtype=torch.float64)
    dynamics: nn.Module
    if case.parameters == LEARNED:
        preconditioner = CoordinatewisePreconditioner(case.dimension, seed=1, dtype=torch.float64)
        dynamics = PreconditionedFlow(objective, preconditioner)
    else:
        numbers = (torch.tensor(number, dtype=torch.float64) for number in SCHEDULE_PARAMETERS)
        dynamics = RescaledGradientFlow(objective, ExponentialSchedule(*map(nn.Parameter, numbers)))
    noise = torch.randn(case.batch, case.dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise[0] = 0.0
    criterion = SquaredGradientNorm(objective).to(case.device)
    return Problem(dynamics.to(case.device), (1.0 + 0.3 * noise).to(case.device), criterion, case.threshold)


@cache
def reference(case: Case) -> tuple[Tensor, Tensor]:
    """Return T of every trajectory and the gradient of their sum, from an eighth-order solve at rtol 1e-10."""
    problem = pose(case)
    solution = odestop.continuous_stopping_time(
        problem.dynamics,
        problem.x0,
        problem.criterion,
        problem.threshold,
        method="dopri8",
        rtol=1e-10,
        atol=1e-10 * problem.threshold**0.5,
        max_steps=10**7,
        on_failure="raise",
    )
    gradient = joined(torch.autograd.grad(solution.time.sum(), problem.parameters))
    return solution.time.detach().cpu(), gradient.cpu()
