"""The paper's claims as data: what it says, what counts as holding, and what our runs measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import pandas as pd

from odestop.comparison import fit_order

# Below this many points, the confidence interval of a fitted order says nothing.
_FEWEST_POINTS = 5
# In small dimensions, the error depends on the draw of the eigenvectors.
_SMALLEST_COMPARED_DIMENSION = 1000
# The error of a fractional step varies with the place of the crossing in the last step, and an order averages over it.
_FEWEST_ORDER_POINTS = 20

Tables = Mapping[str, pd.DataFrame]


class Verdict(StrEnum):
    """What the runs say about a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    NOT_TESTED = "not tested at this scale"


@dataclass(frozen=True)
class Finding:
    """Whether a claim holds, and the numbers behind it; None where the table cannot tell."""

    holds: bool | None
    measured: str


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes
    ----------
    identifier
        Short name, stable.
    place
        Where the paper says it.
    statement
        What it says, in our words.
    test
        What counts as holding, in words.
    table
        Name of the table that `measure` reads.
    measure
        The test.
    """

    identifier: str
    place: str
    statement: str
    test: str
    table: str
    measure: Callable[[pd.DataFrame], Finding]


@dataclass(frozen=True)
class JudgedClaim:
    """A claim and its verdict."""

    identifier: str
    place: str
    statement: str
    test: str
    verdict: Verdict
    measured: str


def judge(tables: Tables) -> list[JudgedClaim]:
    """Test the claims about these tables; one whose table is too small to tell is not tested."""
    return [_judge(claim, tables[claim.table]) for claim in CLAIMS if claim.table in tables]


def _judge(claim: Claim, table: pd.DataFrame) -> JudgedClaim:
    finding = claim.measure(table)
    verdict = {True: Verdict.HOLDS, False: Verdict.FAILS, None: Verdict.NOT_TESTED}[finding.holds]
    return JudgedClaim(claim.identifier, claim.place, claim.statement, claim.test, verdict, finding.measured)


def as_markdown(claims: list[JudgedClaim]) -> str:
    """Write the claims as a Markdown table."""
    lines = ["| place | claim | counts as holding when | verdict | measured |", "|---|---|---|---|---|"]
    for claim in claims:
        cells = (claim.place, claim.statement, claim.test, f"**{claim.verdict}**", claim.measured)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _definition_3(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["sensitivity"] == "definition3"]


def _check_differences(check: str, tolerance: float) -> Callable[[pd.DataFrame], Finding]:
    def measure(table: pd.DataFrame) -> Finding:
        differences = table.loc[table["check"] == check, "difference"]
        largest = differences.max()
        amount = f"relative difference at most {largest:.1e}" if largest > 0 else "identical"
        return Finding(bool(largest <= tolerance), f"{amount} (cases: {len(differences)})")

    return measure


def _torchdiffeq_agrees(table: pd.DataFrame) -> Finding:
    cases = table.dropna(subset="torchdiffeq_gradient_difference")
    time, gradient = cases[["torchdiffeq_time_difference", "torchdiffeq_gradient_difference"]].max()
    return Finding(bool(time <= 1e-6 and gradient <= 1e-4), f"T differs by at most {time:.1e}, ∇T by {gradient:.1e}")


def _difference_of_times_is_first_order(table: pd.DataFrame) -> Finding:
    ratios = (table["difference"] / table["step_size"]).groupby(table["step_size"]).max()
    if len(ratios) < 2:
        return Finding(None, "–")
    constants = ", ".join(f"{ratio:.2f} at h = {h:g}" for h, ratio in ratios.items())
    return Finding(bool(ratios.iloc[0] <= 1.5 * ratios.iloc[-1]), f"max |T - hN| / h = {constants}")


def _is_first_order(table: pd.DataFrame) -> Finding:
    orders = _definition_3(table)
    if orders["points"].min() < _FEWEST_POINTS:
        return Finding(None, "–")
    holds = bool((orders["low"] >= 0.85).all() and (orders["high"] <= 1.15).all())
    return Finding(
        holds,
        f"order {_range(orders['order'])} (curves: {len(orders)}); "
        f"95 % intervals within {orders['low'].min():.2f} to {orders['high'].max():.2f}",
    )


def _first_order_with_any_map(table: pd.DataFrame) -> Finding:
    gradients = _definition_3(table[table["quantity"] == "gradient"])
    if gradients["points"].min() < _FEWEST_ORDER_POINTS:
        return Finding(None, "–")
    holds = bool((gradients["low"] >= 0.85).all() and (gradients["high"] <= 1.15).all())
    return Finding(holds, _orders(gradients))


def _hermite_keeps_the_order_of_the_map(table: pd.DataFrame) -> Finding:
    rows = table[(table["quantity"] == "gradient") & (table["sensitivity"] == "hermite")]
    if rows["points"].min() < _FEWEST_ORDER_POINTS:
        return Finding(None, "–")
    wanted = rows["step_map"].map({"Euler": 1, "Heun": 2, "Runge-Kutta 4": 4})
    return Finding(bool((rows["low"] >= wanted - 0.15).all()), _orders(rows))


def _orders(rows: pd.DataFrame) -> str:
    return "order " + ", ".join(
        f"{row.order:.2f} [{row.low:.2f}, {row.high:.2f}] with {row.step_map}" for row in rows.itertuples()
    )


def _at_least_first_order(table: pd.DataFrame) -> Finding:
    orders = _definition_3(table)
    orders = orders[orders["points"] >= _FEWEST_POINTS]
    if orders.empty:
        return Finding(None, "–")
    return Finding(
        bool((orders["high"] >= 0.85).all()),
        f"order {_range(orders['order'])}, median {orders['order'].median():.2f} (curves: {len(orders)}); "
        f"in {int((orders['low'] > 1.15).sum())} of them the interval lies above 1.15",
    )


def _same_event(table: pd.DataFrame) -> Finding:
    cells = _definition_3(table)
    constants = (cells["scaled_steps"] - cells["time"]).abs() / cells["step_size"]
    other = constants[~cells["same_crossing"]]
    measured = f"in {len(cells) - len(other)} of {len(cells)} cells; |T - hN| / h at most "
    measured += f"{constants[cells['same_crossing']].max():.1f} there"
    return Finding(other.empty, measured if other.empty else f"{measured}, and up to {other.max():.1f} elsewhere")


def _accurate_and_cheaper(table: pd.DataFrame) -> Finding:
    cells = _definition_3(table)
    cases = ["dynamics", "objective", "reduction"]
    accurate = cells[cells["relative_error"] <= 0.1].groupby(cases)["nfe_ratio"].min()
    number = cells[cases].drop_duplicates().shape[0]
    return Finding(
        bool(len(accurate) == number and (accurate < 1).all()),
        f"in {int((accurate < 1).sum())} of {number} cases, at {_range(accurate)} of the evaluations; no step size of "
        f"the grid has such an error in {number - len(accurate)}",
    )


def _cheapest_way(table: pd.DataFrame) -> Finding:
    cost = table["evaluations"] + table["pullbacks"]
    cheaper, comparisons = 0, 0
    for _, rows in table.assign(cost=cost).groupby("question"):
        flow = rows[rows["method"] == "discrete_adjoint"]
        for euler in rows[rows["method"] == "Euler"].itertuples():
            rivals = flow.loc[flow["relative_error"] <= euler.relative_error, "cost"]
            comparisons += not rivals.empty
            cheaper += bool(euler.cost < rivals.min())
    measured = f"in {cheaper} of {comparisons} comparisons over questions and h"
    return Finding(cheaper == comparisons if comparisons else None, measured)


def _smaller_threshold_smaller_error(table: pd.DataFrame) -> Finding:
    curves = _definition_3(table).pivot_table(
        index=["dimension", "seed", "step_size"], columns="threshold", values="relative_error"
    )
    if curves.shape[1] < 2:
        return Finding(None, "–")
    steps = curves.diff(axis="columns").iloc[:, 1:]
    ordered, comparisons = int((steps > 0).sum().sum()), int(steps.notna().sum().sum())
    return Finding(ordered == comparisons, f"in {ordered} of {comparisons} comparisons of neighbouring ε")


def _dimension_does_not_matter(table: pd.DataFrame) -> Finding:
    errors = _definition_3(table).pivot_table(
        index=["threshold", "step_size"], columns="dimension", values="relative_error", aggfunc="median"
    )
    if errors.shape[1] < 2:
        return Finding(None, "–")
    growth = errors.iloc[:, -1] / errors.iloc[:, 0]
    dimensions = f"d = {errors.columns[0]} to {errors.columns[-1]}"
    return Finding(bool(growth.max() <= 1.5), f"error times {_range(growth)} from {dimensions}")


def _cheaper_than_the_solve(table: pd.DataFrame) -> Finding:
    rows = _definition_3(table)
    worst = rows.groupby("step_size")["nfe_ratio"].max()
    if len(worst) < 3:
        return Finding(None, "–")
    curves = rows.groupby(["dimension", "seed", "threshold"])
    break_even = pd.Series([_equal_cost(curve) for _, curve in curves])
    cheaper = worst.index[worst < 1]
    where = f"below 1 in all cases for h ≥ {cheaper.min():g}" if len(cheaper) else "nowhere below 1 in all cases"
    return Finding(
        bool((worst.iloc[1:] < 1).all()),
        f"ratio {_range(rows['nfe_ratio'])}, {where}; equal cost at h = {_range(break_even)}",
    )


def _equal_cost(curve: pd.DataFrame) -> float:
    """Return the step size where a power law fitted to the NFE ratio is 1."""
    fit = fit_order(curve["step_size"].to_numpy(), curve["nfe_ratio"].to_numpy())
    return math.exp(-fit.intercept / fit.order)


def _steps_grow_inversely(table: pd.DataFrame) -> Finding:
    curves = _definition_3(table).groupby(["dimension", "seed", "threshold"])
    orders = pd.Series([fit_order(c["step_size"].tolist(), c["nfe_euler"].tolist()).order for _, c in curves])
    return Finding(bool(orders.between(-1.05, -0.95).all()), f"exponent {_range(orders)} (curves: {len(orders)})")


def _solve_ignores_step_size(table: pd.DataFrame) -> Finding:
    values = table.groupby(["dimension", "seed", "threshold"])["nfe_torchdiffeq"].agg(["nunique", "first"])
    return Finding(
        bool((values["nunique"] == 1).all()),
        f"{values['first'].min()} to {values['first'].max()} evaluations, whatever h (one solve serves all h)",
    )


def _matrices_agree(table: pd.DataFrame) -> Finding:
    errors = table.pivot_table(index="step_size", columns="matrix", values="relative_error")
    ratios = errors["hartley"] / errors["stored"]
    dimension = int(table["dimension"].iloc[0])
    if dimension < _SMALLEST_COMPARED_DIMENSION:
        return Finding(None, "–")
    return Finding(bool(ratios.between(0.8, 1.25).all()), f"ratio of the errors {_range(ratios)} at d = {dimension}")


# What the paper compares Adam-OLA with.
_BASELINES = ("GD", "heavy ball", "NAG", "NAG-SC", "Adagrad", "Adam", "Adam-HD")


def _adam_ola_is_ahead(
    protocol: str, rivals: tuple[str, ...], subject: str = "Adam-OLA", count: str = "steps"
) -> Callable[[pd.DataFrame], Finding]:
    def measure(table: pd.DataFrame) -> Finding:
        ahead, parts = [], []
        rows = table[table["protocol"] == protocol]
        for dataset, methods in rows.groupby("dataset", sort=False):
            places = methods.set_index("method")[[count, "end_gap"]]
            own, other = places.loc[subject], places.loc[list(rivals)].sort_values([count, "end_gap"]).iloc[0]
            ahead.append(tuple(own) < tuple(other))
            parts.append(f"{dataset} {_progress(*own)} against {_progress(*other)} of {other.name}")
        return Finding(all(ahead), f"on {sum(ahead)} of {len(ahead)} sets: {'; '.join(parts)}") if ahead else _UNKNOWN

    return measure


_UNKNOWN = Finding(None, "–")


def _penalty_saves_iterations(test_set: str) -> Callable[[pd.DataFrame], Finding]:
    def measure(table: pd.DataFrame) -> Finding:
        dimension = table["dimension"].agg(test_set)
        rows = table[table["dimension"] == dimension].groupby("label").median(numeric_only=True)
        without, paid = rows.loc["RNNprop"], rows.loc["RNNprop-Time"]
        saved = _difference(without["steps_median"], paid["steps_median"])
        before, after = without["gap_at_stop_median"], paid["gap_at_stop_median"]
        return Finding(
            bool(saved >= 100 and after <= before),
            f"d = {dimension}: N from {_count(without['steps_median'])} to {_count(paid['steps_median'])}, f at the "
            f"stop from {before:.1e} to {after:.1e}; a rise of f stops {paid['rose']:.0%} of the problems",
        )

    return measure


def _paying_for_the_level_is_faster(table: pd.DataFrame) -> Finding:
    columns = table.pivot_table(index=["dimension", "seed"], columns="label", values="steps_to_level_median")
    without, paid = columns["RNNprop"], columns["RNNprop-Level"]
    faster = paid < without
    pairs = ", ".join(
        f"{_count(before)} to {_count(after)} (d = {dimension})"
        for (dimension, _), before, after in zip(columns.index, without, paid, strict=True)
    )
    return Finding(bool(faster.all()), f"in {int(faster.sum())} of {len(faster)} trainings and test sets: {pairs}")


def _learned_are_ahead(table: pd.DataFrame) -> Finding:
    columns = table.pivot_table(index="dimension", columns="label", values="steps_to_level_median")
    learned = columns[["L2O-DM", "RNNprop", "RNNprop-Time", "RNNprop-Level"]]
    classical = columns[["GD", "NAG", "Adam"]]
    parts = [
        f"d = {d}: {_count(ours.min())} with {ours.idxmin()}, {_count(theirs.min())} with {theirs.idxmin()}"
        for (d, ours), (_, theirs) in zip(learned.iterrows(), classical.iterrows(), strict=True)
    ]
    return Finding(bool((learned.min(axis=1) < classical.min(axis=1)).all()), "; ".join(parts))


def _difference(before: float, after: float) -> float:
    return before - after if math.isfinite(after) else -math.inf


def _count(count: float) -> str:
    return f"{count:.0f}" if math.isfinite(count) else "never"


def _progress(count: float, end_gap: float) -> str:
    """Write how many iterations or gradients were enough, or how far a method came without."""
    return f"{count:.0f}" if math.isfinite(count) else f"never, gap {end_gap:.0e},"


def _range(values: pd.Series) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "theorem-1-finite-differences",
        "Theorem 1",
        "T is differentiable in θ, with the gradient of the implicit function theorem.",
        "∇T and central differences of T agree to 1e-6",
        "verification",
        _check_differences("central_differences", 1e-6),
    ),
    Claim(
        "theorem-1-torchdiffeq",
        "Theorem 1",
        "The same gradient comes from differentiating an adaptive solver with event handling.",
        "torchdiffeq's T agrees to 1e-6 and its ∇T to 1e-4, at tolerances 1e-7 and 1e-9",
        "gradient_error",
        _torchdiffeq_agrees,
    ),
    Claim(
        "proposition-1",
        "Proposition 1, Algorithm 1",
        "The discrete adjoint computes ∂N/∂θ of Definition 3 from the stored iterates.",
        "autograd through all Euler steps agrees to 1e-12",
        "verification",
        _check_differences("unrolled_autograd", 1e-12),
    ),
    Claim(
        "figure-1b",
        "Figure 1b",
        "h N(θ) follows T(θ), up to a difference of order h.",
        "max |T - hN| / h at the smallest h is at most 1.5 times that at the largest",
        "figure_1b",
        _difference_of_times_is_first_order,
    ),
    Claim(
        "theorem-2",
        "Theorem 2, Figure 2a",
        "The relative error of h∇N falls linearly with h.",
        "the 95 % interval of the order of every curve lies in 1 ± 0.15",
        "gradient_error_orders",
        _is_first_order,
    ),
    Claim(
        "figure-2a-threshold",
        "Figure 2a",
        "At the same h, a smaller ε has a smaller relative error.",
        "at every d, seed and h",
        "gradient_error",
        _smaller_threshold_smaller_error,
    ),
    Claim(
        "figure-2a-dimension",
        "Figure 2a",
        "The relative error does not grow with the dimension.",
        "at every ε and h, the median over seeds at the largest d is at most 1.5 times that at the smallest",
        "gradient_error",
        _dimension_does_not_matter,
    ),
    Claim(
        "figure-2a-matrices",
        "Figure 2a, our construction",
        "A basis of a fast transform can stand for uniformly random eigenvectors.",
        "the relative errors with both differ by at most a factor of 1.25",
        "gradient_error_matrices",
        _matrices_agree,
    ),
    Claim(
        "figure-2b",
        "Figure 2b",
        "Euler needs fewer evaluations than the adaptive solve, except at the smallest h.",
        "NFE ratio to torchdiffeq at its default tolerances below 1 at every h but the smallest of our grid",
        "gradient_error",
        _cheaper_than_the_solve,
    ),
    Claim(
        "figure-5-euler",
        "Figure 5",
        "Euler's evaluations grow like 1/h.",
        "fitted exponents of h in -1 ± 0.05",
        "gradient_error",
        _steps_grow_inversely,
    ),
    Claim(
        "figure-5-solve",
        "Figure 5",
        "The evaluations of the adaptive solve do not depend on h.",
        "one number per d, seed and ε",
        "gradient_error",
        _solve_ignores_step_size,
    ),
    Claim(
        "real-data",
        "Theorem 2, beyond the paper",
        "The relative error falls linearly with h on real data (logistic regression) too.",
        "the 95 % interval of the order of every curve lies in 1 ± 0.15",
        "real_data_orders",
        _is_first_order,
    ),
    Claim(
        "definition-3-step-maps",
        "Theorem 2, beyond the paper",
        "The sensitivity of Definition 3 is first order in h with step maps of order 1, 2 and 4.",
        "the 95 % intervals of the orders lie in 1 ± 0.15",
        "sensitivity_orders_fitted",
        _first_order_with_any_map,
    ),
    Claim(
        "hermite-step-maps",
        "Theorem 2, beyond the paper",
        "The derivative of the Hermite fractional step has the order of the step map: 1, 2 and 4.",
        "no 95 % interval of an order begins more than 0.15 below it",
        "sensitivity_orders_fitted",
        _hermite_keeps_the_order_of_the_map,
    ),
    Claim(
        "beyond-order",
        "Theorem 2, beyond the paper",
        "The error falls at least linearly with h for inertial, adaptive and learned dynamics and real data.",
        "no 95 % interval of an order ends below 0.85, over the cells where both stop at the same crossing of J",
        "beyond_quadratics_orders",
        _at_least_first_order,
    ),
    Claim(
        "beyond-same-crossing",
        "Theorem 2, beyond the paper",
        "T and h N are times of the same event.",
        "in all cells, J only falls between the two times",
        "beyond_quadratics",
        _same_event,
    ),
    Claim(
        "beyond-cost",
        "Figure 2b, beyond the paper",
        "A relative error of 10 % costs Euler fewer evaluations than the adaptive solve takes.",
        "for every dynamics and objective, with torchdiffeq at its default tolerances",
        "beyond_quadratics",
        _accurate_and_cheaper,
    ),
    Claim(
        "accuracy-for-cost",
        "Figure 2, beyond the paper",
        "For the accuracy it has, Euler's h∇N is cheaper than the gradient of a loose adaptive solve.",
        "at every h, fewer evaluations and pull-backs than any discrete adjoint that is at least as accurate",
        "accuracy_and_cost",
        _cheapest_way,
    ),
    Claim(
        "figure-4-late-phase",
        "Figures 4 and 6, Table 1",
        "Adam-OLA is ahead of GD, heavy ball, NAG, Adagrad, Adam and Adam-HD in the late phase.",
        "with the paper's grids, its median of the iterations to ‖∇f‖ ≤ 1e-4, or where there are none of f - f* at the "
        "end, is the least on every set",
        "online_adaptation_summary",
        _adam_ola_is_ahead("paper", _BASELINES),
    ),
    Claim(
        "figure-4-gradients",
        "Figures 4 and 6, Algorithm 2",
        "It is also ahead where Algorithm 2 as written, with two gradients per iteration, is measured by gradients.",
        "as above, with gradients for iterations",
        "online_adaptation_summary",
        _adam_ola_is_ahead("paper", _BASELINES, "Adam-OLA, 2 gradients", "evaluations"),
    ),
    Claim(
        "figure-4-equal-budget",
        "Figures 4 and 6, beyond the paper",
        "It stays ahead when every method tries the same number of settings, HDM among them.",
        "as above, with the same number of random settings for each method",
        "online_adaptation_summary",
        _adam_ola_is_ahead("equal", (*_BASELINES, "HDM")),
    ),
    Claim(
        "figure-4-adaptation",
        "Figures 4 and 6, beyond the paper",
        "The adaptation makes Adam faster when both try the same number of settings.",
        "as above, against Adam alone",
        "online_adaptation_summary",
        _adam_ola_is_ahead("equal", ("Adam",)),
    ),
    Claim(
        "figure-3-penalty",
        "Figure 3a",
        "The penalty on the stopping time saves RNNprop hundreds of iterations to the criterion.",
        "the median of N is at least 100 less with λ = 1, and the median of f at the stop is not higher",
        "learning_to_optimize",
        _penalty_saves_iterations("min"),
    ),
    Claim(
        "figure-3-larger",
        "Figure 3b",
        "It does so on problems of four times the size as well.",
        "the same there",
        "learning_to_optimize",
        _penalty_saves_iterations("max"),
    ),
    Claim(
        "figure-3-level",
        "Figure 3, beyond the paper",
        "A penalty on the iterations to f ≤ 1e-3, which no rise of f can meet, saves some of them.",
        "the median is less than without a penalty, for every training and test set",
        "learning_to_optimize",
        _paying_for_the_level_is_faster,
    ),
    Claim(
        "figure-3-classical",
        "Figure 3, beyond the paper",
        "The learned optimizers are ahead of GD, NAG and Adam with the step 1/L.",
        "the best of them has the least median of the iterations to f ≤ 1e-3, on both test sets",
        "learning_to_optimize",
        _learned_are_ahead,
    ),
)
