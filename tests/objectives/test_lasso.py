"""Least squares, the lasso, the elastic net, and what every composite objective offers."""

import pytest
import torch
from torch import Tensor

from odestop.criteria import ObjectiveGap
from odestop.objectives import CompositeObjective, DiagonalQuadratic, ElasticNet, Lasso, LeastSquares

DOUBLE = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


FEATURES, TARGETS = random(7, 4), random(7, seed=1)


def test_the_convention_is_that_of_scikit_learn() -> None:
    """Its minimizer of the same formula satisfies our optimality condition."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    fit = linear_model.Lasso(alpha=0.2, fit_intercept=False, tol=1e-14, max_iter=100_000)
    minimizer = torch.as_tensor(fit.fit(FEATURES.numpy(), TARGETS.numpy()).coef_)
    assert 0 < int((minimizer != 0).sum()) < 4
    mapping = Lasso(FEATURES, TARGETS, 0.2).gradient_mapping(minimizer, 0.5)
    torch.testing.assert_close(mapping, torch.zeros(4, dtype=DOUBLE), rtol=0, atol=1e-9)


def test_the_elastic_net_has_the_penalties_of_scikit_learn() -> None:
    """λ₁ = α ρ and λ₂ = α (1 - ρ)."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    fit = linear_model.ElasticNet(alpha=0.4, l1_ratio=0.25, fit_intercept=False, tol=1e-14, max_iter=100_000)
    minimizer = torch.as_tensor(fit.fit(FEATURES.numpy(), TARGETS.numpy()).coef_)
    elastic_net = ElasticNet(FEATURES, TARGETS, 0.1, ridge=0.3)
    mapping = elastic_net.gradient_mapping(minimizer, 0.5)
    torch.testing.assert_close(mapping, torch.zeros(4, dtype=DOUBLE), rtol=0, atol=1e-9)
    residual = FEATURES @ minimizer - TARGETS
    value = residual.square().sum() / 14 + 0.1 * minimizer.abs().sum() + 0.15 * minimizer.square().sum()
    torch.testing.assert_close(elastic_net(minimizer), value)


def test_the_proximal_operator_of_the_elastic_net_minimises_its_definition() -> None:
    """Of step (λ₁ |u| + ½ λ₂ u²) + ½ (u - v)², against a fine grid."""
    elastic_net, grid = ElasticNet(FEATURES, TARGETS, 0.5, ridge=2.0), torch.linspace(-4, 4, 8001, dtype=DOUBLE)
    v = torch.tensor([3.0, -2.0, 0.9, -0.5], dtype=DOUBLE)
    costs = 1.6 * (0.5 * grid.abs() + grid**2) + 0.5 * (grid - v[:, None]) ** 2
    torch.testing.assert_close(elastic_net.proximal(v, 1.6), grid[costs.argmin(-1)], rtol=0, atol=1e-3)


def test_the_elastic_net_without_ridge_is_the_lasso() -> None:
    elastic_net, lasso, x = ElasticNet(FEATURES, TARGETS, 0.2, 0), Lasso(FEATURES, TARGETS, 0.2), random(3, 4, seed=2)
    assert torch.equal(elastic_net(x), lasso(x))
    assert torch.equal(elastic_net.proximal_step(x, 0.5), lasso.proximal_step(x, 0.5))


def test_the_ridge_may_be_one_per_trajectory_and_receives_gradients() -> None:
    ridge = torch.tensor([0.1, 0.7], dtype=DOUBLE, requires_grad=True)
    together, x = ElasticNet(FEATURES, TARGETS, 0.1, ridge), random(2, 4, seed=3)
    for i in range(2):
        alone = ElasticNet(FEATURES, TARGETS, 0.1, ridge[i].item())
        torch.testing.assert_close(together(x)[i], alone(x[i]))
        torch.testing.assert_close(together.proximal(x, 0.5)[i], alone.proximal(x[i], 0.5))
    assert together.proximal(x.float(), 0.5).dtype == torch.float32
    (slope,) = torch.autograd.grad(together(x).sum(), ridge)
    torch.testing.assert_close(slope, x.square().sum(-1) / 2)


def test_a_negative_ridge_is_refused() -> None:
    with pytest.raises(ValueError, match="ridge must be a non-negative finite number, got -1"):
        ElasticNet(FEATURES, TARGETS, 0.1, -1)
    with pytest.raises(ValueError, match="ridge must be finite real numbers of at least 0"):
        ElasticNet(FEATURES, TARGETS, 0.1, torch.tensor(-0.5))


def test_the_proximal_operator_minimises_its_definition() -> None:
    """Of step λ |u| + ½ (u - v)², against a fine grid."""
    lasso, grid = Lasso(FEATURES, TARGETS, 0.5), torch.linspace(-4, 4, 8001, dtype=DOUBLE)
    v = torch.tensor([3.0, -2.0, 0.9, -0.5], dtype=DOUBLE)
    costs = 1.6 * 0.5 * grid.abs() + 0.5 * (grid - v[:, None]) ** 2
    torch.testing.assert_close(lasso.proximal(v, 1.6), grid[costs.argmin(-1)], rtol=0, atol=1e-3)


