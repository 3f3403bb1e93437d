"""compile=True compiles the steps of the discrete adjoint, once for all of them, and changes no digit that counts."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import odestop

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


class Flow(nn.Module):
    """A flow that says nothing about itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 0.3], [0.3, 2.0]], dtype=torch.float64))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return -torch.tanh(x @ self.weight) * (1 + 0.1 * torch.sin(t))


def squared_norm(x: Tensor) -> Tensor:
    return x.square().sum(-1)


def answer(flow: nn.Module, x0: Tensor, threshold: float, graphs: list[Callable], **arguments) -> list[Tensor]:
    """T and its gradient, after emptying ``graphs`` between the two."""
    x0 = x0.clone().requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solution = odestop.continuous_stopping_time(flow, x0, squared_norm, threshold, rtol=1e-6, **arguments)
        graphs.clear()
        return [solution.time, *torch.autograd.grad(solution.time.sum(), [x0, *flow.parameters()])]


def test_the_steps_of_the_adjoint_are_compiled_once(compilations: list[Callable]) -> None:
    flow, x0 = Flow(), torch.tensor([1.0, -0.7], dtype=torch.float64)
    for threshold, is_first in ((1e-3, True), (1e-5, False)):
        found = answer(flow, x0, threshold, compilations, compile=True)
        assert bool(compilations) == is_first
        torch.testing.assert_close(found, answer(flow, x0, threshold, compilations), rtol=1e-11, atol=0)
        assert not compilations


def test_trajectories_that_stop_at_different_times_share_one_code(compilations: list[Callable]) -> None:
    flow, x0 = Flow(), torch.linspace(0.2, 2.0, 12, dtype=torch.float64).reshape(6, 2)
    found = answer(flow, x0, 1e-3, compilations, compile=True)
    assert len({graph.code for graph in compilations}) == 1
    torch.testing.assert_close(found, answer(flow, x0, 1e-3, compilations), rtol=1e-10, atol=1e-12)


def test_a_flow_that_knows_its_products_needs_none(compilations: list[Callable]) -> None:
    objective = odestop.objectives.DiagonalQuadratic(torch.tensor([1.0, 4.0], dtype=torch.float64))
    flow = odestop.dynamics.DiagonallyPreconditionedFlow(objective, torch.ones(2, dtype=torch.float64))
    x0 = torch.tensor([1.0, -0.7], dtype=torch.float64)
    found = answer(flow, x0, 1e-3, compilations, compile=True)
    assert not compilations
    torch.testing.assert_close(found, answer(flow, x0, 1e-3, compilations), rtol=1e-11, atol=0)
