"""Everything runs on the device and in the dtype of x0: on the CPU, and on a GPU where there is one."""

import pytest
import torch

import odestop

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
GRADIENTS = ["discrete_adjoint", "continuous_adjoint", "forward_sensitivity", "unrolled", "finite_difference"]


def linear_flow(device, dtype):
    """x' = -θ diag(1, 2) x on a batch, with a module that has a parameter and a buffer."""
    flow = torch.nn.Module()
    flow.rate = torch.nn.Parameter(torch.tensor(0.7, dtype=dtype))
    flow.register_buffer("spectrum", torch.tensor([1.0, 2.0], dtype=dtype))
    flow.to(device)
    return flow, lambda t, x: -flow.rate * flow.spectrum * x


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_answers_live_with_x0_and_agree_with_the_closed_form(gradient, dtype, device):
    flow, field = linear_flow(device, dtype)
    x0 = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.2, 0.0]], dtype=dtype, device=device, requires_grad=True)
    levels = torch.tensor([0.5, 0.1], dtype=dtype, device=device)
    tolerances = {"rtol": 1e-5, "atol": 1e-7} if dtype is torch.float32 else {}
    solution = odestop.continuous_stopping_time(
        field, x0, lambda x: x[..., 0], levels, levels=True, gradient=gradient, **tolerances
    )
    for answer in (solution.time, solution.state, solution.position, solution.criterion_rate):
        assert (answer.dtype, answer.device.type) == (dtype, device)
    exact = torch.log(x0[:, :1] / levels).clamp(min=0.0) / flow.rate
    accuracy = 1e-6 if dtype is torch.float64 else 2e-3
    torch.testing.assert_close(solution.time, exact, rtol=accuracy, atol=accuracy)
    inputs = (flow.rate, x0)
    found, expected = (torch.autograd.grad(time.sum(), inputs) for time in (solution.time, exact))
    torch.testing.assert_close(found, expected, rtol=10 * accuracy, atol=10 * accuracy)
    middle = solution.trajectory(torch.tensor([0.1], dtype=dtype, device=device))
    assert (middle.dtype, middle.device.type, middle.shape) == (dtype, device, (1, 3, 2))


@pytest.mark.parametrize("device", DEVICES)
def test_the_discrete_algorithm_runs_beside_x0(device):
    flow, field = linear_flow(device, torch.float32)
    x0 = torch.tensor([[1.0, 1.0], [3.0, 1.0]], device=device, requires_grad=True)
    solution = odestop.discrete_stopping_time(odestop.Euler(field, step_size=0.1), x0, lambda x: x[..., 0], 0.1)
    assert solution.steps.device.type == device
    # x = (1 - 0.07)^N x0
    assert solution.steps.tolist() == [32.0, 47.0]
    gradient, by_start = torch.autograd.grad(solution.steps.sum(), (flow.rate, x0))
    assert bool(torch.isfinite(by_start).all())
    assert gradient.item() < 0.0
