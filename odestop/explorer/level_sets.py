"""The set J = ε in the plane of the landscape, drawn on a grid that is fine enough for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import contourpy
import numpy as np

from odestop.explorer.landscape import Landscape, landscape
from odestop.explorer.scene import Scene

Bounds = tuple[tuple[float, float], tuple[float, float]]

_FEWEST_CELLS = 50
_REFINEMENTS = 3


@dataclass(frozen=True)
class LevelSet:
    """{J = ε} in the plane.

    Attributes
    ----------
    threshold
        ε.
    x, y
        Its curves one after the other, shape (points,) each, with nan between two of them; empty where J = ε nowhere
        in the picture.
    """

    threshold: float
    x: np.ndarray
    y: np.ndarray


def level_sets(scene: Scene, picture: Landscape) -> tuple[LevelSet, ...]:
    """Return {J = ε} for each ε of a scene.

    A set much smaller than the picture is drawn on a grid around it.

    Parameters
    ----------
    scene
        What is on screen.
    picture
        Its landscape.

    Examples
    --------
    >>> from odestop.explorer.landscape import landscape
    >>> scene = Scene(objective_values={"condition_number": 1.0}, criterion="objective-gap", thresholds=(1e-4,))
    >>> circle = level_sets(scene, landscape(scene))[0]
    >>> bool(np.nanmax(np.abs(np.hypot(circle.x, circle.y) - (2 * 1e-4) ** 0.5)) < 1e-4)
    True
    """
    return tuple(LevelSet(threshold, *_curves(scene, picture, threshold)) for threshold in scene.thresholds)


def ground_key(scene: Scene, picture: Landscape) -> str:
    """Return a key that changes when what lies still in the landscape does: f, J, the thresholds, the window."""
    problem = scene.objective, scene.objective_values, scene.criterion, scene.criterion_values, scene.thresholds
    off_plane = () if len(scene.x0) <= 2 else (scene.x0, scene.plane)
    return repr((problem, picture.bounds, off_plane))


def _curves(scene: Scene, picture: Landscape, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    # Thin sets need more points than shades do; in more dimensions f costs more.
    fine = landscape(scene, picture.bounds, 201) if len(scene.x0) == 2 else picture
    for _ in range(_REFINEMENTS):
        lines = _lines(fine, threshold)
        box = _box(lines, fine, threshold)
        if box is None or not _is_small(box, fine):
            break
        fine = landscape(scene, box, 81)
    return _joined(_lines(fine, threshold))


def _lines(picture: Landscape, threshold: float) -> list[np.ndarray]:
    """Trace J = ε; √J grows like a distance near a minimum, where linear interpolation of J itself is bad."""
    if threshold <= 0:
        return []
    root = np.sqrt(np.maximum(picture.criterion, 0.0))
    values = np.ma.masked_invalid(root)
    tracer = contourpy.contour_generator(picture.x, picture.y, values)
    return [np.asarray(line) for line in tracer.lines(math.sqrt(threshold))]


def _box(lines: Sequence[np.ndarray], picture: Landscape, threshold: float) -> Bounds | None:
    """Return a box around what is traced, or around the grid's smallest J if nothing is; None without any number."""
    if lines:
        points = np.concatenate(lines)
        low, high = points.min(axis=0), points.max(axis=0)
    else:
        values = np.where(np.isfinite(picture.criterion), picture.criterion, np.inf)
        row, column = np.unravel_index(np.argmin(values), values.shape)
        if not np.isfinite(values[row, column]) or values[row, column] <= threshold:
            return None
        low = high = np.array([picture.x[column], picture.y[row]])
    spacing = np.array([picture.x[1] - picture.x[0], picture.y[1] - picture.y[0]])
    low, high = low - 2 * spacing, high + 2 * spacing
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def _is_small(box: Bounds, picture: Landscape) -> bool:
    """Whether a box has few cells of the picture's grid."""
    cells = [(high - low) / (axis[1] - axis[0]) for (low, high), axis in zip(box, (picture.x, picture.y), strict=True)]
    return bool(max(cells) < _FEWEST_CELLS)


def _joined(lines: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if not lines:
        return np.empty(0), np.empty(0)
    gap = np.full((1, 2), np.nan)
    points = np.concatenate([part for line in lines for part in (line, gap)][:-1])
    return points[:, 0], points[:, 1]
