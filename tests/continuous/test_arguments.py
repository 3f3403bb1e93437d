"""Bad arguments give a ValueError that names the argument, what came and what is accepted."""

import math

import pytest
import torch

import odestop

DOUBLE = {"dtype": torch.float64}


def solve(**changed):
    arguments = {
        "dynamics": lambda t, x: -x,
        "x0": torch.ones(2, **DOUBLE),
        "criterion": lambda x: x.square().sum(-1),
        "threshold": 0.1,
    } | changed
    return odestop.continuous_stopping_time(**arguments)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x0": torch.ones(2, dtype=torch.int64)}, "x0 .* floating-point .* torch.int64"),
        ({"x0": torch.ones(2, dtype=torch.complex128)}, "x0 .* floating-point"),
        ({"x0": torch.tensor(1.0, **DOUBLE)}, r"x0 must have shape \(\*batch, d\)"),
        ({"x0": torch.tensor([1.0, math.nan], **DOUBLE)}, "x0 must be finite"),
        ({"threshold": math.nan}, "threshold must be finite"),
        ({"threshold": torch.ones(3, **DOUBLE)}, "threshold .* broadcasts"),
        ({"threshold": True}, "threshold must be a number"),
        ({"t0": math.inf}, "t0 must be finite"),
        ({"t_max": 0.0}, "t_max must be later than t0"),
        ({"t_max": math.nan}, "t_max must be a number or inf"),
        ({"rtol": -1e-6}, "rtol must be a positive"),
        ({"rtol": 0.0}, "rtol must be a positive"),
        ({"atol": -1e-6}, "atol must be a non-negative"),
        ({"rtol": math.nan}, "rtol must be a positive"),
        ({"max_steps": 0}, "max_steps must be an integer of at least 1"),
        ({"method": "rk45"}, "method must be one of 'dopri5'"),
        ({"gradient": "magic"}, "gradient must be one of 'discrete_adjoint'"),
        ({"on_failure": "ignore"}, "on_failure must be one of 'status', 'raise'"),
        ({"dynamics": lambda t, x: x.sum(-1)}, r"dynamics must return shape \(2,\), got \(\)"),
        ({"dynamics": lambda t, x: x.float()}, "dynamics must return the dtype of x0"),
        ({"dynamics": lambda t, x: 1.0}, "dynamics must return a torch.Tensor, got float"),
        ({"criterion": lambda x: x}, r"criterion must return shape \(\), got \(2,\)"),
        ({"criterion": lambda x: x.sum(-1).float()}, "criterion must return the dtype of x0"),
    ],
)
def test_a_bad_argument_is_named(changed, message):
    with pytest.raises(ValueError, match=message):
        solve(**changed)


def test_unknown_arguments_are_errors():
    with pytest.raises(TypeError, match="tolerance"):
        solve(tolerance=1e-3)


def test_an_exception_inside_the_dynamics_says_what_it_was_called_with():
    def field(t, x):
        if t < 1.0:  # ambiguous for a batch
            return -x
        return -2 * x

    with pytest.raises(RuntimeError) as failure:
        solve(dynamics=field, x0=torch.ones(3, 2, **DOUBLE))
    assert "t has shape (*batch, 1)" in failure.value.__notes__[0]


def test_whole_numbers_are_as_good_as_floats():
    for solver in (odestop.continuous_stopping_time, odestop.torchdiffeq_stopping_time):
        solution = solver(
            lambda t, x: -x, torch.ones(1, **DOUBLE), lambda x: x[..., 0] + 1, 2 - 1 / 2, t0=0, t_max=5, atol=1
        )
        assert bool(solution.reached)
