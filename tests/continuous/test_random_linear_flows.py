"""Random stable linear flows of any batch shape and dtype against the matrix exponential."""

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import odestop

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3}


@st.composite
def questions(draw):
    """A matrix with a positive definite symmetric part, start points and thresholds."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    dimension = draw(st.integers(1, 6))
    batch = draw(st.sampled_from([(), (1,), (4,), (2, 3)]))
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    rates = 10 ** (2 * torch.rand(dimension, generator=generator, dtype=torch.float64) - 1)
    basis = torch.linalg.qr(torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)).Q
    twist = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    matrix = basis @ torch.diag(rates) @ basis.T + draw(st.floats(0.0, 3.0)) * (twist - twist.T)
    x0 = torch.randn(*batch, dimension, generator=generator, dtype=torch.float64) + 0.1
    fraction = 10 ** (-3 * torch.rand(batch, generator=generator, dtype=torch.float64) - 0.1)
    return matrix, x0, fraction * x0.square().sum(-1), dtype


@hypothesis.settings(max_examples=25)
@hypothesis.given(questions())
def test_times_and_gradients_agree_with_the_matrix_exponential(question):
    matrix, x0, threshold, dtype = question
    start = x0.to(dtype, copy=True).requires_grad_()
    field_matrix = matrix.to(dtype)
    solution = odestop.continuous_stopping_time(
        lambda t, x: -(x @ field_matrix.T), start, lambda x: x.square().sum(-1), threshold.to(dtype)
    )
    assert bool(solution.reached.all())
    assert solution.time.shape == x0.shape[:-1]
    assert solution.time.dtype == dtype
    (gradient,) = torch.autograd.grad(solution.time.sum(), start)
    rows = zip(
        x0.reshape(-1, x0.shape[-1]),
        threshold.reshape(-1),
        solution.time.detach().double().reshape(-1),
        gradient.double().reshape(-1, x0.shape[-1]),
        strict=True,
    )
    for point, epsilon, time, measured in rows:
        flow = torch.linalg.matrix_exp(-matrix * time)
        end = flow @ point
        rate = -2 * end @ matrix @ end
        # The symmetric part is positive definite: J falls all the way, and the crossing is the first.
        assert (end.square().sum() - epsilon).item() == pytest.approx(
            0.0, abs=TOLERANCE[dtype] * abs(rate.item() * time.item())
        )
        exact = -(flow.T @ (2 * end)) / rate
        assert float((measured - exact).norm() / exact.norm()) < 10 * TOLERANCE[dtype]


@hypothesis.settings(max_examples=6)
@hypothesis.given(questions(), st.sampled_from(["tsit5", "bosh3", "dopri8"]))
def test_every_pair_gives_the_same_times(question, method):
    matrix, x0, threshold, _ = question
    times = [
        odestop.continuous_stopping_time(
            lambda t, x: -(x @ matrix.T), x0, lambda x: x.square().sum(-1), threshold, method=name, rtol=1e-6
        ).time
        for name in ("dopri5", method)
    ]
    np.testing.assert_allclose(times[1], times[0], rtol=1e-4)
