"""Hyperparameters that minimise N, by gradient descent on N: ``python -m experiments.tuning``.

Two studies.  Rate and momentum of heavy ball on a quadratic with a spectrum in [μ, L], where Polyak's parameters have
the best asymptotic rate; and rate, β₁ and β₂ of Adam on logistic regression with real data, from torch's defaults, next
to searches without gradients.  All in float64, stopped by J = ‖∇f‖².
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import typer
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from experiments.grid import geometric
from figures import tuning as figure
from odestop.criteria import SquaredGradientNorm
from odestop.discrete import Adam, DiscreteStats, HeavyBall, discrete_stopping_time
from odestop.objectives import DiagonalQuadratic, LogisticRegression, breast_cancer, log_spaced_spectrum
from odestop.plotting.style import save
from odestop.sweeps import provenance

SEED = 0
CONDITION_NUMBER = 25.0
POLYAK = (25 / 9, 4 / 9)
"""4 / (√L + √μ)² and ((√L - √μ) / (√L + √μ))² for L = 1 and μ = 1/25."""
DESCENTS_FROM = ((1.0, 0.5), (0.5, 0.8), (3.2, 0.8), (2.0, 0.2))
SENSITIVITIES = ("interpolated", "definition3")
LONGEST_HEAVY_BALL = 10_000

REGULARIZATION = 1e-2
ADAM_DEFAULTS = (1e-3, 0.9, 0.999)
LONGEST_ADAM = 20_000
SEARCH_LIMIT = 1000
RANDOM_ORDERS = 50

AVERAGING = 0.9
GIVEN_UP = 2.0


@dataclass(frozen=True)
class Scale:
    """How much to compute.

    Attributes
    ----------
    dimension
        Of the quadratic.
    starts
        Number of random x0 over which N is averaged, in both studies.
    exponents
        Heavy ball: thresholds are J(x0) times ten to the minus these.
    shown
        The exponent of the landscape.
    iterations, lengths
        Heavy ball: steps of a descent, and the lengths of the first and the last one.
    resolution
        Heavy ball: points per axis of every refinement of the brute-force search; the landscape has twice as many.
    adam_threshold
        ε of Adam.
    adam_iterations, adam_lengths
        Adam: steps of a descent, and the lengths of the first and the last one from the defaults; from the grid, the
        lengths are those of heavy ball.
    searched
        Adam: settings drawn by the random search.
    fresh_starts
        Adam: random x0 that no setting was found with.
    """

    dimension: int
    starts: int
    exponents: tuple[int, ...]
    shown: int
    iterations: int
    lengths: tuple[float, float]
    resolution: int
    adam_threshold: float
    adam_iterations: int
    adam_lengths: tuple[float, float]
    searched: int
    fresh_starts: int


SCALES = {
    "quick": Scale(20, 4, (4, 8, 16), 16, 120, (0.3, 0.01), 17, 1e-4, 25, (1.0, 0.02), 32, 16),
    "full": Scale(20, 8, (4, 8, 16, 32, 64), 16, 120, (0.3, 0.01), 25, 1e-6, 60, (1.0, 0.02), 256, 64),
}

Track = Callable[[Sequence[Any], str], Iterable[Any]]
StepsAt = Callable[[Tensor, int], tuple[Tensor, DiscreteStats]]


def untracked(sequence: Sequence[Any], description: str) -> Iterable[Any]:
    """Report no progress."""
    return sequence


class Visit(NamedTuple):
    """One point of a descent: the coordinates, shape (*descents, p), N there, shape (*descents,), and what it cost."""

    point: Tensor
    steps: Tensor
    evaluations: int
    vjps: int


def descend(
    steps_at: StepsAt, start: Tensor, lengths: Sequence[float], longest: int, description: str, track: Track = untracked
) -> list[Visit]:
    """Minimise N, step by step of the given lengths, along an average of the normalised gradients.

    N has kinks and jumps, so that the length of its gradient says nothing about the distance to a minimum, and N need
    not fall at every step: the best point visited is the answer.  A run that takes twice the best N so far is given
    up; the descent goes back to its best point and begins a new average from zero, with small steps.

    Parameters
    ----------
    steps_at
        ``(point, max_steps) -> N, stats``, with N of shape (*descents,), +inf where it is not reached.
    start
        First points, shape (*descents, p).
    lengths
        Lengths of the steps.
    longest
        Steps allowed in the first runs.
    description, track
        For the progress bar.
    """
    visits: list[Visit] = []
    here = best = start
    fewest = torch.full_like(start[..., 0], torch.inf)
    direction = torch.zeros_like(start)
    for length in track(lengths, description):
        point = here.clone().requires_grad_()
        steps, stats = steps_at(point, longest)
        (gradient,) = torch.autograd.grad(steps.sum(), point)
        steps = steps.detach()
        best = torch.where((steps < fewest).unsqueeze(-1), here, best)
        fewest = torch.minimum(steps, fewest)
        failed = (steps > GIVEN_UP * fewest).unsqueeze(-1)
        unit = torch.nan_to_num(gradient / torch.linalg.vector_norm(gradient, dim=-1, keepdim=True))
        average = AVERAGING * direction + (1 - AVERAGING) * unit if visits else unit
        direction = torch.where(failed, 0.0, average)
        visits.append(Visit(here, steps, stats.nfe, stats.vjps))
        here = torch.where(failed, best, here) - length * direction
        longest = min(longest, math.ceil(GIVEN_UP * float(fewest.max()))) if fewest.isfinite().all() else longest
    return visits


class TunedQuadratic:
    """Heavy ball on a quadratic: N averaged over random x0 that have an equal share of J in all eigenvectors."""

    def __init__(self, dimension: int, starts: int) -> None:
        spectrum = log_spaced_spectrum(dimension, CONDITION_NUMBER, 1.0, dtype=torch.float64)
        self.objective = DiagonalQuadratic(spectrum)
        self.criterion = SquaredGradientNorm(self.objective)
        gradients = torch.randn(starts, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED))
        self.x0 = gradients / torch.linalg.vector_norm(gradients, dim=-1, keepdim=True) / spectrum

    def mean_steps(
        self, rate: Tensor, momentum: Tensor, threshold: float | Tensor, sensitivity: str, max_steps: int
    ) -> tuple[Tensor, DiscreteStats]:
        """Return N averaged over x0, of the shape of the hyperparameters, all in one run."""
        batch = (*rate.shape, len(self.x0))
        step = HeavyBall(self.objective, rate.unsqueeze(-1).expand(batch), momentum.unsqueeze(-1).expand(batch))
        solution = discrete_stopping_time(
            step,
            self.x0.expand(*batch, -1),
            self.criterion,
            torch.as_tensor(threshold, dtype=torch.float64).unsqueeze(-1),
            sensitivity=sensitivity,
            max_steps=max_steps,
        )
        return solution.steps.mean(-1), solution.stats


def heavy_ball(scale: Scale, track: Track = untracked) -> dict[str, pd.DataFrame]:
    """Return the landscape of N, the descents on it, and the optima found at every threshold."""
    problem = TunedQuadratic(scale.dimension, scale.starts)
    descents = pd.concat(
        [_heavy_ball_descents(problem, scale, sensitivity, track) for sensitivity in SENSITIVITIES],
        ignore_index=True,
    )
    best = descents.loc[descents.groupby(["sensitivity", "exponent", "descent"])["steps"].idxmin()]
    searched = [_brute_force(problem, exponent, scale.resolution) for exponent in track(scale.exponents, "brute force")]
    optima = pd.concat([best.rename(columns={"sensitivity": "found_by"}), pd.DataFrame(searched)], ignore_index=True)
    optima["rate_error"] = optima["learning_rate"] / POLYAK[0] - 1
    optima["momentum_error"] = optima["momentum"] / POLYAK[1] - 1
    optima["distance"] = optima[["rate_error", "momentum_error"]].abs().max(axis=1)
    return {
        "tuning_landscape": _landscape(problem, scale.shown, scale.resolution),
        "tuning_heavy_ball": descents,
        "tuning_optima": optima,
    }


def _heavy_ball_descents(problem: TunedQuadratic, scale: Scale, sensitivity: str, track: Track) -> pd.DataFrame:
    """Descend from every start at every threshold, all at once, in log rate and logit momentum."""
    thresholds = torch.tensor([10.0**-exponent for exponent in scale.exponents], dtype=torch.float64).unsqueeze(-1)
    first = torch.tensor(DESCENTS_FROM, dtype=torch.float64)
    start = torch.stack([first[:, 0].log(), first[:, 1].logit()], dim=-1).expand(len(thresholds), -1, -1)

    def steps_at(point: Tensor, max_steps: int) -> tuple[Tensor, DiscreteStats]:
        rate, momentum = point[..., 0].exp(), point[..., 1].sigmoid()
        return problem.mean_steps(rate, momentum, thresholds, sensitivity, max_steps)

    lengths = geometric(*scale.lengths, scale.iterations)
    visits = descend(steps_at, start, lengths, LONGEST_HEAVY_BALL, f"heavy ball, {sensitivity}", track)
    rows = [
        {
            "sensitivity": sensitivity,
            "exponent": exponent,
            "descent": descent,
            "iteration": iteration,
            "learning_rate": visit.point[level, descent, 0].exp().item(),
            "momentum": visit.point[level, descent, 1].sigmoid().item(),
            "steps": visit.steps[level, descent].item(),
        }
        for iteration, visit in enumerate(visits)
        for (level, exponent), descent in itertools.product(enumerate(scale.exponents), range(len(first)))
    ]
    return pd.DataFrame(rows)


def _grid_of_steps(
    problem: TunedQuadratic, rates: Tensor, momenta: Tensor, exponent: int, max_steps: int
) -> pd.DataFrame:
    """Return N at every pair of hyperparameters."""
    rate, momentum = (grid.flatten() for grid in torch.meshgrid(rates, momenta, indexing="ij"))
    with torch.no_grad():
        steps, _ = problem.mean_steps(rate, momentum, 10.0**-exponent, "interpolated", max_steps)
    return pd.DataFrame({"exponent": exponent, "learning_rate": rate, "momentum": momentum, "steps": steps.numpy()})


def _landscape(problem: TunedQuadratic, exponent: int, resolution: int) -> pd.DataFrame:
    """Return N around Polyak's parameters; inf where it is more than five times the N there."""
    rates = torch.linspace(0.05, 1.35, 2 * resolution, dtype=torch.float64) * POLYAK[0]
    momenta = torch.linspace(0.02, 0.9, 2 * resolution, dtype=torch.float64)
    return _grid_of_steps(problem, rates, momenta, exponent, math.ceil(5 * _polyak_steps(problem, exponent)))


