"""Counts along recorded runs against the stopping times of the package, and against values made by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import odestop
from odestop.criteria import ObjectiveGap, StepDecrease
from odestop.discrete import GradientDescent
from odestop.l2o import RNNprop
from odestop.l2o.evaluation import (
    classical_step_maps,
    objective_values,
    steps_to_small_decrease,
    steps_to_value,
    steps_until_settled,
    stopping_report,
)
from odestop.l2o.problems import Batch, LogisticProblems
from odestop.objectives import DiagonalQuadratic, Objective

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

THRESHOLD = 1e-4
STEPS = 150


@pytest.fixture(scope="module")
def batch() -> Batch:
    return LogisticProblems(16, 8).sample(5, torch.Generator().manual_seed(0), dtype=torch.float64)


def all_step_maps(objective: Objective) -> dict[str, odestop.discrete.StepMap]:
    network = RNNprop(hidden=3, output_scale=0.3, dtype=torch.float64)
    return {**classical_step_maps(objective), "learned": network.optimizer(objective)}


@pytest.mark.parametrize("name", ["GD", "NAG", "Adam", "learned"])
def test_counts_are_the_discrete_stopping_times(batch: Batch, name: str) -> None:
    objective, x0 = batch
    step_map = all_step_maps(objective)[name]
    values = objective_values(step_map, objective, x0, STEPS)
    counted, rose = steps_to_small_decrease(values, THRESHOLD)
    for criterion, threshold, steps in (
        (StepDecrease(objective), THRESHOLD, counted),
        (ObjectiveGap(objective), 0.1, steps_to_value(values, 0.1)),
    ):
        with torch.no_grad():
            solution = odestop.discrete_stopping_time(step_map, x0, criterion, threshold, max_steps=STEPS)
        assert solution.steps.tolist() == steps.tolist()
    assert bool(counted.isfinite().any())
    if name == "GD":
        assert not bool(rose.any())
    if name == "Adam":
        assert bool(rose.any())


def test_gradient_descent_takes_the_step_of_its_own_problem(batch: Batch) -> None:
    objective, x0 = batch
    values = objective_values(classical_step_maps(objective)["GD"], objective, x0, 3)
    for index in range(5):
        x = x0[index]
        for _ in range(3):
            single = objective.problems(index)
            x = x - single.gradient(x) / float(single.smoothness)
        assert float(values[-1, index]) == pytest.approx(float(single(x)), rel=1e-13)


def test_a_run_without_a_batch_or_a_memory() -> None:
    f = DiagonalQuadratic([2.0])
    values = objective_values(lambda k, x: 0.5 * x, f, torch.tensor([4.0]), 3)
    assert values.tolist() == [16.0, 4.0, 1.0, 0.25]
    assert steps_to_value(values, 1.0) == 2
    assert not objective_values(GradientDescent(f, 0.1), f, torch.tensor([4.0], requires_grad=True), 1).requires_grad


def naive_counts(values: list[float], threshold: float) -> tuple[float, bool, float]:
    moves = [before - after for before, after in itertools.pairwise(values)]
    small = [k for k, move in enumerate(moves, 1) if move <= threshold]
    settled = [k for k in range(1, len(values)) if all(abs(move) <= threshold for move in moves[k - 1 :])]
    steps = small[0] if small else math.inf
    return steps, bool(small) and moves[small[0] - 1] < 0, settled[0] if settled else math.inf


def test_counts_against_their_definitions_on_random_walks() -> None:
    generator = torch.Generator().manual_seed(0)
    shrinking = 0.6 ** torch.arange(12, dtype=torch.float64).unsqueeze(-1)
    values = 5 + (shrinking * (torch.rand(12, 200, generator=generator, dtype=torch.float64) - 0.7)).cumsum(0)
    steps, rose = steps_to_small_decrease(values, 0.02)
    settled = steps_until_settled(values, 0.02)
    expected = [naive_counts(run, 0.02) for run in values.T.tolist()]
    assert list(zip(steps.tolist(), rose.tolist(), settled.tolist(), strict=True)) == expected
    assert {bool(row[1]) for row in expected} == {True, False}
    assert bool((settled >= steps).all())
    assert bool((settled > steps).any())


def test_the_report_says_what_a_rise_hides() -> None:
    # The second step overshoots, the third goes on; the other run creeps.
    values = torch.tensor([[1.0, 1.0], [0.5, 0.95], [0.6, 0.94], [0.01, 0.935], [0.0095, 0.933]])
    report = stopping_report(values, threshold=0.006, gap=0.06, minimum=torch.tensor([0.0, 0.9]))
    assert report["steps"].tolist() == [2.0, 3.0]
    assert report["rose"].tolist() == [True, False]
    assert report["gap_at_stop"].tolist() == pytest.approx([0.6, 0.035], rel=1e-5)
    assert report["settled"].tolist() == [4.0, 3.0]
    assert report["steps_to_gap"].tolist() == [3.0, 1.0]
    assert report["final_gap"].tolist() == pytest.approx([0.0095, 0.033], rel=1e-5)


def test_runs_that_never_stop_or_overflow_are_infinite() -> None:
    values = torch.tensor([[9.0, 4.0], [6.0, torch.inf], [3.0, torch.nan]])
    report = stopping_report(values, threshold=1.0, gap=1.0, minimum=0.0)
    assert report["steps"].tolist() == [math.inf, math.inf]
    assert report["rose"].tolist() == [False, False]
    assert math.isnan(report["gap_at_stop"][0])
    assert report["settled"].tolist() == [math.inf, math.inf]
    assert report["steps_to_gap"].tolist() == [math.inf, math.inf]


def test_bad_arguments_are_named() -> None:
    f = Objective.from_function(lambda x: x.square().sum(-1))
    values = torch.ones(3, 2)
    for call, message in (
        (lambda: classical_step_maps(f), "objective must know its smoothness"),
        (lambda: objective_values(lambda k, x: x, f, torch.ones(2), 0), "steps must be an integer of at least 1"),
        (lambda: stopping_report(values, 0.0, 1.0, 0.0), "threshold must be a positive finite number"),
        (lambda: stopping_report(values, 1.0, -1.0, 0.0), "gap must be a positive finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
