"""What every dynamics has to pass: torchdiffeq, finite differences, and the algorithm that it is the limit of."""

import math

import torch

import odestop


def stopping_time(flow, x0, criterion, threshold, **arguments):
    """T by the native solver, to about ten digits."""
    return odestop.continuous_stopping_time(
        flow, x0, criterion, threshold, method="dopri8", rtol=1e-10, atol=1e-12, max_steps=5000, **arguments
    )


def agree_with_torchdiffeq(flow, x0, criterion, threshold, *, t0=0.0, rtol=1e-5):
    """T and its gradient in x0 and in every parameter of the flow; T itself to a tenth of ``rtol``."""
    x0 = x0.detach().requires_grad_()
    inputs = [x0, *(parameter for parameter in flow.parameters() if parameter.requires_grad)]
    ours = stopping_time(flow, x0, criterion, threshold, t0=t0)
    theirs = odestop.torchdiffeq_stopping_time(flow, x0, criterion, threshold, t0=t0, rtol=1e-9, atol=1e-11)
    assert math.isfinite(ours.time.item())
    torch.testing.assert_close(ours.time, theirs.time, rtol=rtol / 10, atol=0.0)
    found, expected = (
        torch.autograd.grad(solution.time, inputs, allow_unused=True, materialize_grads=True)
        for solution in (ours, theirs)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.abs().max()))


def gradient_agrees_with_differences(flow, x0, criterion, threshold, *, t0=0.0, width=1e-4, rtol=1e-5):
    """Along a random direction of x0 and of every parameter: central differences of T, of order ``width``²."""
    x0 = x0.detach().clone().requires_grad_()
    inputs = [x0, *(parameter for parameter in flow.parameters() if parameter.requires_grad)]
    solution = stopping_time(flow, x0, criterion, threshold, t0=t0)
    gradients = torch.autograd.grad(solution.time, inputs, allow_unused=True, materialize_grads=True)
    generator = torch.Generator().manual_seed(0)
    for tensor, gradient in zip(inputs, gradients, strict=True):
        direction = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        change = []
        for sign in (1, -1):
            tensor.data += sign * width * direction
            with torch.no_grad():
                change.append(stopping_time(flow, x0, criterion, threshold, t0=t0).time.item())
            tensor.data -= sign * width * direction
        difference = (change[0] - change[1]) / (2 * width)
        found = float((gradient * direction).sum())
        scale = float((gradient * direction).abs().sum())
        assert abs(found - difference) <= rtol * scale + 1e-9, (tensor.shape, found, difference)


def is_the_limit_of(flow, algorithm, x0, *, time=1.0, t0=0.0, steps=(64, 128, 256), order=1.0):
    """The algorithm's iterates at a fixed time approach the flow's position with the given order in the step size.

    ``algorithm(h)`` is a step map whose step stands for the time h; the flow and the map may keep different states.
    """
    initial_state = getattr(flow, "initial_state", lambda x: x)
    position = getattr(flow, "position", lambda state: state)
    clock = odestop.criteria.TimeDependent(lambda t, x: t0 + time - t + 0.0 * x.sum(-1))
    with torch.no_grad():
        exact = stopping_time(flow, x0, clock, 0.0, t0=t0).position
    assert torch.equal(position(initial_state(x0)), x0)
    errors = []
    for count in steps:
        step_map = algorithm(time / count)
        state = getattr(step_map, "initial_state", lambda x: x)(x0)
        with torch.no_grad():
            for k in range(count):
                state = step_map(k, state)
        errors.append(float((getattr(step_map, "position", lambda s: s)(state) - exact).norm()))
    fitted = odestop.fit_order([time / count for count in steps], errors)
    assert abs(fitted.order - order) < 0.25, (fitted, errors)
