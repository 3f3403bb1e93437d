"""The shortcuts of gradient-driven flows to their own derivatives are what autograd finds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import odestop
from odestop import dynamics as flows
from odestop.dynamics import GradientDrivenFlow
from odestop.objectives import LogisticRegression, Objective, Quadratic, Rosenbrock

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

D = 3


def logistic() -> Objective:
    features = torch.randn(7, D, dtype=torch.float64)
    return LogisticRegression(features, torch.tensor([0, 1, 0, 1, 1, 0, 1]), regularization=0.1)


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "quadratic": lambda: Quadratic.with_condition_number(D, 10.0, seed=0, dtype=torch.float64),
    "logistic": logistic,
    "rosenbrock": lambda: Rosenbrock(D, b=2.0),
    "function": lambda: Objective.from_function(lambda x: (x.cosh() + 0.1 * x**4).sum(-1)),
}


def number(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=torch.float64))


def preconditioner() -> nn.Module:
    return flows.CoordinatewisePreconditioner(D, scale=0.5, dtype=torch.float64)


FLOWS: dict[str, Callable[[Objective], nn.Module]] = {
    "gradient": flows.GradientFlow,
    "rescaled": lambda f: flows.RescaledGradientFlow(f, flows.ExponentialSchedule(2.0, 0.3)),
    "diagonal": lambda f: flows.DiagonallyPreconditionedFlow(f, torch.rand(D, dtype=torch.float64)),
    "dense": lambda f: flows.DensePreconditionedFlow(f, torch.randn(D, D, dtype=torch.float64)),
    "preconditioned": lambda f: flows.PreconditionedFlow(f, preconditioner()),
    "perceptron": lambda f: flows.CoordinatewiseMLPFlow(f, 3, scale=0.5, dtype=torch.float64),
    "sign": lambda f: flows.SignFlow(f, 0.7),
    "heavy ball": lambda f: flows.HeavyBallFlow(f, 0.5),
    "Nesterov": flows.NesterovFlow,
    "strongly convex Nesterov": lambda f: flows.StronglyConvexNesterovFlow(f, 0.2),
    "Adagrad": lambda f: flows.AdagradFlow(f, 0.2),
    "RMSprop": lambda f: flows.RMSpropFlow(f, 0.5),
    "Adam": flows.AdamFlow,
}


def points(flow: nn.Module, batch: tuple[int, ...], count: int = 4) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, *batch, D, dtype=torch.float64)
    with torch.no_grad():
        states = flow.initial_state(x) if hasattr(flow, "initial_state") else x
    t = 0.5 + torch.rand(count, *batch, 1, dtype=torch.float64)
    return t, states + 0.3 * torch.rand_like(states)


def agrees_with_autograd(flow: nn.Module, batch: tuple[int, ...]) -> None:
    t, states = points(flow, batch)
    linear = flow.linearized(t, states)
    assert linear is not None
    cotangents = torch.randn_like(states)
    parameters = [p for p in flow.parameters() if p.requires_grad]
    totals = [torch.zeros_like(p) for p in parameters]
    for i in range(len(t)):
        state = states[i].clone().requires_grad_()
        slope = flow(t[i] if batch else t[i, 0], state)
        torch.testing.assert_close(linear.slopes[i], slope, rtol=1e-13, atol=1e-13)
        expected, *others = torch.autograd.grad(
            slope, (state, *parameters), cotangents[i], allow_unused=True, materialize_grads=True
        )
        with torch.no_grad():
            found = linear.pull_back(i, cotangents[i])
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        totals = [total + other for total, other in zip(totals, others, strict=True)]
    if parameters:
        found = torch.autograd.grad(linear.slopes, parameters, cotangents, allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(list(found), totals, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (2, 2)], ids=str)
@pytest.mark.parametrize("name", FLOWS)
def test_products_are_those_of_autograd(name: str, batch: tuple[int, ...]) -> None:
    agrees_with_autograd(FLOWS[name](OBJECTIVES["quadratic"]()), batch)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", ["rescaled", "preconditioned", "dense", "heavy ball"])
def test_of_every_objective(name: str, objective: str) -> None:
    agrees_with_autograd(FLOWS[name](OBJECTIVES[objective]()), (2,))


def test_with_parameters_frozen_shared_in_the_objective_or_per_trajectory() -> None:
    flow = flows.PreconditionedFlow(OBJECTIVES["quadratic"](), preconditioner())
    flow.preconditioner.weight_g.requires_grad_(False)
    flow.preconditioner.weight_t = flow.preconditioner.weight_x
    agrees_with_autograd(flow, (2,))
    eigenvalues = nn.Parameter(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    objective = odestop.objectives.DiagonalQuadratic(eigenvalues)
    agrees_with_autograd(flows.RescaledGradientFlow(objective, flows.ConstantSchedule(eigenvalues[0].detach())), (2,))
    agrees_with_autograd(flows.DensePreconditionedFlow(objective, torch.eye(D, dtype=torch.float64)), ())
    agrees_with_autograd(flows.SignFlow(objective, torch.tensor([0.5, 0.8], dtype=torch.float64)), (2,))


class Normalized(GradientDrivenFlow):
    """A response that mixes coordinates where ``mixing`` is not 0."""

    def __init__(self, objective: Objective, mixing: float) -> None:
        super().__init__()
        self.objective, self.mixing = objective, number(mixing)

    def response(self, t: Tensor, state: Tensor, gradient: Tensor) -> Tensor:
        return -gradient / (1 + gradient.square() + self.mixing * gradient.square().sum(-1, keepdim=True))


def test_mixed_coordinates_are_seen() -> None:
    t, states = points(nn.Module(), (2,))
    agrees_with_autograd(Normalized(OBJECTIVES["quadratic"](), 0.0), (2,))
    assert Normalized(OBJECTIVES["quadratic"](), 1e-8).linearized(t, states) is None


class MixedRows(GradientDrivenFlow):
    """A response that sees the mean gradient of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.objective = OBJECTIVES["quadratic"]()

    def response(self, t: Tensor, state: Tensor, gradient: Tensor) -> Tensor:
        return -gradient - 0.1 * gradient.mean(-2, keepdim=True)


