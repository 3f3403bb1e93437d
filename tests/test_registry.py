"""The registry: what it says about each entry is true, and each entry builds and solves."""

import inspect
from typing import Annotated

import pytest
import torch
from torch import Tensor, nn

from odestop import StoppingStatus, continuous_stopping_time
from odestop.discrete import Euler, discrete_stopping_time
from odestop.dynamics import ExponentialSchedule, GradientFlow, RescaledGradientFlow
from odestop.objectives import Objective, Quadratic
from odestop.registry import (
    CRITERIA,
    DYNAMICS,
    OBJECTIVES,
    Catalogue,
    Entry,
    ObjectiveEntry,
    Parameter,
    Range,
    parse_number,
)

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

DOUBLE = torch.float64
ENTRIES = [*OBJECTIVES.values(), *DYNAMICS.values(), *CRITERIA.values()]


def small(entry: ObjectiveEntry, dtype: torch.dtype = DOUBLE) -> Objective:
    """The objective in a dimension of at most 10."""
    sizes = {p.name: min(p.default, 10) for p in entry.parameters if p.name == "dimension"}
    return entry.build(dtype=dtype, **sizes)


def by_name(entry: Entry) -> str:
    return entry.name


@pytest.mark.parametrize("catalogue", [OBJECTIVES, DYNAMICS, CRITERIA], ids=lambda catalogue: catalogue.kind)
def test_an_unknown_name_is_told_the_known_ones(catalogue):
    with pytest.raises(ValueError, match=f"{catalogue.kind} must be one of '{next(iter(catalogue))}'.*'nonsense'"):
        catalogue["nonsense"]
    assert "nonsense" not in catalogue


@pytest.mark.parametrize("entry", ENTRIES, ids=by_name)
def test_every_entry_is_described_and_its_defaults_are_in_range(entry):
    assert entry.name == entry.name.lower().replace("_", "-")
    assert len(entry.summary) > 10
    for parameter in entry.parameters:
        assert parameter.symbol
        assert parameter.description
        assert parameter.low < parameter.high
        assert parameter.default is None or parameter.low <= parameter.default <= parameter.high


def test_summaries_are_the_first_lines_of_the_docstrings():
    assert OBJECTIVES["quadratic"].summary == inspect.getdoc(Quadratic).splitlines()[0].removesuffix(".")
    assert DYNAMICS["gradient-flow"].summary == "dx/dt = -∇f(x)"
    flow, schedule = inspect.getdoc(RescaledGradientFlow), inspect.getdoc(ExponentialSchedule)
    assert DYNAMICS["exponential-flow"].summary == f"{flow.splitlines()[0]} {schedule.splitlines()[0][:-1]}"


def test_default_of_the_diagonal_quadratic_is_the_objective_of_figure_1():
    assert OBJECTIVES["diagonal-quadratic"].build(dtype=DOUBLE).eigenvalues.tolist() == [1.0, 4.0]


GRADIENT_NORM = CRITERIA["squared-gradient-norm"]
COMPOSITE = ("lasso", "elastic-net")
SPECIAL = {
    "proximal-flow": COMPOSITE,
    "spectral-flow": ("matrix-factorization", "softmax-regression"),
    "gauss-newton-flow": ("matrix-factorization", "least-squares"),
    "natural-gradient-flow": ("logistic-regression", "softmax-regression"),
    "simplex-flow": ("diagonal-quadratic", "logistic-regression"),
    "orthant-flow": ("diagonal-quadratic", "logistic-regression"),
}
POSITIVE = ("simplex-flow", "orthant-flow")


def objectives_of(entry: Entry) -> list[ObjectiveEntry]:
    """Two objectives that the dynamics is for."""
    return [OBJECTIVES[name] for name in SPECIAL.get(entry.name, ("diagonal-quadratic", "logistic-regression"))]


