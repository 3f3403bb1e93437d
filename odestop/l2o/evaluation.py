"""How fast optimizers are on problems that they were not trained on: f(x_k), and the iterations to a target.

One run of an optimizer, f(x_0), …, f(x_K) on every problem of a batch, answers for every criterion on f and every
threshold.  The criterion of arXiv 2505.22509, a small decrease, is also met by a step on which f rises, so that a
method that overshoots early has a small N.  `stopping_report` says how often, and counts two more ways that cannot be
met by a rise: until the target f - f* is met, and until f moves no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from odestop._validation import check_count, check_positive
from odestop.discrete import Adam, GradientDescent, Nesterov, StepMap
from odestop.discrete.recurrence import position_of
from odestop.objectives.base import Objective, check_objective


def classical_step_maps(objective: Objective) -> dict[str, StepMap]:
    """Return gradient descent, Nesterov's method and Adam, each with the step size 1/L of the problem.

    Parameters
    ----------
    objective
        f; its smoothness L is a number or has shape (batch,).

    Returns
    -------
    dict
        The keys are ``"GD"``, ``"NAG"`` and ``"Adam"``; the step maps are those of `odestop.discrete`.

    Raises
    ------
    ValueError
        If the smoothness is unknown.

    Examples
    --------
    >>> from odestop.l2o.problems import LogisticProblems
    >>> objective, x0 = LogisticProblems(8, 4).sample(3, torch.Generator().manual_seed(0))
    >>> list(classical_step_maps(objective))
    ['GD', 'NAG', 'Adam']
    """
    smoothness = check_objective(objective).smoothness
    if smoothness is None:
        raise ValueError(f"objective must know its smoothness, that of {type(objective).__name__} is None")
    rate = 1 / smoothness
    return {
        "GD": GradientDescent(objective, rate),
        "NAG": Nesterov(objective, rate),
        "Adam": Adam(objective, rate),
    }


@torch.no_grad()
def objective_values(
    step_map: StepMap, objective: Objective, x0: Float[Tensor, "*batch d"], steps: int
) -> Float[Tensor, "iterates *batch"]:
    """Return f(x_0), …, f(x_K) of a run of K steps, without a graph.

    Parameters
    ----------
    step_map
        As for `odestop.discrete_stopping_time`, such as those of `classical_step_maps` or `LearnedStepMap`.
    objective
        f.
    x0
        Start, shape (*batch, d).
    steps
        K, at least 1.

    Returns
    -------
    Tensor
        Shape (K + 1, *batch).  Values that overflow are inf or nan; the run goes on.

    Raises
    ------
    ValueError
        If ``steps`` is not a positive integer.

    Examples
    --------
    >>> from odestop.discrete import GradientDescent
    >>> from odestop.objectives import DiagonalQuadratic
    >>> f = DiagonalQuadratic([2.0])
    >>> objective_values(GradientDescent(f, 0.25), f, torch.tensor([4.0]), steps=3)
    tensor([16.0000,  4.0000,  1.0000,  0.2500])
    """
    check_count("steps", steps)
    return torch.stack([objective.value(x) for x in _iterates(step_map, x0, steps)])


def _iterates(step_map: StepMap, x0: Tensor, steps: int) -> Iterator[Tensor]:
    own: Callable[[Tensor, int], Iterator[Tensor]] | None = getattr(step_map, "iterates", None)
    if own is not None:
        yield from own(x0, steps)
        return
    position = position_of(step_map)
    state = step_map.initial_state(x0) if hasattr(step_map, "initial_state") else x0
    yield position(state)
    for k in range(steps):
        state = step_map(k, state)
        yield position(state)


def steps_to_small_decrease(
    values: Float[Tensor, "iterates *batch"], threshold: float | int
) -> tuple[Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
    """Return N = min{k ≥ 1 : f(x_{k-1}) - f(x_k) ≤ ε}, and whether f rose on the step that stopped the run.

    The N of `odestop.discrete_stopping_time` with `odestop.criteria.StepDecrease`, the criterion of section 5 of arXiv
    2505.22509.

    Parameters
    ----------
    values
        f(x_0), …, f(x_K), shape (K + 1, *batch).
    threshold
        ε.

    Returns
    -------
    tuple
        N, +inf where there is none or f is not finite before, and the rises, both of shape (*batch,).

    Examples
    --------
    >>> steps_to_small_decrease(torch.tensor([4.0, 2.0, 2.5, 1.0, 0.9]), threshold=0.2)
    (tensor(2.), tensor(True))
    """
    decreases = -values.diff(dim=0)
    finite = values.isfinite().cumprod(0).bool()
    steps = _first((decreases <= threshold) & finite[1:]) + 1
    last = steps.clamp(max=len(decreases)).long() - 1
    rose = steps.isfinite() & (decreases.gather(0, last.unsqueeze(0)).squeeze(0) < 0)
    return steps, rose


def steps_until_settled(values: Float[Tensor, "iterates *batch"], threshold: float | int) -> Float[Tensor, "*batch"]:
    """Return the first k ≥ 1 from which on |f(x_{j-1}) - f(x_j)| ≤ ε for every j ≥ k of the run.

    Nothing is known about what comes after the run, which should be a good deal longer than the answer.

    Parameters
    ----------
    values
        f(x_0), …, f(x_K), shape (K + 1, *batch).
    threshold
        ε.

    Returns
    -------
    Tensor
        k, shape (*batch,); +inf where even the last step moves f by more.

    Examples
    --------
    >>> steps_until_settled(torch.tensor([4.0, 2.0, 2.0, 1.0, 0.9]), threshold=0.2)
    tensor(4.)
    """
    moves = (values.diff(dim=0).abs() <= threshold).flip(0)
    quiet = moves.long().cumprod(0).sum(0)
    steps = len(moves) - quiet + 1
    return torch.where(quiet > 0, steps.to(values.dtype), torch.inf)


def steps_to_value(
    values: Float[Tensor, "iterates *batch"], level: float | int | Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """Return the first k ≥ 0 with f(x_k) at or below a level, +inf where there is none.

    Parameters
    ----------
    values
        f(x_0), …, f(x_K), shape (K + 1, *batch).
    level
        A number, or one for each problem.

    Examples
    --------
    >>> steps_to_value(torch.tensor([4.0, 2.0, 2.5, 1.0, 0.9]), 1.0)
    tensor(3.)
    """
    return _first(values <= level)


def _first(holds: Bool[Tensor, "iterates *batch"]) -> Float[Tensor, "*batch"]:
    """Return the first index where it holds, +inf where it never does."""
    index = holds.to(torch.uint8).argmax(0).to(torch.get_default_dtype())
    return torch.where(holds.any(0), index, torch.inf)


def stopping_report(
    values: Float[Tensor, "iterates problems"],
    threshold: float | int,
    gap: float | int,
    minimum: float | int | Float[Tensor, " problems"],
) -> pd.DataFrame:
    """Return the iterations of a run to its targets, one row per problem.

    Parameters
    ----------
    values
        f(x_0), …, f(x_K), shape (K + 1, problems).
    threshold
        ε > 0 of the decrease per step.
    gap
        Target of f - f*, positive.
    minimum
        f*, a number or one per problem: ``objective.minimum`` where it is known.

    Returns
    -------
    pandas.DataFrame
        ``steps`` to the decrease of at most ε; ``rose``, whether f rose there; ``gap_at_stop``, f - f* there;
        ``settled``, the iterations after which no step moves f by more than ε; ``steps_to_gap``; ``final_gap`` after K
        steps.  Iterations are +inf, and ``gap_at_stop`` is NaN, where a target is not met.

    Raises
    ------
    ValueError
        If ε or the target is not positive.

    Examples
    --------
    >>> values = torch.tensor([[4.0, 4.0], [2.0, 2.0], [2.5, 1.0], [1.0, 0.9], [0.9, 0.9]])
    >>> stopping_report(values, threshold=0.2, gap=1.0, minimum=0.0)[["steps", "rose", "settled", "steps_to_gap"]]
       steps   rose  settled  steps_to_gap
    0    2.0   True      4.0           3.0
    1    3.0  False      3.0           2.0
    """
    check_positive("threshold", threshold)
    check_positive("gap", gap)
    gaps = values - minimum
    steps, rose = steps_to_small_decrease(values, threshold)
    reached = steps.isfinite()
    stop = torch.where(reached, steps, 0.0).long().unsqueeze(0)
    columns = {
        "steps": steps,
        "rose": rose,
        "gap_at_stop": torch.where(reached, gaps.gather(0, stop).squeeze(0), torch.nan),
        "settled": steps_until_settled(values, threshold),
        "steps_to_gap": steps_to_value(gaps, gap),
        "final_gap": gaps[-1],
    }
    return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})