class Mirrored(flows.GradientFlow):
    """Turns the response of a flow that is known to work coordinate by coordinate around."""

    def response(self, t: Tensor, state: Tensor, gradient: Tensor) -> Tensor:
        return -gradient.flip(-1)


class Faster(flows.GradientFlow):
    """Calls something else than its response."""

    def forward(self, t: Tensor, state: Tensor) -> Tensor:
        return 2 * super().forward(t, state)


class Braked(flows.HeavyBallFlow):
    """Has another acceleration."""

    def acceleration(self, t: Tensor, x: Tensor, v: Tensor) -> Tensor:
        return super().acceleration(t, x, v) - v


class Wider(flows.DensePreconditionedFlow):
    """Has another response."""

    def response(self, t: Tensor, state: Tensor, gradient: Tensor) -> Tensor:
        return super().response(t, state, gradient) - state


def hooked(objective: Objective) -> nn.Module:
    flow = flows.GradientFlow(objective)
    flow.register_forward_hook(lambda module, inputs, output: 2 * output)
    return flow


@pytest.mark.parametrize(
    "flow",
    [
        lambda f: MixedRows(),
        Mirrored,
        Faster,
        hooked,
        lambda f: Braked(f, 0.5),
        lambda f: Wider(f, torch.eye(D, dtype=torch.float64)),
        lambda f: flows.PreconditionedFlow(f, Mixing()),
    ],
)
def test_what_is_not_as_it_seems_has_no_shortcut(flow: Callable[[Objective], nn.Module]) -> None:
    made = flow(OBJECTIVES["quadratic"]())
    t, states = points(made, (2,))
    assert made.linearized(t, states) is None


class Mixing(nn.Module):
    """A preconditioner whose coordinates see each other."""

    def forward(self, x: Tensor, gradient: Tensor, t: Tensor) -> Tensor:
        return torch.softmax(x, -1)