@pytest.mark.parametrize(
    ("objective", "dynamics", "criterion", "dtype"),
    [
        *(
            (objective, DYNAMICS["gradient-flow"], GRADIENT_NORM, DOUBLE)
            for objective in OBJECTIVES.values()
            if objective.name not in COMPOSITE
        ),
        *(
            (objective, DYNAMICS["learned-preconditioner"], criterion, torch.float32)
            for objective in OBJECTIVES.values()
            for criterion in (CRITERIA["objective-gap"], GRADIENT_NORM)
            if objective.name not in COMPOSITE
        ),
        *(
            (objective, dynamics, GRADIENT_NORM, DOUBLE)
            for dynamics in DYNAMICS.values()
            if dynamics.name != "proximal-flow"
            for objective in objectives_of(dynamics)
        ),
        *(
            (OBJECTIVES[objective], DYNAMICS["proximal-flow"], CRITERIA[criterion], dtype)
            for objective, criterion, dtype in zip(
                COMPOSITE, ("squared-gradient-mapping", "objective-gap"), (DOUBLE, torch.float32), strict=True
            )
        ),
    ],
    ids=lambda case: getattr(case, "name", str(case)),
)
def test_every_entry_builds_and_solves(objective, dynamics, criterion, dtype):
    f = small(objective, dtype)
    flow = dynamics.build(objective=f, dtype=dtype)
    knows_minimum = f.minimum is not None or criterion.name != "objective-gap"
    target = criterion.build(objective=f, **({} if knows_minimum else {"minimum": 0.05}))
    start = torch.full((f.dimension,), 0.5) if dynamics.name in POSITIVE else objective.start(f.dimension)
    x0 = start.to(dtype).requires_grad_()
    position = flow.position(flow.initial_state(x0)) if dynamics.name in POSITIVE else x0
    threshold = 0.8 * float(target(position).detach())
    solution = continuous_stopping_time(flow, x0, target, threshold, rtol=1e-4, atol=1e-6)
    h = float(solution.time.detach()) / 20
    discrete = discrete_stopping_time(Euler(flow, h), x0, target, threshold, max_steps=200)
    assert solution.status is StoppingStatus.REACHED
    assert discrete.status is StoppingStatus.REACHED
    assert solution.time.dtype == discrete.steps.dtype == dtype
    inputs = [x0, *flow.parameters()]
    for gradient in torch.autograd.grad(solution.time, inputs) + torch.autograd.grad(discrete.steps, inputs):
        assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("exponential-flow", "scale"),
        ("exponential-flow", "rate"),
        ("polynomial-flow", "scale"),
        ("polynomial-flow", "exponent"),
        ("diagonal-preconditioner", "theta"),
        ("dense-preconditioner", "scale"),
        ("p-norm-flow", "p"),
    ],
)
def test_a_hyperparameter_given_as_a_tensor_receives_the_gradient(name, parameter):
    theta = torch.tensor(1.3 if parameter == "p" else 0.3, dtype=DOUBLE, requires_grad=True)
    objective = small(OBJECTIVES["diagonal-quadratic"])
    flow = DYNAMICS[name].build(objective=objective, dtype=DOUBLE, **{parameter: theta})
    time = continuous_stopping_time(flow, torch.ones(2, dtype=DOUBLE), objective, 1.0).time
    (slope,) = torch.autograd.grad(time, theta)
    assert float(slope) != 0


@pytest.mark.parametrize(
    ("entry", "objective", "message"),
    [
        (
            DYNAMICS["spectral-flow"],
            "quadratic",
            "be a MatrixFactorization or SoftmaxRegression for spectral-flow, got Q",
        ),
        (DYNAMICS["proximal-flow"], "quadratic", "be a CompositeObjective for proximal-flow, got Quadratic"),
        (DYNAMICS["gradient-flow"], "lasso", "have a gradient for gradient-flow, got Lasso"),
        (DYNAMICS["heavy-ball"], "elastic-net", "have a gradient for heavy-ball, got ElasticNet"),
        (GRADIENT_NORM, "lasso", "have a gradient for squared-gradient-norm, got Lasso"),
    ],
)
def test_an_objective_of_the_wrong_kind_is_refused(entry, objective, message):
    with pytest.raises(ValueError, match=f"objective must {message}"):
        entry.build(objective=small(OBJECTIVES[objective]))


def test_entries_say_which_objectives_they_are_for():
    assert DYNAMICS["natural-gradient-flow"].special_objectives == "LogisticRegression or SoftmaxRegression"
    assert DYNAMICS["gradient-flow"].special_objectives == CRITERIA["objective-gap"].special_objectives == ""
    assert CRITERIA["objective-gap"].accepts(small(OBJECTIVES["lasso"]))
    assert not DYNAMICS["gradient-flow"].accepts(small(OBJECTIVES["lasso"]))


