"""Scenes to start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from odestop.explorer.scene import Scene


@dataclass(frozen=True)
class Preset:
    """A scene with a name for people, and what to look at in it."""

    title: str
    sentence: str
    scene: Scene


PRESETS: dict[str, Preset] = {
    "figure-1": Preset(
        "The paper's Figure 1",
        "Small θ: the second coordinate decides when J meets ε. Large θ: the first one does, and θ no longer matters.",
        Scene(dynamics_values={"theta": 0.5}, step_size=0.12),
    ),
    "nesterov-ripples": Preset(
        "Nesterov's ripples",
        "J does not fall steadily along Nesterov's flow: it ripples, and T(r) jumps from one ripple to the next.",
        Scene(
            objective_values={"condition_number": 25.0},
            dynamics="nesterov",
            dynamics_values={"friction": 3.0},
            criterion="objective-gap",
            thresholds=(0.1, 1.0, 0.02),
            step_size=0.05,
            step_map="rk4",
            parameter="friction",
            parameter_range=(0.5, 8.0),
            horizon=40.0,
        ),
    ),
    "overshooting-heavy-ball": Preset(
        "An overshooting heavy ball",
        "With little friction the ball overshoots and comes back: T(c) jumps where a pass just misses the target.",
        Scene(
            dynamics="heavy-ball",
            dynamics_values={"friction": 0.6},
            criterion="objective-gap",
            thresholds=(0.05, 0.5),
            step_size=0.05,
            step_map="heavy-ball",
            parameter="friction",
            parameter_range=(0.1, 4.0),
            horizon=60.0,
        ),
    ),
    "missed-target": Preset(
        "A missed target",
        "The flow slows down exponentially: from some θ₂ on it comes to rest above ε, and T is infinite.",
        Scene(
            dynamics="exponential-flow",
            dynamics_values={"scale": 1.0, "rate": 0.5},
            thresholds=(0.01, 1.0, 0.1),
            step_size=0.1,
            parameter="rate",
            parameter_range=(0.0, 1.0),
            horizon=20.0,
        ),
    ),
    "tangential-crossing": Preset(
        "A tangential crossing",
        "The first dip of J only just reaches ε: T(c) is steep here, and a little less friction makes it jump.",
        Scene(
            dynamics="heavy-ball",
            dynamics_values={"friction": 0.5716},
            criterion="objective-gap",
            thresholds=(0.235, 1.0, 0.1),
            step_size=0.02,
            step_map="heavy-ball",
            parameter="friction",
            parameter_range=(0.1, 2.0),
            horizon=20.0,
        ),
    ),
    "stiff-valley": Preset(
        "A stiff valley",
        "Condition number 500: the walls set the largest step that is stable, the valley floor sets the time.",
        Scene(
            objective_values={"condition_number": 500.0},
            dynamics="exponential-flow",
            dynamics_values={"scale": 1.0, "rate": 0.0},
            thresholds=(0.3, 0.7),
            step_size=0.003,
            method="rock4",
            parameter="scale",
            parameter_range=(0.25, 1.3),
            horizon=50.0,
        ),
    ),
    "curved-valley": Preset(
        "A curved valley",
        "Rosenbrock's valley under damped Newton flow: the damping c trades the straight way for the steepest one.",
        Scene(
            objective="rosenbrock",
            objective_values={"b": 30.0},
            dynamics="regularized-newton-flow",
            dynamics_values={"damping": 1.0},
            criterion="objective-gap",
            thresholds=(0.1, 1.0),
            x0=(-1.2, 1.0),
            step_size=0.2,
            parameter="damping",
            parameter_range=(0.01, 10.0),
            horizon=200.0,
        ),
    ),
    "adam-and-its-flow": Preset(
        "Adam against its flow",
        "Adam as it is run, and the flow it is a discretisation of: smaller steps bring them together.",
        Scene(
            objective="himmelblau",
            dynamics="adam",
            dynamics_values={"tau1": 0.1, "tau2": 1.0},
            criterion="objective-gap",
            thresholds=(1.0, 10.0, 0.1),
            x0=(0.1, 0.1),
            step_size=0.05,
            step_map="adam",
            parameter="tau1",
            parameter_range=(0.02, 1.0),
            horizon=60.0,
        ),
    ),
}
"""Scenes by name; the first one is where the explorer starts."""

DEFAULT_PRESET = next(iter(PRESETS))


def preset_of(scene: Scene) -> str | None:
    """Return the preset whose question a scene still asks, with numbers changed or not; None for another question.

    Examples
    --------
    >>> preset_of(Scene(step_size=0.01)), preset_of(Scene(objective="rastrigin"))
    ('figure-1', None)
    """
    for asked in (_everything, _question_and_thresholds, _question):
        for name, preset in PRESETS.items():
            if asked(scene) == asked(preset.scene):
                return name
    return None


def _everything(scene: Scene) -> Any:
    return scene


def _question(scene: Scene) -> Any:
    return scene.objective, scene.objective_values, scene.dynamics, scene.criterion


def _question_and_thresholds(scene: Scene) -> Any:
    return _question(scene), scene.thresholds