def _brute_force(problem: TunedQuadratic, exponent: int, resolution: int) -> dict[str, Any]:
    """Return the best of a grid around Polyak's parameters, refined three times around its best point.

    N at Polyak's own parameters is in the column ``polyak_steps``.
    """
    polyak_steps = _polyak_steps(problem, exponent)
    centre, grids = POLYAK, []
    for width in (0.6, 0.15, 0.04, 0.01):
        rates, momenta = (c * torch.linspace(1 - width, 1 + width, resolution, dtype=torch.float64) for c in centre)
        grids.append(_grid_of_steps(problem, rates, momenta, exponent, math.ceil(2 * polyak_steps)))
        best = min((grid.nsmallest(1, "steps").iloc[0] for grid in grids), key=lambda row: row["steps"])
        centre = float(best["learning_rate"]), float(best["momentum"])
    return {
        "found_by": "brute force",
        "exponent": exponent,
        "learning_rate": centre[0],
        "momentum": centre[1],
        "steps": float(best["steps"]),
        "polyak_steps": polyak_steps,
    }


def _polyak_steps(problem: TunedQuadratic, exponent: int) -> float:
    rate, momentum = torch.tensor(POLYAK, dtype=torch.float64)
    return problem.mean_steps(rate, momentum, 10.0**-exponent, "interpolated", LONGEST_HEAVY_BALL)[0].item()


