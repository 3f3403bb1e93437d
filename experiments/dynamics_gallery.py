"""Every registered dynamics: T against its main hyperparameter, its path on two landscapes, and phase portraits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import odestop
from odestop.dynamics import DensePreconditionedFlow, DiagonallyPreconditionedFlow, RescaledGradientFlow
from odestop.objectives import DiagonalQuadratic, Objective
from odestop.registry import CRITERIA, DYNAMICS, OBJECTIVES, Parameter
from odestop.sweeps import Record, Runner, Sweep

THRESHOLD = 1e-2
HORIZON = 60.0
LANDSCAPES = ("diagonal-quadratic", "himmelblau")
EXTENTS = {"diagonal-quadratic": ((-0.8, 1.2), (-0.8, 1.2)), "himmelblau": ((-1.0, 5.6), (-3.0, 3.6))}
_STARTS = {"diagonal-quadratic": (1.0, 1.0), "himmelblau": (0.1, 0.1)}
_SAMPLES = 241
_LOGARITHMIC_FROM = 20.0
_UNREACHABLE = -1.0

_THRESHOLD_PARAMETER = Parameter("threshold", "ε", THRESHOLD, 1e-4, 1.0, "threshold", is_differentiable=True)


@dataclass(frozen=True)
class Question:
    """What the stopping times of a dynamics are for: names in the registry, and a start, customary by default."""

    objective: str = LANDSCAPES[0]
    start: tuple[float, ...] | None = None
    criterion: str = "objective-gap"
    threshold_range: tuple[float, float] = (1e-4, 1.0)


_QUESTIONS = {
    # T depends on its hyperparameter only where the Hessian changes.
    "lazy-newton-flow": Question("himmelblau"),
    # The least value on the simplex is 0.4.
    "simplex-flow": Question(start=(0.5, 0.5), threshold_range=(0.405, 0.6)),
    "proximal-flow": Question("lasso", criterion="squared-gradient-mapping"),
    "spectral-flow": Question("matrix-factorization"),
    "gauss-newton-flow": Question("matrix-factorization"),
    "natural-gradient-flow": Question("logistic-regression", criterion="squared-gradient-norm"),
}


@dataclass(frozen=True)
class TimeCell:
    """T of one dynamics at one value of its main hyperparameter, the ``index``-th of the curve."""

    dynamics: str
    objective: str
    parameter: str
    symbol: str
    logarithmic: bool
    index: int
    value: float


@dataclass(frozen=True)
class PathPoint:
    """One point of a path: the ``index``-th of equally spaced times in [t0, T]."""

    dynamics: str
    objective: str
    index: int


@dataclass(frozen=True)
class Portrait:
    """A vector field in the plane, and trajectories of it from several starts.

    Attributes
    ----------
    title
        For people.
    dynamics
        Name in the registry.
    parameters
        Those that are not at their defaults.
    duration
        Time that the trajectories are followed for, also past the stopping set.
    time
        Of the field, if it depends on time.
    """

    title: str
    dynamics: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    duration: float = 12.0
    time: float = 0.0


LANDSCAPE_PORTRAITS = (
    Portrait("gradient flow", "gradient-flow", duration=1.0),
    Portrait("sign flow", "sign-flow", {"smoothing": 1.0}, duration=10.0),
    Portrait("Newton flow", "newton-flow", duration=4.0),
    Portrait("cubic Newton flow", "cubic-newton-flow", {"cubic": 40.0}, duration=8.0),
)
"""On Himmelblau's function, in the plane of x."""

MOMENTUM_PORTRAITS = (
    Portrait("heavy ball, $c = 0.3$", "heavy-ball", {"friction": 0.3}),
    Portrait("heavy ball, $c = 2$", "heavy-ball", {"friction": 2.0}),
    Portrait("Nesterov, field at $t = 3$", "nesterov", time=3.0),
    Portrait("Hessian damped, field at $t = 3$", "hessian-damped", time=3.0),
)
"""On f(x) = x²/2 in one dimension, in the plane of position and velocity."""

