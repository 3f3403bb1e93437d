"""The discrete adjoint by linearised blocks of steps gives the gradients that it gives by autograd, to rounding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import odestop
from odestop import dynamics as flows
from odestop.continuous.gradients import linearized_steps
from odestop.objectives import DiagonalQuadratic, Quadratic

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

D = 4


def squared_norm(x: Tensor) -> Tensor:
    return x.square().sum(-1)


def quadratic() -> Quadratic:
    return Quadratic.with_condition_number(D, 20.0, seed=0, dtype=torch.float64)


def learned() -> nn.Module:
    return flows.PreconditionedFlow(quadratic(), flows.CoordinatewisePreconditioner(D, scale=0.4, dtype=torch.float64))


def stiff() -> nn.Module:
    objective = Quadratic.with_condition_number(D, 3e3, seed=0, dtype=torch.float64)
    return flows.PreconditionedFlow(objective, flows.CoordinatewisePreconditioner(D, scale=0.4, dtype=torch.float64))


def rescaled() -> nn.Module:
    return flows.RescaledGradientFlow(quadratic(), flows.ExponentialSchedule(2.0, 0.05))


def heavy_ball() -> nn.Module:
    return flows.HeavyBallFlow(quadratic(), 0.6)


def gradients(
    flow: nn.Module, x0: Tensor, threshold: Tensor, behind_a_function: bool, rtol: float = 1e-6, **arguments
) -> list[Tensor]:
    """Of a loss of T and x(T), by parameters, x0, ε and t0; a function hides what the flow knows about itself."""
    x0, threshold = x0.clone().requires_grad_(), threshold.clone().requires_grad_()
    t0 = torch.full(x0.shape[:-1], 0.25, dtype=x0.dtype, requires_grad=True)
    dynamics: Callable = flow
    if behind_a_function:
        dynamics = Hidden(flow)
    solution = odestop.continuous_stopping_time(
        dynamics, x0, squared_norm, threshold, t0=t0, rtol=rtol, atol=1e-2 * rtol, **arguments
    )
    assert solution.reached.any()
    usable = torch.where(solution.reached, solution.time, 0.0)
    loss = (usable.square()).sum() + (solution.state * torch.linspace(0.5, 1.5, solution.state.shape[-1])).sum()
    return list(torch.autograd.grad(loss, [*flow.parameters(), x0, threshold, t0]))


class Hidden:
    """A flow that nothing but calls can be made of."""

    def __init__(self, flow: nn.Module) -> None:
        self.flow = flow
        for name in ("initial_state", "position"):
            if hasattr(flow, name):
                setattr(self, name, getattr(flow, name))

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        return self.flow(t, x)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps that were pulled through without autograd."""
    taken: list[int] = []
    original = linearized_steps.LinearizedSteps.pull_back

    def counted(self, index: int, cotangent: Tensor) -> Tensor:
        taken.append(index)
        return original(self, index, cotangent)

    monkeypatch.setattr(linearized_steps.LinearizedSteps, "pull_back", counted)
    return taken


def agree(flow: nn.Module, x0: Tensor, threshold: Tensor, products: list[int], **arguments) -> None:
    found = gradients(flow, x0, threshold, False, **arguments)
    assert products
    products.clear()
    expected = gradients(flow, x0, threshold, True, **arguments)
    assert not products
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def states(*batch: int) -> Tensor:
    return 1 + 0.5 * torch.rand(*batch, D, dtype=torch.float64)


@pytest.mark.parametrize(
    ("flow", "numbers_in_block"), [(learned, 1), (rescaled, 100), (heavy_ball, 2**17), (learned, 2**17)]
)
def test_one_trajectory(
    flow: Callable[[], nn.Module], numbers_in_block: int, products: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linearized_steps, "_NUMBERS_IN_BLOCK", numbers_in_block)
    agree(flow(), states(), torch.tensor(0.05, dtype=torch.float64), products)


@pytest.mark.parametrize(
    ("method", "rtol"),
    [("dopri8", 1e-6), (odestop.solvers.RungeKutta4(step_size=0.2), 1e-6), ("rock4", 1e-6), ("rkc2", 1e-3)],
)
def test_every_kind_of_method(method: object, rtol: float, products: list[int]) -> None:
    agree(learned(), states(), torch.tensor(0.05, dtype=torch.float64), products, method=method, rtol=rtol)


@pytest.mark.parametrize(
    ("flow", "method", "rtol"),
    [(learned, "dopri5", 1e-6), (heavy_ball, "dopri5", 1e-6), (heavy_ball, "rock4", 1e-4), (learned, "rkc2", 1e-3)],
)
def test_a_batch_of_trajectories_that_stop_at_different_times(
    flow: Callable[[], nn.Module], method: str, rtol: float, products: list[int]
) -> None:
    threshold = torch.tensor([3.0, 0.5, 0.1, 0.01, 0.05, 1e-12], dtype=torch.float64)
    agree(flow(), states(6), threshold, products, method=method, rtol=rtol, t_max=60.0)


def test_steps_of_many_stages_and_of_few_in_one_block(products: list[int]) -> None:
    flow = stiff()
    for batch, threshold in (((), 0.05), ((3,), [0.5, 0.3, 0.05])):
        agree(flow, states(*batch), torch.tensor(threshold, dtype=torch.float64), products, method="rock4", rtol=1e-4)