class Setting(NamedTuple):
    """Hyperparameters of Adam."""

    learning_rate: float
    beta1: float
    beta2: float


def adam(scale: Scale, track: Track = untracked) -> dict[str, pd.DataFrame]:
    """Return the descents, what searches find at what cost, and the settings side by side with their runs.

    One descent starts from torch's defaults, and the searches may cost as much as it does; another starts where the
    grid of rates ended.
    """
    defaults = Setting(*ADAM_DEFAULTS)
    first = _adam_descent("descent from the defaults", defaults, scale.adam_lengths, scale, track)
    search = _searches(scale, budget=int((first["evaluations"] + first["vjps"]).sum()))
    found = {"torch's defaults": defaults, "descent from the defaults": _best(first)}
    for method in ("grid over the rate", "random search"):
        found[method] = _best(search[(search["method"] == method) & (search["order"] == 0)])
    second = _adam_descent("descent from the grid", found["grid over the rate"], scale.lengths, scale, track)
    found["descent from the grid"] = _best(second)
    return {
        "tuning_adam": pd.concat([first, second], ignore_index=True),
        "tuning_search": search,
        "tuning_settings": pd.DataFrame([_judge(name, setting, scale) for name, setting in found.items()]),
        "tuning_runs": pd.concat(
            [_run_of(name, setting, scale.adam_threshold) for name, setting in found.items()], ignore_index=True
        ),
    }