def test_the_soft_threshold_has_its_derivatives() -> None:
    regularization = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    lasso = Lasso(FEATURES, TARGETS, regularization)
    v = torch.tensor([3.0, -2.0, 0.3, 0.0], dtype=DOUBLE, requires_grad=True)
    step = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, step: lasso.proximal(v, step), (v, step))
    weights = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=DOUBLE)
    (by_weight,) = torch.autograd.grad((weights * lasso.proximal(v, step)).sum(), regularization)
    assert by_weight == 2.0 * (-1.0 + 3.0)


def test_a_kink_has_the_derivative_of_zero() -> None:
    v = torch.tensor([0.5, -0.5], dtype=DOUBLE, requires_grad=True)
    lasso = Lasso(FEATURES[:, :2], TARGETS, 0.5)
    (gradient,) = torch.autograd.grad(lasso.proximal(v, 1.0).sum(), v)
    assert gradient.tolist() == [0.0, 0.0]


def test_value_and_gradient_mapping_are_those_of_the_parts() -> None:
    lasso, x = Lasso(FEATURES, TARGETS, 0.1), random(3, 4, seed=2)
    smooth = LeastSquares(FEATURES, TARGETS)
    torch.testing.assert_close(lasso(x), smooth(x) + 0.1 * x.abs().sum(-1))
    # Far from the kinks the penalty is linear.
    far = x.sign() * (1 + x.abs())
    expected = smooth.gradient(far) + 0.1 * far.sign()
    torch.testing.assert_close(lasso.gradient_mapping(far, 1e-3), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ObjectiveGap(lasso, 0.0)(x), lasso(x))


def test_each_trajectory_may_have_its_own_regularisation() -> None:
    weights, x = torch.tensor([0.1, 0.7], dtype=DOUBLE), random(2, 4, seed=3)
    together = Lasso(FEATURES, TARGETS, weights)
    for i in range(2):
        alone = Lasso(FEATURES, TARGETS, weights[i].item())
        torch.testing.assert_close(together(x)[i], alone(x[i]))
        torch.testing.assert_close(together.proximal(x, 0.5)[i], alone.proximal(x[i], 0.5))


@pytest.mark.parametrize("regularization", [0.1, torch.tensor(0.1, dtype=DOUBLE), torch.tensor([0.1], dtype=DOUBLE)])
def test_the_regularisation_does_not_change_the_dtype(regularization: float | Tensor) -> None:
    lasso = Lasso(FEATURES.float(), TARGETS.float(), regularization)
    batch = (1,) if isinstance(regularization, Tensor) and regularization.ndim else ()
    x = torch.ones(*batch, 4)
    for value in (lasso(x), lasso.proximal(x, 0.5), lasso.proximal_step(x, torch.tensor(0.5, dtype=DOUBLE))):
        assert value.dtype == torch.float32


def test_constants_of_least_squares_are_the_extreme_eigenvalues() -> None:
    eigenvalues = torch.linalg.eigvalsh(FEATURES.T @ FEATURES / 7)
    objective = LeastSquares(FEATURES, TARGETS)
    assert objective.smoothness == pytest.approx(eigenvalues[-1].item())
    assert objective.strong_convexity == pytest.approx(eigenvalues[0].item())
    assert LeastSquares(FEATURES.T.contiguous(), TARGETS[:4]).strong_convexity == 0.0


@pytest.mark.parametrize("regularization", [-0.1, float("nan"), torch.tensor([0.1, -0.2]), torch.tensor(1)])
def test_a_regularisation_that_is_no_weight_is_refused(regularization: float | Tensor) -> None:
    with pytest.raises(ValueError, match="regularization must be"):
        Lasso(FEATURES, TARGETS, regularization)


def test_targets_that_do_not_match_are_refused() -> None:
    for targets in (TARGETS[:3], TARGETS.float()):
        with pytest.raises(ValueError, match=r"targets must have shape \(n,\) = \(7,\) and dtype torch.float64"):
            LeastSquares(FEATURES, targets)
    with pytest.raises(ValueError, match="features must be"):
        LeastSquares(TARGETS, TARGETS)


def test_a_composite_objective_says_what_is_missing() -> None:
    composite = CompositeObjective(DiagonalQuadratic([1.0, 2.0]))
    x = torch.ones(2)
    for message, call in {
        r"must implement penalty\(x\)": lambda: composite(x),
        r"must implement proximal\(v, step\)": lambda: composite.proximal(x, 0.1),
        r"not differentiable everywhere: use smooth.gradient": lambda: composite.gradient(x),
        r"not differentiable everywhere: use smooth.hessian": lambda: composite.hessian_vector_product(x, x),
    }.items():
        with pytest.raises(NotImplementedError, match=f"CompositeObjective .*{message}|CompositeObjective {message}"):
            call()
