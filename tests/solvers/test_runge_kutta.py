"""The methods: convergence, batches, error estimates, dense output, fixed steps."""

import math

import pytest
import torch

from odestop.solvers import (
    METHODS,
    BogackiShampine3,
    DormandPrince5,
    ExplicitEuler,
    FixedStepRungeKutta,
    Heun,
    PrinceDormand8,
    RungeKutta4,
    Tsitouras5,
)
from odestop.solvers.runge_kutta import linear_combination

PAIRS = [DormandPrince5(), Tsitouras5(), BogackiShampine3(), PrinceDormand8()]
FIXED = [kind(step_size=0.1) for kind in (ExplicitEuler, Heun, RungeKutta4)]

every_pair = pytest.mark.parametrize("method", PAIRS, ids=lambda method: type(method).__name__)
every_method = pytest.mark.parametrize("method", PAIRS + FIXED, ids=lambda method: type(method).__name__)
every_fixed_kind = pytest.mark.parametrize("kind", [ExplicitEuler, Heun, RungeKutta4])


def forced_growth(t, x):
    """x' = x² cos t, solved by 1/(1.3 - sin t)."""
    return x.square() * torch.cos(t).unsqueeze(-1)


def exact(t):
    return 1.0 / (1.3 - torch.sin(t))


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def one_step(method, t, h):
    """One step from the exact solution at times t."""
    x = exact(t).unsqueeze(-1)
    return method.step(forced_growth, t, x, h, forced_growth(t, x))


def global_error(method, steps):
    """Error at t = 1 after equal steps from t = 0."""
    t, h = double(0.0), double(1.0 / steps)
    x = exact(t).unsqueeze(-1)
    for _ in range(steps):
        x, _ = method.advance(forced_growth, t, x, h)
        t = t + h
    return (x - exact(t)).abs().item()


def observed_order(coarse, fine, ratio=2.0):
    return math.log(coarse / fine) / math.log(ratio)


def test_aliases_name_the_methods_that_choose_their_steps():
    assert [METHODS[name] for name in ("dopri5", "tsit5", "bosh3", "dopri8")] == PAIRS
    assert all(method.fixed_step_size is None for name, method in METHODS.items() if name != "auto")


@every_method
def test_global_error_falls_with_the_order_of_the_method(method):
    steps = 7 if method.tableau.order == 8 else 80
    order = observed_order(global_error(method, steps), global_error(method, 2 * steps))
    assert order == pytest.approx(method.tableau.order, abs=0.5)


@every_method
def test_each_trajectory_of_a_batch_takes_its_own_step(method):
    t, h = double(0.0, 0.3, 1.0, 0.2), double(0.1, 0.25, 0.0, 0.01)
    together = one_step(method, t, h)
    dense = method.dense_output(together)(double(0.2, 0.5, 0.7, 1.0))
    for row, fraction in enumerate((0.2, 0.5, 0.7, 1.0)):
        alone = one_step(method, t[row : row + 1], h[row : row + 1])
        for name in ("end", "end_slope", "error"):
            torch.testing.assert_close(getattr(together, name)[row], getattr(alone, name)[0], rtol=1e-14, atol=1e-17)
        torch.testing.assert_close(dense[row], method.dense_output(alone)(double(fraction))[0])


@every_method
def test_a_step_of_size_zero_stays_where_it_is(method):
    step = one_step(method, double(0.7), double(0.0))
    assert torch.equal(step.end, step.start)
    assert not step.error.any()


@every_method
def test_the_shape_of_the_batch_does_not_matter(method):
    t, h = torch.linspace(0.0, 1.0, 6, dtype=torch.float64), torch.linspace(0.01, 0.2, 6, dtype=torch.float64)
    flat, square = one_step(method, t, h), one_step(method, t.reshape(2, 3), h.reshape(2, 3))
    torch.testing.assert_close(square.end, flat.end.reshape(2, 3, 1), rtol=1e-14, atol=0.0)


@every_method
def test_the_end_slope_is_the_field_at_the_end_and_the_last_slope(method):
    step = one_step(method, double(0.4), double(0.1))
    assert torch.equal(step.end_slope, forced_growth(double(0.4) + double(0.1), step.end))
    assert step.slopes[-1] is step.end_slope
    assert len(step.slopes) == method.evaluations_per_step + 1


