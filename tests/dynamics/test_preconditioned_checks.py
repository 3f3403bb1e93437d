"""The checks of every dynamics, on the preconditioned flows."""

import pytest
import torch

from odestop.dynamics import (
    CoordinatewisePreconditioner,
    DensePreconditionedFlow,
    DiagonallyPreconditionedFlow,
    PreconditionedFlow,
)
from odestop.objectives import DiagonalQuadratic, Rosenbrock
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
START = torch.tensor([0.6, 0.5], dtype=DOUBLE)
OBJECTIVES = {"quadratic": DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE), "rosenbrock": Rosenbrock(2, b=2.0)}
NETWORK = CoordinatewisePreconditioner(2, scale=0.5, dtype=DOUBLE)
DIAGONAL = torch.tensor([1.0, 0.5], dtype=DOUBLE)
LOG_CHOLESKY = torch.tensor([[0.1, 0.0], [0.4, -0.3]], dtype=DOUBLE)

# Each with the matrix or diagonal that a plain preconditioned step multiplies the gradient by.
FLOWS = {
    "diagonal": (lambda f: DiagonallyPreconditionedFlow(f, DIAGONAL), lambda t, x, g: DIAGONAL * g),
    "learned": (lambda f: PreconditionedFlow(f, NETWORK), lambda t, x, g: NETWORK(x, g, t) * g),
    "dense": (
        lambda f: DensePreconditionedFlow(f, LOG_CHOLESKY),
        lambda t, x, g: DensePreconditionedFlow(OBJECTIVES["quadratic"], LOG_CHOLESKY).preconditioner() @ g,
    ),
}


@pytest.mark.parametrize(("build", "direction"), FLOWS.values(), ids=FLOWS)
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_preconditioned_flows_pass(build, direction, objective):
    flow = build(objective)
    question = (flow, START, objective, 0.4 * float(objective(START)))
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)

    def algorithm(h):
        return lambda k, x: x - h * direction(torch.tensor(k * h, dtype=DOUBLE), x, objective.gradient(x))

    checks.is_the_limit_of(flow, algorithm, START, time=0.1)
