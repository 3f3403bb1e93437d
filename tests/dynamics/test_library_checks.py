"""The checks that every dynamics has to pass, on the plainest of them."""

import pytest
import torch

from odestop import Euler
from odestop.criteria import ObjectiveGap
from odestop.dynamics import ExponentialSchedule, RescaledGradientFlow
from odestop.objectives import Rosenbrock
from tests.dynamics import checks

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

START = torch.tensor([0.6, 0.5], dtype=torch.float64)


@pytest.fixture
def flow():
    return RescaledGradientFlow(Rosenbrock(2), ExponentialSchedule(0.5, rate=0.5))


def test_rescaled_gradient_flow_passes(flow):
    question = (flow, START, ObjectiveGap(flow.objective), 0.1)
    checks.agree_with_torchdiffeq(*question)
    checks.gradient_agrees_with_differences(*question)
    checks.is_the_limit_of(flow, lambda h: Euler(flow, h), START, time=0.1)


def test_a_wrong_limit_does_not_pass(flow):
    with pytest.raises(AssertionError):
        checks.is_the_limit_of(flow, lambda h: Euler(flow, 1.01 * h), START, time=0.1)
