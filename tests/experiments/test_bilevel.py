"""Penalties by gradient descent: the gradients against closed forms and differences, and the generalised loss."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from experiments import bilevel
from experiments.diabetes_features import diabetes_with_products
from experiments.generalized_cross_entropy import GeneralizedCrossEntropy
from figures import bilevel as figure
from odestop.objectives import LogisticRegression
from odestop.sweeps import Runner

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


THRESHOLD = 1e-7


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def classification(exponent: float) -> tuple[GeneralizedCrossEntropy, torch.Tensor, torch.Tensor]:
    features = torch.randn(20, 3, dtype=torch.float64)
    signs = torch.randn(20, dtype=torch.float64).sign()
    return GeneralizedCrossEntropy(features, signs, torch.tensor(exponent, dtype=torch.float64)), features, signs


def test_the_generalised_loss_lies_between_cross_entropy_and_absolute_error() -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    loss, features, signs = classification(1e-7)
    torch.testing.assert_close(loss(x), LogisticRegression(features, signs)(x), rtol=1e-5, atol=1e-6)
    loss, features, signs = classification(1.0)
    torch.testing.assert_close(loss(x), (1 - torch.sigmoid((x @ features.T) * signs)).mean(-1))


@pytest.mark.parametrize("exponent", [0.1, 0.7, 1.0])
def test_the_gradient_of_the_generalised_loss(exponent: float) -> None:
    loss, _, _ = classification(exponent)
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(loss(x), x)
    torch.testing.assert_close(loss.gradient(x), expected)
    points = 3 * torch.randn(50, 3, dtype=torch.float64)
    hessians = torch.stack(
        [loss.hessian_vector_product(points, v.expand_as(points)) for v in torch.eye(3).double()], -1
    )
    assert loss.smoothness is not None
    assert torch.linalg.eigvalsh(hessians).abs().max() <= loss.smoothness


def test_ridge_gradients_are_those_of_the_closed_form() -> None:
    features, targets = diabetes_with_products()
    train, held_out = bilevel._halves(len(targets))
    logarithm = leaf(-0.5)
    matrix = features[train].T @ features[train] / len(train) + logarithm.exp() * torch.eye(64, dtype=torch.float64)
    solution = torch.linalg.solve(matrix, features[train].T @ targets[train] / len(train))
    validation = (features[held_out] @ solution - targets[held_out]).square().mean() / 2
    (expected,) = torch.autograd.grad(validation, logarithm)
    found = {name: bilevel.evaluate("ridge", name, 0.0, THRESHOLD, leaf(-0.5)) for name in bilevel.BACKWARD_STEPS}
    for name, record in found.items():
        assert record["validation"] == pytest.approx(validation.item(), rel=1e-4)
        if name in ("unrolled", "implicit"):
            assert record["gradient"] == pytest.approx(expected.item(), rel=2e-2)
    assert abs(found["one-step"]["gradient"] / expected.item() - 1) > 0.5
    costs = {name: record["cost"] for name, record in found.items()}
    assert costs["one-step"] < costs["truncated"] < costs["unrolled"]
    assert costs["truncated"] - costs["one-step"] == 19
    assert costs["unrolled"] == 2 * (costs["one-step"] - 1)


@pytest.mark.parametrize(("problem", "start"), [("lasso", (-2.0,)), ("noisy labels", (-1.5, 0.5))])
def test_implicit_gradients_agree_with_unrolled_ones(problem: str, start: tuple[float, ...]) -> None:
    gradients = {}
    for name in ("unrolled", "implicit"):
        hyperparameters = leaf(*start)
        bilevel.evaluate(problem, name, 0.0, THRESHOLD, hyperparameters)
        gradients[name] = hyperparameters.grad
    torch.testing.assert_close(gradients["implicit"], gradients["unrolled"], rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("name", ["unrolled", "implicit"])
def test_the_gradient_of_the_price_is_that_of_the_step_count(name: str) -> None:
    def steps(logarithm: float) -> float:
        return bilevel.evaluate("ridge", "one-step", 0.0, THRESHOLD, leaf(logarithm))["steps"]

    price, width = 1e-3, 1e-4
    with_price, without = (
        bilevel.evaluate("ridge", name, each, THRESHOLD, leaf(0.5))["gradient"] for each in (price, 0.0)
    )
    difference = (steps(0.5 + width) - steps(0.5 - width)) / (2 * width)
    assert (with_price - without) / price == pytest.approx(difference, rel=1e-4)


def test_the_figure_has_a_panel_per_problem_and_price() -> None:
    table = bilevel.run("tiny", Runner())
    rows = table["bilevel"]
    assert len(table["bilevel_best"]) == 24
    lasso = table["lasso_steps"].iloc[-1]
    alone = bilevel.evaluate(
        "lasso", "one-step", 0.0, 1e-5, torch.tensor([lasso["penalty"]]).double().log().requires_grad_()
    )
    assert lasso["steps"] == pytest.approx(alone["steps"], rel=1e-6)
    assert 2 < lasso["support"] < 20
    descents = rows.groupby(["problem", "estimator", "price"])
    assert (descents["total_cost"].last() == descents["cost"].sum()).all()
    pd.testing.assert_series_equal(
        rows["objective"], rows["validation"] + rows["price"] * rows["steps"], check_names=False
    )
    drawn = figure.draw(rows)
    assert len(drawn.axes) == 6
    assert all(len(axes.lines) == 4 for axes in drawn.axes)
    assert [text.get_text() for text in drawn.legends[0].get_texts()][-1] == "implicit"
