"""The discrete stopping time of Definition 2, with the sensitivity of Definition 3."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from odestop._compilation import CompiledFunction
from odestop._functions import TrackedFunction
from odestop._validation import (
    check_callable,
    check_choice,
    check_count,
    check_per_trajectory,
    check_state,
)
from odestop.criteria import HistoryCriterion
from odestop.discrete.checkpoints import (
    CheckpointedRecord,
    Checkpoints,
    EverySteps,
    RecentRecord,
    Record,
    resolve_checkpoints,
)
from odestop.discrete.crossing import Crossings, Places
from odestop.discrete.history import with_history
from odestop.discrete.recurrence import Recurrence, position_of, recurrence_of
from odestop.discrete.sensitivity import Sensitivity, resolve_sensitivity
from odestop.discrete.solution import DiscreteSolution, DiscreteStats
from odestop.discrete.step_maps import StepMap, TimeStepMap
from odestop.discrete.stopping_steps import StoppingSteps
from odestop.discrete.trajectory import run_until_stopped
from odestop.status import StoppingStatus, TangencyWarning, raise_on_failure


def discrete_stopping_time(
    step_map: StepMap,
    x0: Tensor,
    criterion: Callable[[Tensor], Tensor],
    threshold: float | int | Tensor,
    *,
    t0: float | int | Tensor = 0.0,
    sensitivity: str | Sensitivity = "definition3",
    checkpoints: str | int | Checkpoints = "all",
    backward_steps: int | None = None,
    compile: bool = False,
    max_steps: int = 100_000,
    on_failure: str = "status",
) -> DiscreteSolution:
    """Iterate an update rule until J(x_N) ≤ ε and return N with its sensitivity.

    N_J = min{k : J(x_k) ≤ ε} (Def. 2 of arXiv 2505.22509) for x_{k+1} = Φ_k(x_k), which for `Euler` is x_k -
    h A(θ, x_k, t_k).  N is an integer; its sensitivity, by default that of Def. 3 (eq. 8), approximates the
    gradient of the continuous stopping time: ‖∇T - h ∇N‖ = O(h) (Thm. 2).  It is computed by Algorithm 1 from
    the stored iterates and arrives through ``backward()`` or `torch.autograd.grad` on ``solution.steps``,
    ``solution.time`` and ``solution.state``, for every tensor that requires a gradient among: the parameters
    of the step map (its step size included), the parameters of the criterion, ``x0``, ``threshold`` and
    ``t0``.  Only first derivatives are available.

    Parameters
    ----------
    step_map
        ``(k, state) -> state``, such as ``Euler(dynamics, step_size)``; a module, or a plain function whose
        closure counts as its parameters.  See `StepMap` for rules with memory.
    x0
        Initial point, real floating point, shape (*batch, d).  Its dtype and device are those of the whole
        run; the trajectories of a batch are independent, each with its own N.
    criterion
        ``x -> J(x)`` of shape (*batch,); sees positions.  It may call autograd inside.  A
        `odestop.criteria.HistoryCriterion` sees the previous position too, and begins at k = 1.
    threshold
        ε, a number or a tensor that broadcasts to (*batch,).
    t0
        Initial time of a `TimeStepMap`, a number or a tensor that broadcasts to (*batch,): t_k = t0 + k h.
    sensitivity
        ``"definition3"`` for N; ``"interpolated"`` for the fractional N̂ with its exact derivative; for a
        `TimeStepMap`, ``"hermite"`` for one whose derivative keeps the order of the map, up to four; or a
        `Sensitivity` such as `Definition3()`.
    checkpoints
        Which iterates are stored for the gradient: ``"all"``, ``"sqrt"`` for about every √N-th, an integer m for
        every m-th, or a schedule such as `MemoryBudget`.  The backward pass steps again from these to the others, so
        the step map must be deterministic; the gradient is the same, bit by bit, for every choice.
    backward_steps
        m to differentiate only the last m steps of each trajectory, an approximation (truncated backpropagation; m =
        1 is one-step differentiation): the state m steps before the stop counts as a constant, so that nothing
        reaches x0 where N > m.  Only m iterates are stored.  None, the default, differentiates all steps.
    compile
        Whether `torch.compile` translates the step and its vector-Jacobian product.  It takes several seconds at the
        first call with a step map, and pays for maps of many small operations.  Where it fails, a warning says so and
        the run goes on without it.
    max_steps
        Steps allowed.
    on_failure
        ``"status"`` reports failures in ``solution.status``; ``"raise"`` raises `StoppingTimeError`, which
        carries the solution.

    Returns
    -------
    DiscreteSolution
        N is a floating tensor of shape (*batch,) in the dtype of x0: exact up to 2^24 in float32 and 2^53 in
        float64. It is +inf, with a zero gradient, for trajectories whose status is MAX_STEPS, or NON_FINITE
        because a state or a value of J was.  Where J(x0) ≤ ε already, N = 0 with a zero gradient, so that all
        that is left of the gradient of the time is ∂/∂t0 = 1; a criterion on history has N = 1 where its first
        value will do, with a zero gradient too.  A ``"hermite"`` crossing that is too flat has a finite N̂, the
        status TANGENTIAL, a `TangencyWarning` and a zero gradient.

    Raises
    ------
    ValueError
        For an argument that cannot be used; the message names it and what is accepted.
    StoppingTimeError
        With ``on_failure="raise"``, if any trajectory does not stop.
    RuntimeError
        In the backward pass, if the step map or the criterion depends on the state in a way that autograd
        does not see.

    Examples
    --------
    >>> import torch
    >>> from odestop.discrete import Euler, discrete_stopping_time
    >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> euler = Euler(lambda t, x: -rate * x, step_size=0.01)
    >>> solution = discrete_stopping_time(
    ...     euler, torch.ones(1, dtype=torch.float64), lambda x: x[..., 0], threshold=0.1
    ... )
    >>> solution.steps.item(), round(solution.time.item(), 6)  # T = ln(10) / 2 = 1.151293
    (114.0, 1.14)
    >>> (slope,) = torch.autograd.grad(solution.time, rate)
    >>> round(slope.item(), 4)  # dT/dθ = -ln(10) / 4 = -0.5756
    -0.57
    """
    check_callable("step_map", step_map, "(k, state) -> state")
    check_callable("criterion", criterion, "x -> J(x)")
    record = _record(checkpoints, backward_steps)
    check_count("max_steps", max_steps)
    check_choice("on_failure", on_failure, ("status", "raise"))
    rule = resolve_sensitivity(sensitivity)
    x0 = check_state("x0", x0)
    batch = x0.shape[:-1]
    if not isinstance(step_map, TimeStepMap) and (isinstance(t0, Tensor) or t0 != 0.0):
        raise ValueError(f"t0 must be left at 0 for a step map without a step size, got {t0}")
    threshold = check_per_trajectory("threshold", threshold, x0, batch)
    start_time = check_per_trajectory("t0", t0, x0, batch)
    # The caller's own t0, so that a dynamics may use it as well.
    recurrence = recurrence_of(step_map, criterion, x0, t0 if isinstance(t0, Tensor) else start_time)
    if isinstance(criterion, HistoryCriterion):
        recurrence = with_history(recurrence, criterion, position_of(step_map))
    increment = _increment_for(rule, recurrence)
    one_step = CompiledFunction("the step map", recurrence.step) if compile else recurrence.step
    step = TrackedFunction("step_map", one_step)
    objective = TrackedFunction("criterion", recurrence.criterion)
    state = recurrence.start
    run = run_until_stopped(step, objective, state, threshold, max_steps, record, recurrence.first_test)
    stats = DiscreteStats(
        nfe=step.evaluations * (step_map.evaluations_per_step if isinstance(step_map, TimeStepMap) else 1),
        criterion_evaluations=objective.evaluations,
        peak_bytes=record.peak_bytes,
    )
    crossings = Crossings(run, threshold.detach(), objective, increment, rule, step.parameters)
    places = _find_crossings(crossings)
    answer = StoppingSteps(run, step, objective, crossings, places, stats, backward_steps)
    steps, state = answer.attach(state, threshold)
    state = recurrence.step_map_state(state)
    solution = DiscreteSolution(
        steps=steps,
        time=_time(step_map, start_time, steps),
        state=state,
        position=position_of(step_map)(state),
        status_codes=run.codes,
        stats=stats,
    )
    if on_failure == "raise":
        raise_on_failure(solution, run.codes)
    return solution


def _record(checkpoints: str | int | Checkpoints, backward_steps: int | None) -> Record:
    """Return the empty record that the arguments ask for."""
    schedule = resolve_checkpoints(checkpoints)
    if backward_steps is None:
        return CheckpointedRecord(schedule)
    if schedule != EverySteps(1):
        raise ValueError(
            f"checkpoints must be left at 'all' with backward_steps, which stores {backward_steps} iterates already, "
            f"got {checkpoints!r}"
        )
    return RecentRecord(check_count("backward_steps", backward_steps))


def _increment_for(rule: Sensitivity, recurrence: Recurrence) -> TrackedFunction | None:
    """Return h dx/dt for the sensitivities that need it."""
    if not rule.needs_velocity:
        return None
    if recurrence.increment is None:
        raise ValueError(
            "sensitivity must be 'definition3' or 'interpolated' for a step map without a velocity dx/dt, which only "
            f"a TimeStepMap has, got {rule!r}"
        )
    return TrackedFunction("step_map", recurrence.increment)


def _find_crossings(crossings: Crossings) -> Places:
    """Locate them, and warn of those that have no usable gradient."""
    places = crossings.locate()
    tangential = crossings.run.codes == StoppingStatus.TANGENTIAL.code
    if bool(tangential.any()):
        warnings.warn(
            f"{int(tangential.sum())} of {tangential.numel()} trajectories touch the threshold tangentially: dJ/ds = "
            f"{places.slope[tangential][0].item():.3e} along the first such last step; their step counts have no "
            "usable gradient",
            TangencyWarning,
            stacklevel=3,
        )
    return places


def _time(step_map: StepMap, t0: Tensor, steps: Tensor) -> Tensor | None:
    """Return t0 + h · steps; where that is infinite, h must not see the infinite factor in its gradient."""
    if not isinstance(step_map, TimeStepMap):
        return None
    reached = torch.isfinite(steps)
    time = t0 + step_map.step_size.to(steps.dtype) * torch.where(reached, steps, 0.0)
    return torch.where(reached, time, torch.inf)