def test_the_natural_gradient_of_a_regression_is_newton_s_with_the_penalty_as_damping():
    for name, d in (("logistic-regression", 31), ("softmax-regression", 42)):
        objective = OBJECTIVES[name].build(dtype=DOUBLE, regularization=0.3)
        natural = DYNAMICS["natural-gradient-flow"].build(objective=objective, dtype=DOUBLE, damping=0.3)
        newton = DYNAMICS["newton-flow"].build(objective=objective, dtype=DOUBLE)
        x = torch.randn(d, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(natural(torch.tensor(0.0), x), newton(torch.tensor(0.0), x))


def test_the_gauss_newton_flow_solves_least_squares_in_one_direction_and_lowers_a_factorization():
    objective = OBJECTIVES["least-squares"].build(dtype=DOUBLE)
    x = torch.ones(objective.dimension, dtype=DOUBLE)
    flow = DYNAMICS["gauss-newton-flow"].build(objective=objective, dtype=DOUBLE, damping=1e-12)
    solved = torch.linalg.lstsq(objective.features, objective.targets.unsqueeze(-1)).solution.squeeze(-1)
    torch.testing.assert_close(x + flow(torch.tensor(0.0), x), solved, rtol=1e-6, atol=1e-6)
    objective = OBJECTIVES["matrix-factorization"].build(dtype=DOUBLE)
    flow = DYNAMICS["gauss-newton-flow"].build(objective=objective, dtype=DOUBLE, damping=2.0)
    x = OBJECTIVES["matrix-factorization"].start(objective.dimension)

    def residuals(x):
        U, V = objective.factors_from(x)
        return (U @ V.mT - objective.matrix).flatten()

    jacobian = torch.autograd.functional.jacobian(residuals, x)
    system = jacobian.mT @ jacobian + 2.0 * torch.eye(len(x), dtype=DOUBLE)
    expected = -torch.linalg.solve(system, jacobian.mT @ residuals(x))
    torch.testing.assert_close(flow(torch.tensor(0.0), x), expected)


def test_the_spectral_flow_of_a_factorization_has_singular_values_of_one():
    objective = OBJECTIVES["matrix-factorization"].build(dtype=DOUBLE)
    flow = DYNAMICS["spectral-flow"].build(objective=objective, dtype=DOUBLE, smoothing=1e-6)
    x = OBJECTIVES["matrix-factorization"].start(objective.dimension)
    velocity = flow(torch.tensor(0.0), x).unflatten(-1, (9, 2))
    torch.testing.assert_close(torch.linalg.svdvals(velocity), torch.ones(2, dtype=DOUBLE), rtol=1e-6, atol=0.0)


def test_the_step_of_the_proximal_flow_follows_from_the_smoothness():
    lasso = small(OBJECTIVES["lasso"])
    assert float(DYNAMICS["proximal-flow"].build(objective=lasso).step.detach()) == 1 / lasso.smooth.smoothness
    assert float(DYNAMICS["proximal-flow"].build(objective=lasso, step=0.2).step.detach()) == 0.2


def test_parameters_reach_the_builder():
    quadratic = OBJECTIVES["quadratic"].build(dimension=4, condition_number=8.0, seed=3)
    assert torch.equal(quadratic.matrix, Quadratic.with_condition_number(4, 8.0, 3).matrix)


def test_an_unknown_parameter_is_told_the_known_ones():
    with pytest.raises(ValueError, match="slope is not a parameter of rosenbrock, which has dimension, a, b"):
        OBJECTIVES["rosenbrock"].build(slope=1.0)
    with pytest.raises(ValueError, match="a is not a parameter of gradient-flow, which has no parameters"):
        DYNAMICS["gradient-flow"].parameter("a")


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("-.5", -0.5), ("+2.", 2.0), ("1e-3", 1e-3), ("6.02E+23", 6.02e23)]
)
def test_numbers_are_read_in_decimal_notation(text, value):
    assert parse_number("rate", text) == value


@pytest.mark.parametrize(
    "text", ["", " 1", "1_0", "nan", "inf", "1e999", "0x10", "1+1", "٣", "1,5", "1j", "__import__('os')"]
)
def test_anything_else_is_not_a_number(text):
    with pytest.raises(ValueError, match="rate must be a finite number such as 100 or 1e-3, got"):
        parse_number("rate", text)


def test_whole_numbers_are_asked_for_where_only_they_make_sense():
    dimension = OBJECTIVES["quadratic"].parameter("dimension")
    assert (dimension.parse("1e2"), type(dimension.parse("1e2"))) == (100, int)
    with pytest.raises(ValueError, match=r"dimension must be a whole number, got '2\.5'"):
        dimension.parse("2.5")


def test_a_class_with_annotated_arguments_is_an_entry_as_it_stands():
    class Slowed(nn.Module):
        """dx/dt = -s ∇f(x).

        More about it.
        """

        def __init__(
            self, objective: Objective, speed: Annotated[float | Tensor, Range("s", 0.0, 1.0, "speed")] = 0.5
        ) -> None:
            super().__init__()
            self.flow, self.speed = GradientFlow(objective), speed

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return self.speed * self.flow(t, x)

    catalogue: Catalogue[Entry] = Catalogue("dynamics", Entry)
    assert catalogue.register("slowed")(Slowed) is Slowed
    entry = catalogue["slowed"]
    assert entry.summary == "dx/dt = -s ∇f(x)"
    assert entry.parameters == (Parameter("speed", "s", 0.5, 0.0, 1.0, "speed", is_differentiable=True),)
    flow = entry.build(objective=small(OBJECTIVES["diagonal-quadratic"]), dtype=DOUBLE, speed=0.25)
    assert flow(torch.tensor(0.0), torch.ones(2, dtype=DOUBLE)).tolist() == [-0.25, -1.0]
    with pytest.raises(ValueError, match="name must be new, got 'slowed'"):
        catalogue.register("slowed")