def _best(table: pd.DataFrame) -> Setting:
    row = table.nsmallest(1, "steps").iloc[0]
    return Setting(*(float(row[name]) for name in Setting._fields))


def adam_steps(
    point: Tensor, max_steps: int, *, x0: Tensor, threshold: float
) -> tuple[Float[Tensor, "*settings starts"], DiscreteStats]:
    """Return N of Adam from every x0, shape (starts, d), at every (log rate, logit β₁, logit β₂), all in one run."""
    batch = (*point.shape[:-1], len(x0))
    rate, beta1, beta2 = point.unsqueeze(-2).expand(*batch, 3).unbind(-1)
    solution = discrete_stopping_time(
        Adam(_patients(), rate.exp(), beta1.sigmoid(), beta2.sigmoid()),
        x0.expand(*batch, -1),
        SquaredGradientNorm(_patients()),
        threshold,
        sensitivity="interpolated",
        max_steps=max_steps,
    )
    return solution.steps, solution.stats


def coordinates(settings: Sequence[Setting]) -> Tensor:
    """Return the (log rate, logit β₁, logit β₂) of settings, shape (n, 3)."""
    values = torch.tensor(settings, dtype=torch.float64)
    return torch.cat([values[:, :1].log(), values[:, 1:].logit()], dim=-1)


def _adam_descent(name: str, start: Setting, lengths: tuple[float, float], scale: Scale, track: Track) -> pd.DataFrame:
    x0 = _random_starts(scale.starts, SEED)

    def steps_at(point: Tensor, max_steps: int) -> tuple[Tensor, DiscreteStats]:
        steps, stats = adam_steps(point, max_steps, x0=x0, threshold=scale.adam_threshold)
        return steps.mean(-1), stats

    visits = descend(
        steps_at, coordinates([start])[0], geometric(*lengths, scale.adam_iterations), LONGEST_ADAM, name, track
    )
    rows = [
        {
            "descent": name,
            "iteration": iteration,
            "learning_rate": visit.point[0].exp().item(),
            "beta1": visit.point[1].sigmoid().item(),
            "beta2": visit.point[2].sigmoid().item(),
            "steps": visit.steps.item(),
            "evaluations": visit.evaluations,
            "vjps": visit.vjps,
        }
        for iteration, visit in enumerate(visits)
    ]
    return pd.DataFrame(rows)


