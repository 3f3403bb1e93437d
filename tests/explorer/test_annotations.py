"""Every computing function once with all annotations checked, on a scene of whole numbers."""

from odestop.explorer.answers import answers
from odestop.explorer.controls import changed, controls, problems
from odestop.explorer.descent import descend
from odestop.explorer.drawing import draw_scene
from odestop.explorer.export import to_csv, to_script
from odestop.explorer.gradient_errors import gradient_errors
from odestop.explorer.landscape import default_bounds, landscape
from odestop.explorer.paths import paths
from odestop.explorer.query import from_query, to_query
from odestop.explorer.scene import Scene
from odestop.explorer.stopping_curves import stopping_curves

SCENE = Scene(
    dynamics="heavy-ball",
    dynamics_values={"friction": 2},
    criterion="objective-gap",
    thresholds=(2, 1),
    x0=(1, 1),
    step_size=0.25,
    step_map="heavy-ball",
    parameter="friction",
    parameter_range=(1, 3),
    horizon=10,
)


def test_whole_numbers_are_numbers():
    assert problems(SCENE) == {}
    assert from_query(to_query(SCENE)) == (SCENE, ())
    assert len(controls(SCENE)) > 10
    assert changed(SCENE, "horizon", 5).horizon == 5
    assert paths(SCENE).events[0].threshold == answers(SCENE)[0].threshold == 2
    view = landscape(SCENE, ((-1, 2), (-1, 2)), points=3)
    assert view.values.shape == (3, 3)
    assert default_bounds(SCENE) == default_bounds(SCENE, paths(SCENE).flow_positions)
    curves, errors = stopping_curves(SCENE, points=2, step_points=2), gradient_errors(SCENE, points=2)
    assert curves.thresholds == (2, 1)
    assert len(errors.step_sizes) == 2
    assert next(descend(SCENE)).scene == SCENE
    assert to_csv("answers", SCENE).startswith("threshold")
    assert "Euler" not in to_script(SCENE)
    assert len(draw_scene(SCENE, view, paths(SCENE), curves, errors).axes) == 4
