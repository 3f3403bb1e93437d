"""Preconditioners: the diagonal one of Fig. 1, the learned one against an explicit loop, and the dense one."""

import math

import pytest
import torch
from torch import Tensor, nn

from odestop import continuous_stopping_time
from odestop.dynamics import (
    CoordinatewisePreconditioner,
    DensePreconditionedFlow,
    DiagonallyPreconditionedFlow,
    PreconditionedFlow,
)
from odestop.objectives import DiagonalQuadratic, Objective, Quadratic, Rosenbrock

DOUBLE = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@torch.no_grad()
def explicit_loop(network: CoordinatewisePreconditioner, x: Tensor, g: Tensor, t: float) -> Tensor:
    entries = []
    for i in range(len(x)):
        total = 0.0
        for j in range(len(network.bias)):
            inner = network.weight_x[j, i] * x[i] + network.weight_g[j, i] * g[i] + network.weight_t[j, i] * t
            total += float(network.readout[j, i]) * math.tanh(float(inner + network.bias[j, i]))
        entries.append(math.exp(total))
    return torch.tensor(entries, dtype=x.dtype)


def test_flow_of_figure_1_scales_the_second_coordinate_by_theta():
    flow = DiagonallyPreconditionedFlow(DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE), [1.0, 2.5])
    x = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], dtype=DOUBLE)
    slope = flow(torch.zeros(2, 1, dtype=DOUBLE), x)
    torch.testing.assert_close(slope.detach(), torch.tensor([[-1.0, -20.0], [1.0, -5.0]], dtype=DOUBLE))
    (gradient,) = torch.autograd.grad(slope[0].sum(), flow.diagonal)
    torch.testing.assert_close(gradient, torch.tensor([-1.0, -8.0], dtype=DOUBLE))


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_numbers_for_the_diagonal_follow_the_dtype_of_the_objective(dtype):
    flow = DiagonallyPreconditionedFlow(DiagonalQuadratic([1.0, 4.0], dtype=dtype), [1.0, 2.5])
    assert isinstance(flow.diagonal, nn.Parameter)
    assert flow.diagonal.dtype == dtype


def test_gradients_reach_a_theta_stacked_into_the_diagonal():
    theta = torch.tensor(2.5, requires_grad=True)
    flow = DiagonallyPreconditionedFlow(DiagonalQuadratic([1.0, 4.0]), torch.stack([torch.tensor(1.0), theta]))
    flow(torch.tensor(0.0), torch.ones(2)).sum().backward()
    assert float(theta.grad) == -4.0


@pytest.mark.parametrize("diagonal", [[1.0, 2.0, 3.0], torch.ones(2, 2)])
def test_diagonal_that_does_not_fit_is_refused(diagonal):
    with pytest.raises(ValueError, match=r"diagonal must have shape \(d,\) with d = 2, got shape"):
        DiagonallyPreconditionedFlow(DiagonalQuadratic([1.0, 4.0]), diagonal)


def test_diagonal_for_an_objective_of_any_dimension_sets_it():
    flow = DiagonallyPreconditionedFlow(Objective.from_function(lambda x: (x * x).sum(-1)), [1.0, 2.0])
    assert flow(torch.tensor(0.0), torch.ones(2)).tolist() == [-2.0, -4.0]


@pytest.mark.parametrize("hidden", [1, 2, 5])
def test_network_equals_the_explicit_loop_over_coordinates(hidden):
    network = CoordinatewisePreconditioner(6, hidden, scale=0.8, seed=3, dtype=DOUBLE)
    x, g, t = random(2, 3, 6), random(2, 3, 6, seed=1), random(2, 3, 1, seed=2)
    batch = network(x, g, t)
    assert batch.shape == (2, 3, 6)
    for index in [(0, 0), (1, 2), (0, 1)]:
        expected = explicit_loop(network, x[index], g[index], float(t[index]))
        torch.testing.assert_close(batch[index].detach(), expected)
        torch.testing.assert_close(network(x[index], g[index], t[index].squeeze()).detach(), expected)