def _searches(scale: Scale, budget: int) -> pd.DataFrame:
    """Return the best N so far against the evaluations spent, of a grid of rates and of random settings.

    The grid, over the rate alone, goes from coarse to fine.  The random settings are the same in all orders, which are
    as many samples of how such a search may go.  Runs are given up as in `descend`.
    """
    fine = np.geomspace(1e-3, 10.0, 33)
    coarse_to_fine = sorted(range(33), key=lambda index: (-(index & -index) if index else -33, index))
    grid = [Setting(float(fine[index]), *ADAM_DEFAULTS[1:]) for index in coarse_to_fine]
    generator = np.random.default_rng(SEED)
    drawn = 10 ** generator.uniform((-3, -2, -4), (1, 0, 0), (scale.searched, 3))
    anywhere = [Setting(rate, 1 - one, 1 - two) for rate, one, two in drawn.tolist()]
    with torch.no_grad():
        x0 = _random_starts(scale.starts, SEED)
        steps, _ = adam_steps(coordinates([*grid, *anywhere]), SEARCH_LIMIT, x0=x0, threshold=scale.adam_threshold)
    of_grid, of_random = steps.split([len(grid), len(anywhere)])
    orders = [generator.permutation(scale.searched).tolist() for _ in range(RANDOM_ORDERS)]
    tables = [_race("grid over the rate", 0, grid, of_grid, budget)]
    for order, indices in enumerate(orders):
        table = _race("random search", order, [anywhere[i] for i in indices], of_random[indices], budget)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _race(method: str, order: int, settings: list[Setting], steps: Tensor, budget: int) -> pd.DataFrame:
    """Return a row for every improvement within the budget, from N of every setting (rows) and x0 (columns).

    A run costs its steps; ``total_cost`` is that of the whole search.
    """
    fewest, cost, rows = float(SEARCH_LIMIT), 0, []
    for setting, mean, longest in zip(settings, steps.mean(-1).tolist(), steps.amax(-1).tolist(), strict=True):
        price = math.ceil(min(longest, GIVEN_UP * fewest, SEARCH_LIMIT))
        if cost + price > budget:
            break
        cost += price
        if mean < fewest:
            fewest = mean
            rows.append({"method": method, "order": order, "cost": cost, "steps": fewest, **setting._asdict()})
    return pd.DataFrame(rows).assign(total_cost=cost)


def _judge(name: str, setting: Setting, scale: Scale) -> dict[str, Any]:
    """Return the mean N where the setting was found, and N from x0 and to thresholds that it was not found for."""
    point = coordinates([setting])[0]
    zero = torch.zeros(1, _patients().features.shape[1], dtype=torch.float64)
    fresh = _random_starts(scale.fresh_starts, SEED + 1)

    def steps(x0: Tensor, factor: float = 1.0) -> Tensor:
        return adam_steps(point, LONGEST_ADAM, x0=x0, threshold=factor * scale.adam_threshold)[0].detach()

    from_fresh = steps(fresh)
    return {
        "found_by": name,
        **setting._asdict(),
        "steps": steps(_random_starts(scale.starts, SEED)).mean().item(),
        "fresh_median": from_fresh.median().item(),
        "fresh_largest": from_fresh.max().item(),
        "fresh_unreached": int(torch.isinf(from_fresh).sum()),
        "zero": steps(zero).item(),
        "zero_tighter": steps(zero, 0.01).item(),
    }


