"""``odestop solve``: its numbers are the library's, and every mistake is one line that names the option."""

import json
import math

import pytest
import torch
from typer.testing import CliRunner

import odestop
from odestop.cli import app
from odestop.comparison import compare_gradients
from odestop.continuous import continuous_stopping_time
from odestop.criteria import ObjectiveGap, SquaredGradientNorm
from odestop.discrete import Euler, discrete_stopping_time
from odestop.dynamics import (
    CoordinatewisePreconditioner,
    DiagonallyPreconditionedFlow,
    GradientFlow,
    PreconditionedFlow,
)
from odestop.objectives import DiagonalQuadratic, Quadratic

DOUBLE = torch.float64
FIGURE_1 = (
    *("--objective", "diagonal-quadratic", "--dynamics", "diagonal-preconditioner"),
    *("--threshold", "0.1", "--rtol", "1e-4"),
)


def run(*arguments):
    return CliRunner().invoke(app, ["solve", *arguments], env={"COLUMNS": "120", "NO_COLOR": "1"})


def answer(*arguments):
    """The JSON answer of a question that can be asked."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_json_holds_the_numbers_of_the_library():
    report = answer(
        *("--dimension", "12", "--condition-number", "20", "--seed", "3", "--set", "scale=0.2"),
        *("--threshold", "1e-2", "--step-size", "0.2", "--rtol", "1e-5", "--atol", "1e-7"),
    )
    quadratic = Quadratic.with_condition_number(12, 20.0, 3, dtype=DOUBLE)
    network = CoordinatewisePreconditioner(12, scale=0.2, seed=3, dtype=DOUBLE)
    flow, criterion = PreconditionedFlow(quadratic, network), SquaredGradientNorm(quadratic)
    x0 = torch.ones(12, dtype=DOUBLE)
    continuous = continuous_stopping_time(flow, x0, criterion, 1e-2, rtol=1e-5, atol=1e-7)
    discrete = discrete_stopping_time(Euler(flow, 0.2), x0, criterion, 1e-2)
    comparison = compare_gradients(continuous, discrete, 0.2, list(flow.parameters()))

    def exactly(value: float) -> object:
        return pytest.approx(value, rel=1e-12)

    assert report["continuous"]["time"] == exactly(continuous.time.item())
    assert report["continuous"]["steps"] == continuous.stats.accepted_steps.item()
    assert report["continuous"]["gradient_norm"] == exactly(comparison.time_gradient_norm)
    assert report["continuous"]["nfe"] == continuous.stats.nfe
    assert report["continuous"]["vjps"] == continuous.stats.vjps > 0
    assert report["continuous"]["status"] == report["discrete"]["status"] == "REACHED"
    assert report["discrete"]["steps"] == discrete.steps.item()
    assert report["discrete"]["time"] == exactly(discrete.time.item())
    assert report["discrete"]["gradient_norm"] == exactly(comparison.scaled_steps_gradient_norm)
    assert report["discrete"]["nfe"] == report["discrete"]["vjps"] == discrete.stats.nfe
    assert report["comparison"] == {
        "relative_error": pytest.approx(comparison.relative_error, rel=1e-9),
        "cosine": exactly(comparison.cosine),
        "nfe_ratio": exactly(comparison.nfe_ratio),
    }


def test_json_holds_what_is_needed_to_ask_again():
    report = answer(*FIGURE_1, "--seed", "7", "--set", "theta=0.5")
    assert report["objective"] == {
        "name": "diagonal-quadratic",
        "parameters": {"dimension": 2, "condition_number": 4.0},
    }
    assert report["dynamics"] == {"name": "diagonal-preconditioner", "parameters": {"theta": 0.5}}
    assert report["criterion"] == {"name": "squared-gradient-norm", "parameters": {}}
    assert report["settings"] == {
        "threshold": 0.1,
        "x0": None,
        "dtype": "float64",
        "seed": 7,
        "method": "dopri5",
        "rtol": 1e-4,
        "atol": 1e-9,
        "t_max": None,
        "step_size": 0.1,
        "sensitivity": "definition3",
        "max_steps": 100_000,
    }
    assert report["gradients_with_respect_to"] == "the dynamics' parameters (2 numbers)"
    assert report["versions"]["odestop"] == odestop.__version__
    assert report["versions"]["torch"] == torch.__version__


def test_a_dynamics_without_parameters_is_differentiated_in_x0():
    report = answer(
        *("--objective", "diagonal-quadratic", "--dynamics", "gradient-flow", "--criterion", "objective-gap"),
        *("--x0", "2,-1", "--threshold", "0.5", "--rtol", "1e-4"),
    )
    quadratic = DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE)
    x0 = torch.tensor([2.0, -1.0], dtype=DOUBLE, requires_grad=True)
    time = continuous_stopping_time(GradientFlow(quadratic), x0, ObjectiveGap(quadratic), 0.5, rtol=1e-4).time
    (gradient,) = torch.autograd.grad(time, x0)
    assert report["gradients_with_respect_to"] == "x0 (2 numbers)"
    assert report["continuous"]["time"] == pytest.approx(time.item(), rel=1e-12)
    assert report["continuous"]["gradient_norm"] == pytest.approx(float(gradient.norm()), rel=1e-12)


def test_the_table_shows_both_answers_in_words_and_numbers():
    result, report = run(*FIGURE_1), answer(*FIGURE_1)
    assert result.exit_code == 0
    assert "gradients ∇ with respect to the dynamics' parameters (2 numbers)" in result.stdout
    assert "the criterion fell to the threshold" in result.stdout
    for value in (
        report["continuous"]["time"],
        report["discrete"]["time"],
        report["discrete"]["steps"],
        report["continuous"]["gradient_norm"],
        report["discrete"]["gradient_norm"],
        report["continuous"]["nfe"],
        *report["comparison"].values(),
    ):
        assert f" {value:.6g} " in result.stdout
    assert "theta = 2.5" in result.stdout


def test_the_plain_command_asks_about_a_quadratic_in_100_dimensions():
    result = run()
    assert result.exit_code == 0
    assert "learned-preconditioner on quadratic" in result.stdout
    assert "until squared-gradient-norm ≤ 0.001" in result.stdout
    assert "the dynamics' parameters (1000 numbers)" in result.stdout


def test_a_target_that_is_not_reached_is_an_answer():
    arguments = (*FIGURE_1, "--t-max", "0.05", "--max-steps", "10", "--step-size", "0.01")
    report = answer(*arguments)
    assert report["continuous"]["status"] == "HORIZON"
    assert report["continuous"]["status_in_words"] == odestop.StoppingStatus.HORIZON.value
    assert report["discrete"]["status"] == "MAX_STEPS"
    assert report["continuous"]["time"] is report["discrete"]["steps"] is report["discrete"]["time"] is None
    assert report["continuous"]["gradient_norm"] is report["comparison"]["relative_error"] is None
    table = run(*arguments)
    assert table.exit_code == 0
    assert "∞" in table.stdout
    assert "–" in table.stdout
    assert "horizon t_max" in table.stdout


def test_one_answer_stands_without_the_other():
    report = answer(*FIGURE_1, "--max-steps", "1000", "--step-size", "1.0")
    assert report["discrete"]["status"] in ("NON_FINITE", "MAX_STEPS")
    assert report["continuous"]["status"] == "REACHED"
    assert report["continuous"]["gradient_norm"] > 0
    assert report["comparison"] == {"relative_error": None, "cosine": None, "nfe_ratio": None}


def test_a_target_met_at_the_start_has_zero_times_and_gradients():
    report = answer(*FIGURE_1, "--threshold", "1e3")
    for side in ("continuous", "discrete"):
        assert report[side]["status"] == "ALREADY_SATISFIED"
        assert report[side]["time"] == report[side]["gradient_norm"] == 0.0
    assert report["comparison"]["relative_error"] is None
    assert run(*FIGURE_1, "--threshold", "1e3").exit_code == 0


def test_single_precision_is_single_precision():
    single, double = answer(*FIGURE_1, "--dtype", "float32"), answer(*FIGURE_1)
    time = single["continuous"]["time"]
    assert torch.tensor(time, dtype=torch.float32).item() == time
    assert time != double["continuous"]["time"]
    assert time == pytest.approx(double["continuous"]["time"], rel=1e-3)


def test_set_reaches_objective_dynamics_and_criterion():
    report = answer(
        *FIGURE_1,
        *("--criterion", "objective-gap"),
        *("--set", "condition_number=9", "--set", "theta=0.5", "--set", "minimum=-0.05"),
    )
    quadratic = DiagonalQuadratic([1.0, 9.0], dtype=DOUBLE)
    flow = DiagonallyPreconditionedFlow(quadratic, [1.0, 0.5])
    criterion = ObjectiveGap(quadratic, minimum=-0.05)
    time = continuous_stopping_time(flow, torch.ones(2, dtype=DOUBLE), criterion, 0.1, rtol=1e-4).time.item()
    assert report["continuous"]["time"] == pytest.approx(time, rel=1e-12)
    assert report["criterion"]["parameters"] == {"minimum": -0.05}


def test_one_number_for_x0_serves_every_coordinate():
    both, one = answer(*FIGURE_1, "--x0", "0.5,0.5"), answer(*FIGURE_1, "--x0", "0.5")
    assert both["continuous"]["time"] == one["continuous"]["time"]
    assert one["settings"]["x0"] == "0.5"


def test_seed_draws_objective_and_dynamics_unless_set_says_otherwise():
    small = ("--dimension", "5", "--condition-number", "10", "--threshold", "0.5", "--rtol", "1e-4")
    first, again, other = (answer(*small, "--seed", seed) for seed in ("1", "1", "2"))
    assert first["continuous"]["time"] == again["continuous"]["time"] != other["continuous"]["time"]
    assert answer(*small, "--seed", "2", "--set", "seed=1")["continuous"]["time"] == first["continuous"]["time"]


def test_interpolated_steps_are_fractional():
    report = answer(*FIGURE_1, "--sensitivity", "interpolated", "--step-size", "0.05")
    assert not report["discrete"]["steps"].is_integer()
    assert report["discrete"]["time"] == pytest.approx(0.05 * report["discrete"]["steps"])
    assert "N̂" in run(*FIGURE_1, "--sensitivity", "interpolated").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "cubic"], "--objective must be one of 'quadratic', "),
        (["--dynamics", "cubic"], "--dynamics must be one of 'gradient-flow', "),
        (["--criterion", "cubic"], "--criterion must be one of 'objective-gap', "),
        (["--threshold", "nan"], "--threshold must be finite, got nan"),
        (["--threshold", "small"], "Invalid value for '--threshold'"),
        (["--step-size", "-1"], "--step-size must be a positive finite number, got -1.0"),
        (["--step-size", "inf"], "--step-size must be a positive finite number, got inf"),
        ([*FIGURE_1, "--rtol", "-1"], "--rtol must be a positive"),
        ([*FIGURE_1, "--atol", "nan"], "--atol must be a non-negative"),
        ([*FIGURE_1, "--t-max", "0"], "--t-max must be later than"),
        ([*FIGURE_1, "--method", "euler"], "--method must be one of 'dopri5'"),
        (["--sensitivity", "best"], "--sensitivity must be one of 'definition3', 'interpolated'"),
        (["--dtype", "float16"], "--dtype must be one of 'float32', 'float64'"),
        (["--max-steps", "0"], "--max-steps must be an integer of at least 1"),
        (["--seed", "1.5"], "Invalid value for '--seed'"),
        (["--seed", str(2**64)], f"--seed must be an integer of at most 64 bits, got {2**64}"),
        (["--dimension", "0"], "--dimension must be an integer of at least 1, got 0"),
        (["--dimension", "10000000"], "quadratic cannot be made from these parameters: "),
        (["--condition-number", "0.5"], "--condition-number must be at least 1"),
        (["--x0", "1,2,3"], "--x0 must be one number, or d = 100 of them, got 3"),
        (["--x0", "one"], "--x0 must be a finite number"),
        (["--set", "scale"], "--set must be of the form name=number, got 'scale'"),
        (["--set", "scale=big"], "--set scale must be a finite number"),
        (["--set", "scale=-1"], "--set scale must be a non-negative finite number"),
        (["--set", "hidden=2.5"], "--set hidden must be a whole number"),
        (["--set", "theta=1"], "--set theta is not a parameter of quadratic, learned-preconditioner, "),
        (["--set", "hidden=2", "--set", "hidden=3"], "--set hidden must be given once, got it twice"),
        (["--objective", "rosenbrock", "--condition-number", "9"], "--condition-number is not a parameter of"),
        (["--objective", "logistic-regression", "--criterion", "objective-gap"], "--set minimum must be given"),
        (["--bogus"], "No such option: --bogus"),
    ],
)
def test_a_value_that_cannot_be_used_gets_one_line_that_names_the_option(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1


def test_json_has_no_numbers_that_json_does_not_have():
    def refuse(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    result = run(*FIGURE_1, "--t-max", "1", "--max-steps", "2", "--json")
    report = json.loads(result.stdout, parse_constant=refuse)
    assert all(math.isfinite(report[side]["seconds"]) for side in ("continuous", "discrete"))
