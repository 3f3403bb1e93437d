"""The criteria: their values, their parameters, and what they refuse."""

import pytest
import torch
from torch import nn

import odestop
from odestop.criteria import (
    HistoryCriterion,
    ObjectiveGap,
    RelativeChange,
    SquaredGradientMapping,
    SquaredGradientNorm,
    StepDecrease,
    TimeDependent,
)
from odestop.objectives import DiagonalQuadratic, Lasso, LogisticRegression, Objective
from odestop.objectives.base import check_objective

DOUBLE = torch.float64


@pytest.mark.parametrize("shape", [(2,), (3, 2), (4, 3, 2)])
def test_values_have_the_shape_of_the_batch(shape):
    quadratic = DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE)
    x = torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    gap, squared_norm = ObjectiveGap(quadratic)(x), SquaredGradientNorm(quadratic)(x)
    torch.testing.assert_close(gap, 0.5 * x[..., 0] ** 2 + 2 * x[..., 1] ** 2)
    torch.testing.assert_close(squared_norm, x[..., 0] ** 2 + 16 * x[..., 1] ** 2)
    assert gap.shape == squared_norm.shape == shape[:-1]


def test_gap_subtracts_the_minimum_that_is_given():
    objective = Objective.from_function(lambda x: (x * x).sum(-1) + 3.0)
    assert float(ObjectiveGap(objective, minimum=3.0)(torch.ones(2))) == 2.0


def test_a_given_minimum_overrides_the_known_one():
    assert float(ObjectiveGap(DiagonalQuadratic([2.0]), minimum=-1.0)(torch.ones(1))) == 2.0


def test_gap_without_any_minimum_is_refused():
    objective = LogisticRegression(torch.ones(2, 1), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="minimum must be given for LogisticRegression"):
        ObjectiveGap(objective)


def test_the_squared_gradient_mapping_is_the_squared_gradient_where_the_penalty_is_flat_and_zero_at_a_minimizer():
    generator = torch.Generator().manual_seed(0)
    features, targets = (torch.randn(shape, dtype=DOUBLE, generator=generator) for shape in ((6, 3), (6,)))
    x = torch.randn(4, 3, dtype=DOUBLE, generator=generator)
    flat = Lasso(features, targets, 0.0)
    torch.testing.assert_close(SquaredGradientMapping(flat)(x), SquaredGradientNorm(flat.smooth)(x))
    heavy = Lasso(features, targets, float((features.mT @ targets).abs().max()) / 6)
    assert float(SquaredGradientMapping(heavy, step=0.3)(torch.zeros(3, dtype=DOUBLE))) == 0.0


@pytest.mark.usefixtures("annotations_unchecked")
def test_the_squared_gradient_mapping_refuses_what_it_cannot_use():
    with pytest.raises(ValueError, match=r"objective must be .*CompositeObjective"):
        SquaredGradientMapping(DiagonalQuadratic([1.0]))
    with pytest.raises(ValueError, match="step must be"):
        SquaredGradientMapping(Lasso(torch.eye(2), torch.ones(2), 0.1), step=-1.0)


def test_a_plain_function_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"objective must be an .*Objective, got function; .*from_function"):
        check_objective(lambda x: x.sum(-1))


def test_gradient_of_squared_gradient_norm_is_twice_hessian_times_gradient():
    features = torch.randn(6, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    objective = LogisticRegression(features, torch.tensor([0, 1, 1, 0, 1, 0]), 0.1)
    x = torch.tensor([0.5, -1.0, 2.0], dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(SquaredGradientNorm(objective)(x), x)
    point = x.detach()
    expected = 2 * objective.hessian_vector_product(point, objective.gradient(point))
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("criterion", [ObjectiveGap, SquaredGradientNorm])
def test_parameters_of_the_objective_are_parameters_of_the_criterion(criterion):
    eigenvalues = nn.Parameter(torch.tensor([1.0, 4.0], dtype=DOUBLE))
    module = criterion(DiagonalQuadratic(eigenvalues))
    x = torch.tensor([1.0, -2.0], dtype=DOUBLE)
    assert list(module.parameters()) == [eigenvalues]
    (gradient,) = torch.autograd.grad(module(x), eigenvalues)
    expected = 0.5 * x**2 if criterion is ObjectiveGap else 2 * eigenvalues.detach() * x**2
    torch.testing.assert_close(gradient, expected)


def test_minimum_given_as_a_parameter_receives_a_gradient():
    minimum = nn.Parameter(torch.tensor(0.5))
    ObjectiveGap(DiagonalQuadratic([1.0]), minimum)(torch.ones(1)).backward()
    assert float(minimum.grad) == -1.0


@pytest.mark.parametrize("shape", [(2,), (3, 2)])
def test_criteria_on_history_have_the_shape_of_the_batch(shape):
    x, previous = torch.full(shape, 0.3, dtype=DOUBLE), torch.full(shape, 4.0, dtype=DOUBLE)
    decrease = StepDecrease(DiagonalQuadratic([1.0, 3.0], dtype=DOUBLE))
    assert decrease(x, previous).shape == RelativeChange()(x, previous).shape == shape[:-1]
    torch.testing.assert_close(decrease(x, previous), torch.full(shape[:-1], 2 * (16 - 0.09), dtype=DOUBLE))


def test_relative_change_is_absolute_in_the_unit_ball_and_relative_outside():
    x = torch.tensor([[0.5, 0.0], [10.0, 0.0]], dtype=DOUBLE)
    expected = torch.tensor([0.1, 0.01], dtype=DOUBLE)
    torch.testing.assert_close(RelativeChange()(x, x - torch.tensor([0.1, 0.0], dtype=DOUBLE)), expected)


def test_a_function_of_both_points_is_a_criterion_with_its_parameters():
    weight = nn.Parameter(torch.tensor(2.0))
    criterion = HistoryCriterion.from_function(nn.Bilinear(2, 2, 1))
    assert len(list(criterion.parameters())) == 2
    distance = HistoryCriterion.from_function(lambda x, y: weight * (x - y).norm(dim=-1))
    assert distance(torch.zeros(2), torch.tensor([3.0, 4.0])).item() == 10.0


def test_a_criterion_of_time_says_why_a_discrete_run_cannot_use_it():
    clock = TimeDependent(lambda t, x: 1.0 - t)
    with pytest.raises(ValueError, match="let t be a coordinate of the state"):
        odestop.discrete_stopping_time(lambda k, x: 0.5 * x, torch.ones(1), clock, 0.1)