def _random_starts(count: int, seed: int) -> Tensor:
    dimension = _patients().features.shape[1]
    return torch.randn(count, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _run_of(name: str, setting: Setting, threshold: float) -> pd.DataFrame:
    """Return J at every iterate from x0 = 0 until it meets the threshold."""
    objective = _patients()
    step, criterion = Adam(objective, *setting), SquaredGradientNorm(objective)
    values = []
    with torch.no_grad():
        state = step.initial_state(torch.zeros(objective.features.shape[1], dtype=torch.float64))
        for k in range(LONGEST_ADAM):
            values.append(criterion(step.position(state)).item())
            if values[-1] <= threshold:
                break
            state = step(k, state)
    return pd.DataFrame({"found_by": name, "k": range(len(values)), "criterion": values})


@lru_cache(maxsize=1)
def _patients() -> LogisticRegression:
    return breast_cancer(regularization=REGULARIZATION, dtype=torch.float64)


def run(scale: str, console: Console) -> dict[str, pd.DataFrame]:
    """Run both studies with a progress bar."""
    with Progress(console=console, transient=True) as progress:
        track: Track = lambda sequence, description: progress.track(sequence, description=description)  # noqa: E731
        return heavy_ball(SCALES[scale], track) | adam(SCALES[scale], track)


def heavy_ball_table(optima: pd.DataFrame) -> Table:
    """For every threshold: the brute-force minimum, and the best of each descent with its place."""
    headings = {
        "brute force": "brute force",
        "interpolated": "descents on N̂",
        "definition3": "descents by Definition 3",
    }
    table = Table(title="heavy ball: mean N (rate and momentum, relative to Polyak's)")
    for heading in ("ε/J(x0)", "at Polyak's", *headings.values()):
        table.add_column(heading, justify="right")
    for exponent, rows in optima.groupby("exponent"):
        at_polyak = rows.set_index("found_by")["polyak_steps"]["brute force"]
        cells = ["\n".join(map(_place, rows[rows["found_by"] == name].itertuples())) for name in headings]
        table.add_row(f"1e-{exponent:.0f}", f"{at_polyak:.1f}", *cells, end_section=True)
    return table


def _place(row: Any) -> str:
    return f"{row.steps:.1f} ({row.rate_error:+.1%}, {row.momentum_error:+.1%})"


def adam_table(settings: pd.DataFrame, threshold: float) -> Table:
    """N̂ of every setting where it was found and elsewhere."""
    table = Table(title=f"Adam: N̂ to J = {threshold:g}")
    headings = ("mean N̂", "fresh x0: median", "largest", "not reached", "x0 = 0", f"x0 = 0, to {threshold / 100:g}")
    for heading in ("found by", "rate", "β₁", "β₂", *headings):
        table.add_column(heading, justify="left" if heading == "found by" else "right")
    for name, rate, beta1, beta2, *counts in settings.itertuples(index=False):
        table.add_row(name, f"{rate:.3g}", f"{beta1:.4f}", f"{beta2:.5f}", *(f"{count:.0f}" for count in counts))
    return table


def cost_summary(descents: pd.DataFrame, search: pd.DataFrame) -> str:
    """What the descents and searches cost, and what a random search finds for the cost of either descent."""
    totals = descents.groupby("descent", sort=False)[["evaluations", "vjps"]].sum()
    grid = int(search.loc[search["method"] == "grid over the rate", "total_cost"].iloc[0])
    lines = [f"{name}: {row.evaluations} evaluations of the step, {row.vjps} VJPs" for name, row in totals.iterrows()]
    lines.append(f"grid over the rate: {grid} evaluations")
    random = search[search["method"] == "random search"]
    for name, total in totals.sum(axis=1).items():
        budget = total + (grid if name == "descent from the grid" else 0)
        best = random[random["cost"] <= budget].groupby("order")["steps"].min()
        low, middle, high = best.quantile([0.1, 0.5, 0.9])
        lines.append(
            f"random search, {budget} evaluations ({name}): best mean N̂ {middle:.0f}, 80 % in {low:.0f} to {high:.0f}"
        )
    return "\n".join(lines)


def main(
    scale: Annotated[str, typer.Option(help="quick (two minutes) or full (five).")] = "quick",
    output: Annotated[Path, typer.Option(help="Folder for the tables, tuning.json and the figures.")] = Path("results"),
) -> None:
    """Tune heavy ball and Adam by gradient descent on N."""
    torch.set_num_threads(1)
    console = Console(width=140)
    tables = run(scale, console)
    console.print(
        heavy_ball_table(tables["tuning_optima"]), adam_table(tables["tuning_settings"], SCALES[scale].adam_threshold)
    )
    console.print(cost_summary(tables["tuning_adam"], tables["tuning_search"]), highlight=False)
    output.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(output / f"{name}.csv", index=False)
    parameters = {
        "scale": scale,
        "seed": SEED,
        "condition_number": CONDITION_NUMBER,
        "descents_from": DESCENTS_FROM,
        "averaging": AVERAGING,
        "given_up": GIVEN_UP,
        "regularization": REGULARIZATION,
        "search_limit": SEARCH_LIMIT,
        **asdict(SCALES[scale]),
    }
    (output / "tuning.json").write_text(json.dumps(parameters | provenance(), indent=2), encoding="utf-8")
    save(
        figure.draw_heavy_ball(tables["tuning_landscape"], tables["tuning_heavy_ball"], tables["tuning_optima"]),
        output / "tuning_heavy_ball",
    )
    save(
        figure.draw_adam(tables["tuning_adam"], tables["tuning_search"], tables["tuning_runs"]), output / "tuning_adam"
    )
    console.print(f"wrote {len(tables)} tables, tuning.json and two figures to {output}")


if __name__ == "__main__":
    typer.run(main)