@every_method
def test_a_step_stays_in_single_precision(method):
    t = torch.tensor([0.4])
    step = one_step(method, t, torch.tensor([0.1]))
    assert {step.end.dtype, step.error.dtype, method.dense_output(step)(t).dtype} == {torch.float32}


@every_pair
def test_error_estimate_falls_with_the_embedded_order(method):
    h = {8: 0.2, 5: 0.1, 3: 0.05}[method.tableau.order]
    coarse, fine = (one_step(method, double(0.5), double(size)).error.abs().item() for size in (h, h / 2))
    assert observed_order(coarse, fine) == pytest.approx(method.tableau.error_order + 1, abs=0.4)


@every_pair
def test_error_estimate_bounds_the_error_of_a_small_step(method):
    step = one_step(method, double(0.3), double(0.1))
    assert (step.end - exact(double(0.4))).abs() < step.error.abs()


@every_method
def test_dense_output_meets_the_step_at_both_ends_with_its_slopes(method):
    step = one_step(method, double(0.3), double(0.2))
    dense = method.dense_output(step)
    fraction = double(0.0, 1.0).requires_grad_()
    start, end = (dense(s) for s in fraction.reshape(2, 1))
    torch.testing.assert_close(start, step.start, rtol=0.0, atol=0.0)
    torch.testing.assert_close(end, step.end, rtol=1e-13, atol=0.0)
    (derivative,) = torch.autograd.grad((start + end).sum(), fraction)
    expected = 0.2 * torch.cat((step.slopes[0], step.end_slope)).flatten()
    torch.testing.assert_close(derivative, expected, rtol=1e-12, atol=0.0)


@every_pair
def test_dense_output_is_close_to_the_solution_inside_the_step(method):
    step = one_step(method, double(0.3), double(0.1))
    inside = method.dense_output(step)(double(0.37))
    assert inside.item() == pytest.approx(exact(double(0.337)).item(), rel=1e-5)


@every_method
def test_a_step_is_differentiable_in_everything(method):
    t, h = (value.requires_grad_() for value in (double(0.3), double(0.2)))
    x = double([0.9]).requires_grad_()
    assert torch.autograd.gradcheck(lambda *inputs: method.advance(forced_growth, *inputs)[0], (t, x, h))


def test_a_known_first_slope_is_not_evaluated_again():
    calls = []

    def field(t, x):
        calls.append(t)
        return forced_growth(t, x)

    t, x, h = double(0.1), double([1.0]), double(0.1)
    DormandPrince5().step(field, t, x, h, forced_growth(t, x))
    assert len(calls) == DormandPrince5().evaluations_per_step


def test_linear_combination_of_nothing_is_zero():
    vectors = [torch.full((2, 3), math.nan, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)]
    assert torch.equal(linear_combination((0.0, 0.0), vectors), torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(linear_combination((0.0, 2.0), vectors), 2.0 * vectors[1])


@every_fixed_kind
def test_fixed_steps_are_neither_controlled_nor_capped(kind):
    method = kind(0.25)
    assert isinstance(method, FixedStepRungeKutta)
    assert method == kind(step_size=0.25)
    assert method.fixed_step_size == 0.25
    assert method.stability_fraction == math.inf
    assert repr(method) == f"{kind.__name__}(step_size=0.25)"
    assert not any(method.tableau.error_weights)


@every_fixed_kind
@pytest.mark.parametrize("step_size", [0.0, -0.1, math.inf, -math.inf, math.nan])
def test_a_fixed_step_must_be_a_positive_number(kind, step_size):
    with pytest.raises(ValueError, match="step_size must be a positive finite number, got"):
        kind(step_size=step_size)


@every_fixed_kind
def test_a_fixed_step_has_no_default_and_no_controller(kind):
    with pytest.raises(TypeError, match="step_size"):
        kind()
    with pytest.raises(TypeError, match="stability_fraction"):
        kind(step_size=0.1, stability_fraction=0.9)