def test_one_time_serves_a_whole_batch():
    network = CoordinatewisePreconditioner(4, dtype=DOUBLE)
    x, t = random(3, 4), torch.tensor(0.7, dtype=DOUBLE)
    torch.testing.assert_close(network(x, x, t), network(x, x, t.expand(3, 1)))


@pytest.mark.parametrize("dimension", [1, 7, 100])
def test_network_has_ten_parameters_per_coordinate(dimension):
    network = CoordinatewisePreconditioner(dimension)
    assert sum(parameter.numel() for parameter in network.parameters()) == 10 * dimension


def test_coordinates_do_not_see_each_other():
    network = CoordinatewisePreconditioner(4, scale=1.0, dtype=DOUBLE)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x, x, torch.tensor(0.5, dtype=DOUBLE)), random(4))
    assert torch.equal(jacobian, torch.diag(jacobian.diagonal()))
    assert bool((jacobian.diagonal() != 0).all())


def test_preconditioner_is_positive_and_bounded_far_from_the_origin():
    network = CoordinatewisePreconditioner(50, scale=2.0, dtype=DOUBLE)
    diagonal = network(1e6 * random(50), 1e6 * random(50, seed=1), torch.tensor(1e3, dtype=DOUBLE))
    bound = network.readout.abs().sum(0).exp()
    assert bool((diagonal > 0).all())
    assert bool(((diagonal <= bound * (1 + 1e-12)) & (diagonal >= (1 - 1e-12) / bound)).all())


def test_zero_scale_gives_plain_gradient_flow():
    quadratic = Quadratic.with_condition_number(5, 10.0, 0, dtype=DOUBLE)
    flow = PreconditionedFlow(quadratic, CoordinatewisePreconditioner(5, scale=0.0, dtype=DOUBLE))
    x = random(3, 5)
    torch.testing.assert_close(flow(torch.tensor(0.0, dtype=DOUBLE), x).detach(), -quadratic.gradient(x))


def test_flow_multiplies_the_gradient_by_the_diagonal():
    quadratic = Quadratic.with_condition_number(5, 10.0, 0, dtype=DOUBLE)
    network = CoordinatewisePreconditioner(5, scale=0.5, dtype=DOUBLE)
    x, t = random(3, 5), random(3, 1, seed=4)
    gradient = quadratic.gradient(x)
    torch.testing.assert_close(PreconditionedFlow(quadratic, network)(t, x), -network(x, gradient, t) * gradient)


def test_derivatives_of_the_flow_in_state_time_and_every_parameter_are_right():
    quadratic = Quadratic.with_condition_number(3, 10.0, 0, dtype=DOUBLE)
    flow = PreconditionedFlow(quadratic, CoordinatewisePreconditioner(3, scale=0.5, dtype=DOUBLE))
    names = [name for name, _ in flow.named_parameters()]

    def slope(t: Tensor, x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(flow, dict(zip(names, values, strict=True)), (t, x))

    t = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)
    inputs = (t, random(2, 3).requires_grad_(), *flow.parameters())
    assert len(inputs) == 7
    assert torch.autograd.gradcheck(slope, inputs)
    assert torch.autograd.gradgradcheck(slope, inputs)


def test_seed_decides_the_parameters_in_every_dtype_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (
        CoordinatewisePreconditioner(1000, seed=seed, dtype=dtype)
        for seed, dtype in [(1, DOUBLE), (1, torch.float32), (2, DOUBLE)]
    )
    assert torch.equal(first.weight_x.float(), again.weight_x)
    assert not torch.equal(first.weight_x, other.weight_x)
    assert torch.equal(state, torch.get_rng_state())
    everything = torch.cat([parameter.detach().flatten() for parameter in first.parameters()])
    assert float(everything.std()) == pytest.approx(0.1, rel=0.03)
    assert abs(float(everything.mean())) < 0.004


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dimension": 0}, "dimension must be an integer of at least 1, got 0"),
        ({"dimension": 2, "hidden": 0}, "hidden must be an integer of at least 1, got 0"),
        ({"dimension": 2, "scale": -0.1}, "scale must be a non-negative finite number, got -0.1"),
    ],
)
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CoordinatewisePreconditioner(**arguments)


