"""Coefficients: the order conditions of all rooted trees, dense output, stability limits."""

import math
from functools import cache

import numpy as np
import pytest

from odestop import solvers
from odestop.solvers import ButcherTableau

TABLEAUS = {name: value for name, value in vars(solvers).items() if isinstance(value, ButcherTableau)}
DENSE_ORDER = {
    "DORMAND_PRINCE_5": 4,
    "TSITOURAS_5": 4,
    "BOGACKI_SHAMPINE_3": 3,
    "PRINCE_DORMAND_8": 5,
    "EXPLICIT_EULER": 1,
    "HEUN_2": 2,
    "RUNGE_KUTTA_4": 3,
}

Tree = tuple  # The subtrees that hang from the root, sorted.

every_tableau = pytest.mark.parametrize("tableau", TABLEAUS.values(), ids=TABLEAUS)


def grown(tree: Tree) -> set[Tree]:
    """All trees with one more leaf."""
    taller = {tuple(sorted((*tree[:i], child, *tree[i + 1 :]))) for i in range(len(tree)) for child in grown(tree[i])}
    return taller | {tuple(sorted((*tree, ())))}


@cache
def rooted_trees(order: int) -> list[Tree]:
    """All rooted trees with ``order`` nodes."""
    return [()] if order == 1 else sorted(set.union(*map(grown, rooted_trees(order - 1))))


def size(tree: Tree) -> int:
    return 1 + sum(map(size, tree))


def density(tree: Tree) -> int:
    return size(tree) * math.prod(map(density, tree))


def stage_matrix(tableau: ButcherTableau) -> np.ndarray:
    """a_ij with one more row: the end slope is a stage at x_1."""
    rows = (*tableau.matrix, tableau.weights)
    return np.array([(*row, *[0.0] * (len(rows) - len(row))) for row in rows])


def stage_weights(matrix: np.ndarray, tree: Tree) -> np.ndarray:
    """Φ_i of a tree: the product over its subtrees of Σ_j a_ij Φ_j."""
    return math.prod((matrix @ stage_weights(matrix, child) for child in tree), start=np.ones(len(matrix)))


def defect(tableau: ButcherTableau, weights: np.ndarray, order: int) -> float:
    """Largest violation of Σ b_i Φ_i(tree) = 1/γ(tree) over the trees with ``order`` nodes."""
    matrix = stage_matrix(tableau)
    return max(abs(weights @ stage_weights(matrix, tree) - 1 / density(tree)) for tree in rooted_trees(order))


def polynomial_weights(tableau: ButcherTableau, fraction: float) -> np.ndarray:
    """b_i(s)."""
    interpolant = np.array(tableau.interpolant)
    return interpolant @ fraction ** np.arange(1, interpolant.shape[1] + 1)


def test_rooted_trees_are_counted_correctly():
    assert [len(rooted_trees(order)) for order in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


def test_every_tableau_has_a_stated_order_of_its_dense_output():
    assert set(DENSE_ORDER) == set(TABLEAUS)


@every_tableau
def test_rows_have_one_entry_per_slope(tableau):
    stages = len(tableau.nodes)
    assert [len(row) for row in tableau.matrix] == list(range(stages))
    assert len(tableau.weights) == stages
    assert len(tableau.error_weights) == len(tableau.interpolant) == stages + 1
    assert len({len(row) for row in tableau.interpolant}) == 1


@every_tableau
def test_rows_sum_to_their_nodes(tableau):
    assert stage_matrix(tableau).sum(1) == pytest.approx((*tableau.nodes, 1.0), abs=3e-15)
    assert sum(tableau.error_weights) == pytest.approx(0.0, abs=3e-15)


@every_tableau
def test_weights_satisfy_the_conditions_of_exactly_their_order(tableau):
    weights = np.array((*tableau.weights, 0.0))
    assert max(defect(tableau, weights, order) for order in range(1, tableau.order + 1)) < 3e-14
    assert defect(tableau, weights, tableau.order + 1) > 1e-6


@every_tableau
def test_embedded_weights_satisfy_the_conditions_of_exactly_their_order(tableau):
    embedded = np.array((*tableau.weights, 0.0)) - np.array(tableau.error_weights)
    assert max(defect(tableau, embedded, order) for order in range(1, tableau.error_order + 1)) < 3e-14
    assert defect(tableau, embedded, tableau.error_order + 1) > 1e-6


@every_tableau
def test_dense_output_joins_the_ends_of_the_step_with_their_slopes(tableau):
    interpolant = np.array(tableau.interpolant)
    powers = np.arange(1, interpolant.shape[1] + 1)
    first, last = np.eye(len(interpolant))[[0, -1]]
    assert polynomial_weights(tableau, 0.0) == pytest.approx(0.0)
    assert polynomial_weights(tableau, 1.0) == pytest.approx((*tableau.weights, 0.0), abs=1e-13)
    assert interpolant[:, 0] == pytest.approx(first)
    assert interpolant @ powers == pytest.approx(last, abs=1e-12)


@pytest.mark.parametrize("name", TABLEAUS)
def test_dense_output_satisfies_the_conditions_of_exactly_its_order_throughout_the_step(name):
    tableau = TABLEAUS[name]
    matrix = stage_matrix(tableau)

    def dense_defect(order: int, fraction: float) -> float:
        weights = polynomial_weights(tableau, fraction)
        exact = fraction**order
        return max(abs(weights @ stage_weights(matrix, t) - exact / density(t)) for t in rooted_trees(order))

    fractions = np.linspace(0.05, 1.0, 20)
    satisfied = range(1, DENSE_ORDER[name] + 1)
    assert max(dense_defect(order, s) for order in satisfied for s in fractions) < 1e-12
    assert max(dense_defect(DENSE_ORDER[name] + 1, s) for s in fractions) > 1e-6


@every_tableau
def test_stability_limit_ends_the_real_interval_where_modes_do_not_grow(tableau):
    matrix = stage_matrix(tableau)[:-1, :-1]
    stages = len(matrix)

    def growth(x: float) -> float:
        """|R(-x)|."""
        solution = np.linalg.solve(np.eye(stages) + x * matrix, np.ones(stages))
        return abs(1 - x * (np.array(tableau.weights) @ solution))

    limit = tableau.stability_limit
    assert max(growth(x) for x in np.linspace(0.0, limit - 5.1e-5, 2000)) <= 1 + 1e-12
    assert growth(limit + 5.1e-5) > 1
    assert round(limit, 4) == limit
