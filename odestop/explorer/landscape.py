"""f and J on a grid of a plane, for contours and the stopping set."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from odestop.explorer.modules import DTYPE, objective_of
from odestop.explorer.scene import Scene, entry_of, values_of
from odestop.objectives import Objective
from odestop.registry import OBJECTIVES

Bounds = tuple[tuple[float | int, float | int], tuple[float | int, float | int]]

_MINIMIZERS = {
    # f = (x² + y - 11)² + (x + y² - 7)² vanishes here (Himmelblau, 1972), to the digits of the plot.
    "himmelblau": ((3.0, 2.0), (-2.805118, 3.131312), (-3.779310, -3.283186), (3.584428, -1.848126)),
}
_EXTENTS: dict[str, Bounds] = {
    "rosenbrock": ((-2.0, 2.0), (-1.0, 3.0)),
    "beale": ((-1.0, 4.0), (-2.0, 3.0)),
    "himmelblau": ((-6.0, 6.0), (-6.0, 6.0)),
    "rastrigin": ((-2.2, 2.2), (-2.2, 2.2)),
}
_MARGIN = 0.25
_INSIDE = 0.97
_GROWTH = 1.5


@dataclass(frozen=True)
class Plane:
    """A plane in x-space: the points origin + uᵀ basis.

    Attributes
    ----------
    origin
        Shape (d,).
    basis
        Two orthonormal directions, shape (2, d).
    labels
        What the axes show.
    """

    origin: np.ndarray
    basis: np.ndarray
    labels: tuple[str, str]

    def project(self, x: np.ndarray) -> np.ndarray:
        """Return the coordinates of points of shape (..., d) in the plane, shape (..., 2)."""
        return (np.asarray(x) - self.origin) @ self.basis.T

    def lift(self, u: np.ndarray) -> np.ndarray:
        """Return the points of coordinates of shape (..., 2), shape (..., d)."""
        return self.origin + np.asarray(u) @ self.basis


@dataclass(frozen=True)
class Landscape:
    """f and J on a grid of a plane.

    Attributes
    ----------
    x, y
        Coordinates in the plane, shapes (n,) and (m,).
    values, criterion
        f and J, shape (m, n): rows go with y.
    plane
        Where the coordinates are in x-space.
    bounds
        ((x_low, x_high), (y_low, y_high)).
    minimizers
        Known ones, as seen in the plane, shape (k, 2).
    """

    x: np.ndarray
    y: np.ndarray
    values: np.ndarray
    criterion: np.ndarray
    plane: Plane
    bounds: Bounds
    minimizers: np.ndarray


def landscape(scene: Scene, bounds: Bounds | None = None, points: int | None = None) -> Landscape:
    """Return f and J on a grid; in two dimensions it does not depend on the dynamics, x0 or the steps.

    Parameters
    ----------
    scene
        One without problems.
    bounds
        Of the grid, by default `default_bounds`.
    points
        Per side; by default 81 in two dimensions and 41 in more, where f costs more.

    Examples
    --------
    >>> view = landscape(Scene())
    >>> view.values.shape, view.plane.labels
    ((81, 81), ('x₁', 'x₂'))
    """
    bounds = default_bounds(scene) if bounds is None else bounds
    return _landscape(_what_counts(scene), bounds, points or (81 if len(scene.x0) == 2 else 41))


def default_bounds(scene: Scene, places: np.ndarray | None = None) -> Bounds:
    """Return a square for a landscape: the customary one, enlarged in leaps until x0 is inside.

    Parameters
    ----------
    scene
        One without problems.
    places
        Points that are to be inside as well, shape (k, d), such as those of a trajectory.
    """
    plane = plane_of(scene)
    (x_low, x_high), (y_low, y_high) = _customary_bounds(scene, plane)
    center, half = np.array([(x_low + x_high) / 2, (y_low + y_high) / 2]), (x_high - x_low) / 2
    shown = [np.array([scene.x0]), *([] if places is None else [places[np.isfinite(places).all(axis=-1)]])]
    distance = float(np.abs(plane.project(np.concatenate(shown)) - center).max())
    if distance > _INSIDE * half:
        half *= _GROWTH ** math.ceil(math.log(distance / (_INSIDE * half), _GROWTH))
    (x, y) = center.tolist()
    return (x - half, x + half), (y - half, y + half)


def _customary_bounds(scene: Scene, plane: Plane) -> Bounds:
    """Return a square around the minimizer if there is one, else around the customary start, with both inside."""
    if scene.objective in _EXTENTS and len(scene.x0) == 2:
        return _EXTENTS[scene.objective]
    start = plane.project(_customary_start(scene))
    minimizers = plane.project(_minimizers(scene, objective_of(scene)))
    x, y = (minimizers[0] if len(minimizers) else start).tolist()
    half = max(float(np.abs(start - (x, y)).max()), 0.5) * (1 + _MARGIN)
    return (x - half, x + half), (y - half, y + half)


def plane_of(scene: Scene) -> Plane:
    """Return the plane that a scene is shown in: all of x-space in two dimensions, else one through x0.

    A slice runs along the first two coordinates, and ``"curvature"`` along the eigenvectors of the two largest
    eigenvalues of ∇²f(x0).  Distances in a slice are those of its coordinates; the origin of the other plane is x0.
    """
    d = len(scene.x0)
    if d > 2 and scene.plane == "curvature":
        basis = _most_curved(_what_counts(scene))
        return Plane(np.array(scene.x0), basis, ("most curved direction", "second most curved direction"))
    origin = np.array(scene.x0)
    origin[:2] = 0.0
    return Plane(origin, np.eye(2, d), ("x₁", "x₂"))


def _what_counts(scene: Scene) -> Scene:
    """Return the scene with everything at its default that f and J on the plane do not depend on."""
    kept = ("objective", "objective_values", "criterion", "criterion_values", "plane")
    x0 = scene.x0 if len(scene.x0) > 2 else (0.0, 0.0)
    return replace(Scene(), x0=x0, **{name: getattr(scene, name) for name in kept})


@lru_cache(maxsize=32)
def _landscape(scene: Scene, bounds: Bounds, points: int) -> Landscape:
    plane, objective = plane_of(scene), objective_of(scene)
    criterion = entry_of(scene, "criterion").build(objective=objective, dtype=DTYPE, **values_of(scene, "criterion"))
    x, y = (np.linspace(low, high, points) for low, high in bounds)
    grid = torch.from_numpy(plane.lift(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)))
    with torch.no_grad():
        values, levels = objective(grid), criterion(grid)
    shape = (points, points)
    minimizers = plane.project(_minimizers(scene, objective)).reshape(-1, 2)
    return Landscape(x, y, values.numpy().reshape(shape), levels.numpy().reshape(shape), plane, bounds, minimizers)


@lru_cache(maxsize=32)
def _most_curved(scene: Scene) -> np.ndarray:
    objective = objective_of(scene)
    d = len(scene.x0)
    x0 = torch.tensor(scene.x0, dtype=DTYPE).expand(d, d)
    with torch.no_grad():
        hessian = objective.hessian_vector_product(x0, torch.eye(d, dtype=DTYPE))
    vectors = torch.linalg.eigh((hessian + hessian.mT) / 2).eigenvectors[:, -2:].flip(-1).mT
    # The sign that makes the largest entry positive.
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return (vectors * largest.sign()).numpy()


def _minimizers(scene: Scene, objective: Objective) -> np.ndarray:
    """Return the known minimizers, shape (k, d)."""
    if scene.objective in _MINIMIZERS:
        return np.array(_MINIMIZERS[scene.objective])
    known = getattr(objective, "minimizer", None)
    return np.zeros((0, len(scene.x0))) if known is None else known.detach().double().numpy().reshape(1, -1)


def _customary_start(scene: Scene) -> np.ndarray:
    return OBJECTIVES[scene.objective].start(len(scene.x0)).double().numpy()