def test_dense_preconditioner_is_the_product_of_the_factors():
    raw = random(4, 4)
    quadratic = Quadratic.with_condition_number(4, 10.0, 0, dtype=DOUBLE)
    flow = DensePreconditionedFlow(quadratic, raw)
    factor = flow.factor().detach()
    assert torch.equal(factor, factor.tril())
    torch.testing.assert_close(factor.diagonal(), raw.diagonal().exp())
    x = random(2, 3, 4, seed=1)
    expected = -(factor @ factor.T @ quadratic.gradient(x).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(flow(torch.tensor(0.0), x).detach(), expected)


def test_dense_preconditioner_reproduces_a_positive_definite_matrix():
    matrix = random(5, 5) @ random(5, 5).T + 0.1 * torch.eye(5, dtype=DOUBLE)
    quadratic = Quadratic.with_condition_number(5, 10.0, 0, dtype=DOUBLE)
    flow = DensePreconditionedFlow.from_matrix(quadratic, matrix)
    torch.testing.assert_close(flow.preconditioner().detach(), matrix, rtol=1e-12, atol=1e-12)
    assert [name for name, _ in flow.named_parameters()] == ["log_cholesky"]


def test_the_inverse_hessian_makes_a_quadratic_round():
    """From x0 the flow is x0 exp(-t), so that f falls to ε at ½ log(f(x0)/ε)."""
    quadratic = Quadratic.with_condition_number(3, 30.0, 0, dtype=DOUBLE)
    flow = DensePreconditionedFlow.from_matrix(quadratic, torch.linalg.inv(quadratic.matrix))
    x0 = random(3)
    time = continuous_stopping_time(flow, x0, quadratic, 0.1 * float(quadratic(x0))).time
    assert time.item() == pytest.approx(0.5 * math.log(10), rel=1e-6)


def test_numbers_for_the_dense_preconditioner_follow_the_dtype_of_the_objective():
    flow = DensePreconditionedFlow(DiagonalQuadratic([1.0, 4.0]), [[0, 0], [1, 0]])
    assert flow(torch.zeros(3, 1), torch.ones(3, 2)).dtype == torch.float32


def test_dense_preconditioner_is_differentiable_twice_in_everything():
    flow = DensePreconditionedFlow(Rosenbrock(3, b=2.0), random(3, 3))

    def slope(x: Tensor, raw: Tensor) -> Tensor:
        return torch.func.functional_call(flow, {"log_cholesky": raw}, (torch.tensor(0.0), x))

    inputs = (random(2, 3).requires_grad_(), flow.log_cholesky)
    assert torch.autograd.gradcheck(slope, inputs)
    assert torch.autograd.gradgradcheck(slope, inputs)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda f: DensePreconditionedFlow(f, torch.zeros(2, 3)),
            r"log_cholesky must have shape \(d, d\) with d = 2, got shape \(2, 3\)",
        ),
        (lambda f: DensePreconditionedFlow(f, torch.zeros(3, 3)), r"with d = 2, got shape \(3, 3\)"),
        (
            lambda f: DensePreconditionedFlow.from_matrix(f, torch.tensor([[1.0, 2.0], [2.0, 1.0]])),
            "matrix must be symmetric positive definite, got",
        ),
        (
            lambda f: DensePreconditionedFlow.from_matrix(f, torch.tensor([[1.0, 0.5], [0.0, 1.0]])),
            "matrix must be symmetric positive definite, got",
        ),
    ],
)
def test_dense_preconditioners_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build(DiagonalQuadratic([1.0, 4.0]))