def test_steps_of_too_many_numbers_are_left_to_autograd(products: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    flow, x0, threshold = stiff(), states(), torch.tensor(0.05, dtype=torch.float64)
    expected = gradients(flow, x0, threshold, False, method="rock4", rtol=1e-4)
    of_all = len(products)
    monkeypatch.setattr(linearized_steps, "_MOST_NUMBERS_IN_STEP", 5 * D)
    found = gradients(flow, x0, threshold, False, method="rock4", rtol=1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    assert 0 < len(products) - of_all < of_all


@pytest.mark.parametrize(
    ("flow", "method", "rtol", "numbers_in_block", "sees_state"),
    [
        (learned, "dopri5", 1e-6, 1, True),
        (learned, "dopri5", 1e-6, 2**17, False),
        (stiff, "rock4", 1e-4, 2**12, False),
        (stiff, "rock4", 1e-4, 2**17, True),
    ],
)
def test_several_levels_in_a_batch(
    flow: Callable[[], nn.Module],
    method: str,
    rtol: float,
    numbers_in_block: int,
    sees_state: bool,
    products: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linearized_steps, "_NUMBERS_IN_BLOCK", numbers_in_block)
    dynamics, x0 = flow(), states(2, 2).requires_grad_()
    levels = torch.tensor([1.0, 0.3, 0.05], dtype=torch.float64, requires_grad=True)
    t0 = torch.full((2, 2), 0.25, dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(0.5, 1.5, 3 * D, dtype=torch.float64).reshape(3, D)

    def gradient(function: Callable) -> tuple[Tensor, ...]:
        solution = odestop.continuous_stopping_time(
            function, x0, squared_norm, levels, levels=True, t0=t0, method=method, rtol=rtol
        )
        loss = solution.time.square().sum() + (weights * solution.state).sum() * sees_state
        return torch.autograd.grad(loss, [x0, levels, t0, *dynamics.parameters()])

    found = gradient(dynamics)
    assert products
    torch.testing.assert_close(found, gradient(Hidden(dynamics)), rtol=1e-11, atol=1e-12)


def test_checkpoints(products: list[int]) -> None:
    gradient = odestop.gradients.DiscreteAdjoint(checkpoints=4)
    agree(rescaled(), states(), torch.tensor(0.05, dtype=torch.float64), products, gradient=gradient)


def test_parameters_of_the_objective_and_tensors_computed_from_others(products: list[int]) -> None:
    eigenvalues = nn.Parameter(torch.linspace(0.5, 2.0, D, dtype=torch.float64))
    agree(flows.GradientFlow(DiagonalQuadratic(eigenvalues)), states(), torch.tensor(0.05).double(), products)
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x0, found = states(), []
    for wrapped in (lambda flow: flow, Hidden):
        products.clear()
        flow = flows.DiagonallyPreconditionedFlow(quadratic(), torch.stack([theta, *torch.ones(D - 1).double()]))
        time = odestop.continuous_stopping_time(wrapped(flow), x0, squared_norm, 0.05).time
        found.append(torch.autograd.grad(time, theta)[0])
        assert bool(products) == (wrapped is not Hidden)
    torch.testing.assert_close(*found, rtol=1e-11, atol=0)


def test_products_are_counted_alike() -> None:
    flow, x0 = learned(), states()
    counts = []
    for dynamics in (flow, Hidden(flow)):
        solution = odestop.continuous_stopping_time(dynamics, x0, squared_norm, 0.05)
        solution.time.backward()
        counts.append(solution.stats.vjps)
    assert counts[0] == counts[1] > 0


class Moody(flows.GradientFlow):
    """Mixes coordinates on a part of the way."""

    coordinatewise = False

    def response(self, t: Tensor, state: Tensor, gradient: Tensor) -> Tensor:
        size = gradient.square().sum(-1, keepdim=True)
        return -gradient / torch.where((size < 0.5) & (size > 0.1), 1 + (size - 0.5) * (size - 0.1), 1.0)


def test_a_flow_that_has_no_shortcut_on_a_part_of_the_way(products: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearized_steps, "_NUMBERS_IN_BLOCK", 1)
    agree(Moody(quadratic()), states(), torch.tensor(0.05, dtype=torch.float64), products)


def test_a_schedule_that_takes_one_time_only(products: list[int]) -> None:
    rate = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
    flow = flows.RescaledGradientFlow(quadratic(), lambda t: rate if t < 1.0 else rate * torch.exp(1 - t) + 0.1)
    x0 = states()
    solution = odestop.continuous_stopping_time(flow, x0, squared_norm, 0.05)
    found = torch.autograd.grad(solution.time, rate)[0]
    assert not products
    again = odestop.continuous_stopping_time(Hidden(flow), x0, squared_norm, 0.05)
    assert torch.equal(found, torch.autograd.grad(again.time, rate)[0])


def test_single_precision() -> None:
    flow = flows.RescaledGradientFlow(DiagonalQuadratic([1.0, 4.0]), flows.ConstantSchedule(2.0))
    x0 = torch.ones(2, requires_grad=True)
    solution = odestop.continuous_stopping_time(flow, x0, squared_norm, 0.1, rtol=1e-5)
    by_scale, by_start = torch.autograd.grad(solution.time, [*flow.parameters(), x0])
    assert by_scale.dtype == torch.float64
    assert by_start.dtype == torch.float32
    torch.testing.assert_close(by_scale.float(), -solution.time.detach() / 2, rtol=1e-4, atol=0)


def test_second_derivatives_of_unrolled_are_untouched(products: list[int]) -> None:
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    flow = flows.RescaledGradientFlow(DiagonalQuadratic(torch.ones(1).double()), flows.ConstantSchedule(scale))
    x0 = torch.ones(1, dtype=torch.float64)
    time = odestop.continuous_stopping_time(flow, x0, squared_norm, 0.01, gradient="unrolled", rtol=1e-9).time
    (first,) = torch.autograd.grad(time, scale, create_graph=True)
    (second,) = torch.autograd.grad(first, scale)
    torch.testing.assert_close(second, 2 * time / scale**2, rtol=1e-6, atol=0)
    assert not products
