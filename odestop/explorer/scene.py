"""What is on screen, as plain names and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from odestop.registry import CRITERIA, DYNAMICS, OBJECTIVES, Catalogue, Entry, Parameter

Number = float | int
Values = Mapping[str, Number]

THRESHOLD_PARAMETER = Parameter("threshold", "ε", 0.1, 1e-6, 1e2, "threshold", is_differentiable=True)
"""What is swept along a dynamics without hyperparameters, and on request along any other."""

CATALOGUES: dict[str, Catalogue[Any]] = {"objective": OBJECTIVES, "dynamics": DYNAMICS, "criterion": CRITERIA}
"""The parts of a scene, and where their names stand."""


@dataclass(frozen=True)
class Scene:
    """Everything that is on screen.

    It is data: any values may stand in it, and `odestop.explorer.controls.problems` says what is wrong with them.

    Attributes
    ----------
    objective, dynamics, criterion
        Names in the registry.
    objective_values, dynamics_values, criterion_values
        Values of their parameters; the others have their defaults.
    thresholds
        ε, from one to four; derivatives are those at the first one.
    x0
        Initial point, d numbers.
    step_size
        h.
    step_map
        ``"euler"``, ``"heun"``, ``"rk4"``, or an optimizer as it is run: see `odestop.explorer.step_maps`.
    method
        Alias of an ODE solver in `odestop.solvers.METHODS`.
    parameter
        θ: the name of a differentiable parameter of the dynamics, or ``"threshold"``.
    parameter_range
        Ends of the range that θ is swept over.
    horizon
        t_max.
    plane
        How more than two dimensions are shown: a key of `odestop.explorer.landscape.PLANES`.

    Examples
    --------
    >>> scene = Scene(dynamics="heavy-ball", dynamics_values={"friction": 0.5}, parameter="friction")
    >>> scene.theta, scene.with_theta(2.0).dynamics_values
    (0.5, {'friction': 2.0})
    """

    objective: str = "diagonal-quadratic"
    objective_values: Values = field(default_factory=dict)
    dynamics: str = "diagonal-preconditioner"
    dynamics_values: Values = field(default_factory=dict)
    criterion: str = "squared-gradient-norm"
    criterion_values: Values = field(default_factory=dict)
    thresholds: tuple[Number, ...] = (0.1, 1.0, 0.01)
    x0: tuple[Number, ...] = (1.0, 1.0)
    step_size: Number = 0.1
    step_map: str = "euler"
    method: str = "tsit5"
    parameter: str = "theta"
    parameter_range: tuple[Number, Number] = (0.2, 3.2)
    horizon: Number = 50.0
    plane: str = "slice"

    def __hash__(self) -> int:
        # Mappings have no hash of their own; equality compares them as well.
        return hash((self.objective, self.dynamics, self.criterion, self.thresholds, self.x0, self.step_size))

    @property
    def threshold(self) -> Number:
        """The ε that derivatives are taken at."""
        return self.thresholds[0]

    @property
    def theta(self) -> float:
        """Value of the swept parameter."""
        if self.parameter == "threshold":
            return self.threshold
        return float(values_of(self, "dynamics")[self.parameter])

    def with_theta(self, value: Number) -> Scene:
        """Return the scene at another value of the swept parameter."""
        if self.parameter == "threshold":
            return replace(self, thresholds=(float(value), *self.thresholds[1:]))
        return replace(self, dynamics_values={**self.dynamics_values, self.parameter: float(value)})


def entry_of(scene: Scene, part: str) -> Entry[Any]:
    """Return the registry's entry of ``"objective"``, ``"dynamics"`` or ``"criterion"``."""
    return CATALOGUES[part][getattr(scene, part)]


def values_of(scene: Scene, part: str) -> dict[str, Any]:
    """Return the values of all parameters of a part; None where one follows from the rest of the problem."""
    given = getattr(scene, f"{part}_values")
    return {
        parameter.name: given.get(parameter.name, parameter.default) for parameter in entry_of(scene, part).parameters
    }


def sweepable(scene: Scene) -> tuple[Parameter, ...]:
    """Return the parameters that θ can be: the differentiable ones of the dynamics with a value, and the threshold."""
    values = values_of(scene, "dynamics")
    own = (p for p in entry_of(scene, "dynamics").parameters if p.is_differentiable and values[p.name] is not None)
    return *own, THRESHOLD_PARAMETER


def swept_parameter(scene: Scene) -> Parameter:
    """Return θ: its symbol, its range in the registry and its description."""
    return next(parameter for parameter in sweepable(scene) if parameter.name == scene.parameter)


def is_logarithmic(low: Number, high: Number) -> bool:
    """Whether a range spans so much that equal ratios make better steps than equal differences."""
    return low > 0 and high / low >= 8.0