_LANDSCAPE_STARTS: tuple[tuple[float, ...], ...] = (
    (-5.5, -0.5),
    (-0.9, 0.4),
    (0.3, 5.5),
    (0.3, -5.5),
    (0.6, -0.6),
    (5.5, 4.0),
    (-3.0, 5.5),
    (-0.6, -2.0),
)
_MOMENTUM_STARTS: tuple[tuple[float, ...], ...] = ((-1.4,), (-0.7,), (0.7,), (1.4,))


@dataclass(frozen=True)
class Grid:
    """Values per hyperparameter, points per path, and points per side of a vector field."""

    values: int
    points: int
    field: int = 61

    def time_cells(self) -> list[TimeCell]:
        """Return the cells of the first table; those of one dynamics follow each other."""
        cells = []
        for name in DYNAMICS:
            parameter = main_parameter(name)
            fixed = name, question(name).objective, parameter.name, parameter.symbol, _is_logarithmic(parameter)
            cells += [TimeCell(*fixed, index, value) for index, value in enumerate(spread(name, self.values))]
        return cells

    def path_points(self) -> list[PathPoint]:
        """Return the cells of the second table; those of one path follow each other."""
        return [
            PathPoint(name, objective, index)
            for name in DYNAMICS
            if _has_path(name)
            for objective in LANDSCAPES
            for index in range(self.points)
        ]


GRIDS = {"tiny": Grid(2, 3, 5), "quick": Grid(97, _SAMPLES), "paper": Grid(193, _SAMPLES)}


def run(scale: str, runner: Runner) -> dict[str, pd.DataFrame]:
    """Run a scale.

    Returns
    -------
    dict
        ``dynamics_times``: one row per dynamics and value, with T and dT/dθ, infinite and 0 where the threshold is not
        reached.  ``dynamics_paths``: one row per dynamics, landscape and point.  ``landscapes``: f on a grid.
        ``portrait_fields`` and ``portrait_paths``: see `portrait_field` and `portrait_path`.
    """
    grid = GRIDS[scale]
    portraits = (*LANDSCAPE_PORTRAITS, *MOMENTUM_PORTRAITS)
    times = partial(stopping_time, count=grid.values)
    points = partial(point, points=grid.points)
    return {
        "dynamics_times": runner.run(
            Sweep("stopping times", grid.time_cells(), times, group=lambda cell: cell.dynamics)
        ),
        "dynamics_paths": runner.run(
            Sweep("paths", grid.path_points(), points, group=lambda cell: (cell.dynamics, cell.objective))
        ),
        "landscapes": landscapes(),
        "portrait_fields": pd.concat([portrait_field(portrait, grid.field) for portrait in portraits]),
        "portrait_paths": pd.concat([portrait_path(portrait) for portrait in portraits]),
    }


def question(dynamics: str) -> Question:
    """Return what the stopping times of a dynamics are for."""
    return _QUESTIONS.get(dynamics, Question())


def main_parameter(dynamics: str) -> Parameter:
    """Return the first hyperparameter that T can be differentiated in; for a dynamics without one, the threshold ε."""
    for parameter in DYNAMICS[dynamics].parameters:
        if parameter.is_differentiable:
            return parameter
    low, high = question(dynamics).threshold_range
    return replace(_THRESHOLD_PARAMETER, low=low, high=high)


