"""The tolerances command, on a problem that takes a moment."""

import pytest

from experiments import tolerances
from odestop.solvers import METHODS

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def test_steps_that_shorten_toward_the_level_make_the_gradient_of_a_stabilised_method(monkeypatch):
    monkeypatch.setattr(tolerances, "DIMENSION", 10)
    tolerances.answer.cache_clear()
    setting = (1e2, 1e-5, 1e-4, 1e-6)
    near = tolerances.answer(*setting, METHODS["rock4"])
    far = tolerances.without_approach(*setting, "rock4")
    (_, error), (_, error_without) = (tolerances.errors(1e2, 1e-5, each) for each in (near, far))
    assert error < 2e-5 < error_without
    assert far.evaluations < near.evaluations < 1.2 * far.evaluations
    tolerances.answer.cache_clear()
