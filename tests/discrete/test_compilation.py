"""compile=True gives the eager answer, compiles once per mode, and gives up in one warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from odestop.discrete import discrete_stopping_time

Graph = Callable


def squared_norm(x: Tensor) -> Tensor:
    return (x**2).sum(-1)


class Decay(torch.nn.Module):
    """x - rate tanh(x) / (1 + k/100), with k in the arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

    def forward(self, k: int, x: Tensor) -> Tensor:
        return x - self.rate * torch.tanh(x) / (1 + k / 100)


def gradients(step: Decay, **options: object) -> list[Tensor]:
    x0 = torch.tensor([1.0, -0.7], dtype=torch.float64, requires_grad=True)
    steps = discrete_stopping_time(step, x0, squared_norm, 1e-4, **options).steps
    assert steps > 20
    return [steps, *torch.autograd.grad(steps, [x0, step.rate])]


def test_a_compiled_step_is_compiled_once_without_and_once_with_a_graph(compilations: list[Graph]) -> None:
    step = Decay()
    for one, other in zip(gradients(step, compile=True), gradients(step), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)
    assert len(compilations) == 2
    gradients(step, compile=True)
    assert len(compilations) == 2


def test_checkpoints_of_a_compiled_run_have_the_same_bits(compilations: list[Graph]) -> None:
    step = Decay()
    stored, retraced = gradients(step, compile=True), gradients(step, compile=True, checkpoints="sqrt")
    assert all(map(torch.equal, stored, retraced))
    assert compilations


def test_step_maps_of_one_class_share_their_code(compilations: list[Graph]) -> None:
    for _ in range(3):
        gradients(Decay(), compile=True)
    assert len(compilations) == 2


def test_more_step_maps_than_the_compiler_keeps_by_default_can_be_compiled(compilations: list[Graph]) -> None:
    for power in range(6):
        discrete_stopping_time(
            lambda k, x, power=power: 0.9 * x + 0 * x**power, torch.ones(2), squared_norm, 0.1, compile=True
        )
    assert len(compilations) == 6


@pytest.mark.usefixtures("without_compiler")
def test_where_compilation_fails_one_warning_says_so() -> None:
    step = Decay()
    with pytest.warns(RuntimeWarning, match=r"compile=True had no effect.*no working C\+\+ compiler") as caught:
        found = gradients(step, compile=True)
    assert len(caught) == 1
    assert all(map(torch.equal, found, gradients(step)))


def test_an_error_of_the_step_map_stays_its_own(compilations: list[Graph]) -> None:
    def step(k: int, x: Tensor) -> Tensor:
        if k > 3:
            raise ZeroDivisionError("at step 4")
        return 0.9 * x

    with pytest.raises(ZeroDivisionError, match="at step 4"):
        discrete_stopping_time(step, torch.ones(2), squared_norm, 1e-3, compile=True)


def test_the_default_backend_compiles() -> None:
    torch.compiler.reset()
    step = Decay()
    with warnings.catch_warnings():
        # A machine without a compiler still has to give the right answer.
        warnings.filterwarnings("ignore", message="compile=True had no effect")
        found = gradients(step, compile=True)
    for one, other in zip(found, gradients(step), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)