def spread(dynamics: str, count: int) -> tuple[float, ...]:
    """Return values over the range worth exploring; fewer of them where they are expensive."""
    parameter = main_parameter(dynamics)
    spacing = np.geomspace if _is_logarithmic(parameter) else np.linspace
    is_cheap = _takes_batches(dynamics) and _objective(question(dynamics).objective).dimension == 2
    number = count if is_cheap else max(2, count // 8 + 1)
    return tuple(spacing(parameter.low, parameter.high, number).tolist())


def stopping_time(cell: TimeCell, count: int) -> Record:
    """Return T and its derivative in the hyperparameter; cells of one dynamics share a solve."""
    times, slopes, status = curve(cell.dynamics, spread(cell.dynamics, count))
    k = cell.index
    return {"time": float(times[k]), "slope": float(slopes[k]), "status": status[k]}


@lru_cache(maxsize=1)
def curve(dynamics: str, values: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return T, dT/dθ and the status at values of the main hyperparameter: as one batch where the dynamics can."""
    if _takes_batches(dynamics):
        return _times(dynamics, torch.tensor(values, dtype=torch.float64))
    answers = [_times(dynamics, torch.tensor(value, dtype=torch.float64)) for value in values]
    times, slopes, status = zip(*answers, strict=True)
    return np.concatenate(times), np.concatenate(slopes), [name for names in status for name in names]


def _times(dynamics: str, values: Tensor) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the same at values of shape () or (n,), with shape (n,)."""
    values.requires_grad_()
    asked = question(dynamics)
    objective, parameter = _objective(asked.objective), main_parameter(dynamics)
    given = {"threshold": values} if parameter.name == "threshold" else {parameter.name: values}
    x0 = _start(asked).expand(*values.shape, -1)
    solution = _solve(dynamics, objective, x0, asked.criterion, **given)
    (slopes,) = torch.autograd.grad(solution.time.sum(), values, allow_unused=True, materialize_grads=True)
    status = np.asarray(solution.status, dtype=object).reshape(-1)
    times = solution.time.detach().reshape(-1)
    return times.numpy(), slopes.reshape(-1).numpy(), [one.name for one in status]


def point(cell: PathPoint, points: int) -> Record:
    """Return a point of a path, and how the path ended."""
    places, status, family = path(cell.dynamics, cell.objective, points)
    x1, x2 = places[cell.index]
    return {"x1": float(x1), "x2": float(x2), "status": status, "family": family}


@lru_cache(maxsize=1)
def path(dynamics: str, objective_name: str, points: int) -> tuple[np.ndarray, str, str]:
    """Return the positions at equally spaced times, the status, and the module that the dynamics is in."""
    objective = _objective(objective_name)
    with torch.no_grad():
        solution = _solve(dynamics, objective, torch.tensor(_STARTS[objective_name], dtype=torch.float64))
        assert solution.trajectory is not None
        known = solution.trajectory.times
        assert isinstance(known, torch.Tensor)
        states = solution.trajectory(torch.linspace(float(known[0]), float(known[-1]), points, dtype=torch.float64))
        flow = _flow(dynamics, objective)
        positions = _positions(flow, states)
    assert isinstance(solution.status, odestop.StoppingStatus)
    return positions.numpy(), solution.status.name, type(flow).__module__.rpartition(".")[2]


def landscapes() -> pd.DataFrame:
    """Return the objectives on grids that cover the paths."""
    tables = []
    for name, extent in EXTENTS.items():
        x = _plane(*extent, 101)
        with torch.no_grad():
            values = _objective(name)(x)
        tables.append(pd.DataFrame({"objective": name, "x1": x[:, 0], "x2": x[:, 1], "value": values}))
    return pd.concat(tables, ignore_index=True)


def portrait_field(portrait: Portrait, points: int) -> pd.DataFrame:
    """Return the vector field and J on a grid.

    Returns
    -------
    pandas.DataFrame
        Columns ``title``, ``plane``, ``x``, ``y``, ``dx``, ``dy``, ``value`` for J and ``threshold`` for ε.
    """
    setting = _setting(portrait)
    states = _plane(*setting.extent, points)
    time = torch.tensor(portrait.time, dtype=torch.float64)
    with torch.no_grad():
        slopes = setting.flow(time, states)
        values = setting.objective(_positions(setting.flow, states))
    columns = dict(zip(("x", "y", "dx", "dy"), torch.cat([states, slopes], dim=-1).T.numpy(), strict=True))
    fixed = {"title": portrait.title, "plane": setting.plane}
    return pd.DataFrame({**fixed, **columns, "value": values, "threshold": setting.threshold})


def portrait_path(portrait: Portrait) -> pd.DataFrame:
    """Return trajectories through the stopping set.

    Returns
    -------
    pandas.DataFrame
        Columns ``title``, ``start`` (its number), ``time``, ``x``, ``y``, and ``stopping_time``, infinite for a
        trajectory that does not stop; a row of each that does is at that time.
    """
    setting = _setting(portrait)
    x0 = torch.tensor(setting.starts, dtype=torch.float64)
    with torch.no_grad():
        # The second level is never met, so that the trajectory goes on.
        solution = odestop.continuous_stopping_time(
            setting.flow,
            x0,
            setting.objective,
            torch.tensor([setting.threshold, _UNREACHABLE], dtype=torch.float64),
            levels=True,
            t_max=portrait.duration,
            rtol=1e-6,
        )
    assert solution.trajectory is not None
    stops = solution.time[:, 0]
    ends = solution.trajectory.end_times
    known = [
        *solution.trajectory.times,
        torch.linspace(0, float(ends.max()), _SAMPLES, dtype=torch.float64),
        stops[stops.isfinite()],
    ]
    times = torch.cat(known).unique()
    states = solution.trajectory(times)
    tables = []
    for start, (stop, end) in enumerate(zip(stops.tolist(), ends.tolist(), strict=True)):
        followed = times <= end
        x, y = states[followed, start].T.numpy()
        rows = {"title": portrait.title, "start": start, "time": times[followed], "x": x, "y": y}
        tables.append(pd.DataFrame({**rows, "stopping_time": stop}))
    return pd.concat(tables)


@dataclass(frozen=True)
class _Setting:
    """What a portrait shows: a flow with a state in the plane, and where it starts and stops."""

    plane: str
    flow: nn.Module
    objective: Objective
    threshold: float
    extent: tuple[tuple[float, float], tuple[float, float]]
    starts: tuple[tuple[float, ...], ...]


def _setting(portrait: Portrait) -> _Setting:
    if portrait in LANDSCAPE_PORTRAITS:
        objective, plane = _objective("himmelblau"), "landscape"
        threshold, extent, starts = 5.0, ((-6.0, 6.0), (-6.0, 6.0)), _LANDSCAPE_STARTS
    else:
        objective, plane = DiagonalQuadratic(torch.ones(1, dtype=torch.float64)), "momentum"
        threshold, extent, starts = 0.02, ((-1.6, 1.6), (-1.4, 1.4)), _MOMENTUM_STARTS
    flow = _flow(portrait.dynamics, objective, **portrait.parameters)
    return _Setting(plane, flow, objective, threshold, extent, starts)


def _solve(
    name: str,
    objective: Objective,
    x0: Tensor,
    criterion: str = "objective-gap",
    threshold: float | Tensor = THRESHOLD,
    **parameters: Any,
) -> odestop.ContinuousSolution:
    flow, target = _flow(name, objective, **parameters), CRITERIA[criterion].build(objective=objective)
    return odestop.continuous_stopping_time(flow, x0, target, threshold, t_max=HORIZON, rtol=1e-6)


def _flow(name: str, objective: Objective, **parameters: Any) -> nn.Module:
    return DYNAMICS[name].build(objective=objective, dtype=torch.float64, **parameters)


def _positions(flow: nn.Module, states: Tensor) -> Tensor:
    return getattr(flow, "position", lambda state: state)(states)


def _takes_batches(name: str) -> bool:
    """Whether trajectories of one batch may differ in the main hyperparameter, or in the threshold."""
    flow = _flow(name, _objective(question(name).objective))
    return not isinstance(flow, (RescaledGradientFlow, DiagonallyPreconditionedFlow, DensePreconditionedFlow))


def _has_path(name: str) -> bool:
    """Whether the dynamics has paths of its own on the landscapes, which end where f is small."""
    landscape = _objective(LANDSCAPES[0])
    if name == "simplex-flow" or not DYNAMICS[name].accepts(landscape):
        return False
    return not isinstance(_flow(name, landscape), RescaledGradientFlow)


def _start(asked: Question) -> Tensor:
    if asked.start is not None:
        return torch.tensor(asked.start, dtype=torch.float64)
    dimension = _objective(asked.objective).dimension
    assert dimension is not None
    return OBJECTIVES[asked.objective].start(dimension).double()


def _plane(first: tuple[float, float], second: tuple[float, float], count: int) -> Tensor:
    axes = (torch.linspace(low, high, count, dtype=torch.float64) for low, high in (first, second))
    return torch.cartesian_prod(*axes)


@lru_cache
def _objective(name: str) -> Objective:
    return OBJECTIVES[name].build(dtype=torch.float64)


def _is_logarithmic(parameter: Parameter) -> bool:
    return parameter.low > 0 and parameter.high / parameter.low >= _LOGARITHMIC_FROM
