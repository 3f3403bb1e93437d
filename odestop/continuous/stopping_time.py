"""The continuous stopping time of Definition 1, with the gradient of Theorem 1."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from odestop._functions import PositionMap, TrackedFunction
from odestop._validation import (
    check_callable,
    check_choice,
    check_count,
    check_dtype,
    check_levels,
    check_per_trajectory,
    check_positive,
    check_shape,
    check_state,
)
from odestop.continuous.dense_trajectory import DenseTrajectory
from odestop.continuous.forward import ForwardSolve, SolveSettings, solve_forward
from odestop.continuous.gradients import GRADIENTS, DiscreteAdjoint, GradientMethod
from odestop.continuous.problem import StoppingProblem, broadcast_time, is_separable
from odestop.continuous.solution import ContinuousSolution, ContinuousStats
from odestop.criteria import TimeDependent
from odestop.solvers import FIXED_STEP_METHODS, METHODS, Automatic, OneStepMethod
from odestop.status import StoppingStatus, TangencyWarning, raise_on_failure

Kind = TypeVar("Kind")


def continuous_stopping_time(
    dynamics: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    criterion: Callable[[Tensor], Tensor],
    threshold: float | int | Tensor,
    *,
    direction: str = "falling",
    t0: float | int | Tensor = 0.0,
    t_max: float | int = math.inf,
    levels: bool = False,
    method: str | OneStepMethod | Automatic = "dopri5",
    rtol: float | int = 1e-7,
    atol: float | int = 1e-9,
    gradient: str | GradientMethod = "discrete_adjoint",
    compile: bool = False,
    max_steps: int = 100_000,
    on_failure: str = "status",
) -> ContinuousSolution:
    r"""Solve dx/dt = F(t, x) until J(x(T)) = ε and return T with its gradient.

    T_J(θ, x0, ε) = inf{t ≥ t0 : J(x(t)) ≤ ε} (Def. 1 of arXiv 2505.22509), where F = -A(θ, x, t) is the vector field
    of the optimizer.  Its gradient is that of the implicit function theorem (Thm. 1),
    ∂T/∂θ = -∇J(x_T)ᵀ ∂x(T)/∂θ / (∇J(x_T)ᵀ F(T, x_T)), and arrives through ``backward()`` or `torch.autograd.grad` on
    ``solution.time`` and ``solution.state``, for every tensor that requires a gradient among: the parameters of the
    dynamics, the parameters of the criterion, ``x0``, ``threshold`` and ``t0``.

    Parameters
    ----------
    dynamics
        ``(t, x) -> dx/dt``, a module or any callable; tensors in its closure count as its parameters.  A module
        written for torchdiffeq works unchanged.  ``x`` has the shape of ``x0``; ``t`` is a 0-d tensor for a single
        trajectory and has shape (*batch, 1) for a batch, because every trajectory has its own time.  A module with a
        hidden state maps ``x0`` to its state by ``initial_state(x0)`` and back by ``position(state)``.  Parameters that
        ``position`` uses enter J as well.
    x0
        Initial point, real floating point, shape (*batch, d).  Its dtype and device are those of the whole solve.
    criterion
        ``x -> J(x)`` of shape (*batch,); sees positions.  It may call autograd inside.  A J that depends on t as well
        is wrapped in `odestop.criteria.TimeDependent`.
    threshold
        ε, a number or a tensor that broadcasts to (*batch,); with ``levels=True`` a tensor of shape (levels,) or
        (*batch, levels).
    direction
        ``"falling"`` stops at the first J(x(t)) ≤ ε, ``"rising"`` at the first J(x(t)) ≥ ε, and ``"either"`` where J
        first comes to ε from the side that it starts on.
    t0
        Initial time, a number or a tensor that broadcasts to (*batch,).
    t_max
        Horizon: trajectories that have not stopped by then get T = +inf.
    levels
        Whether the last dimension of ``threshold`` lists several thresholds.  All of them are met in one forward solve,
        in whatever order, and differentiated by one backward sweep; ``time`` has shape (*batch, levels) and ``state``
        (*batch, levels, d).  For a J that is not monotone, each level's time is its first passage.
    method
        ``"dopri5"``, ``"tsit5"``, ``"bosh3"`` or ``"dopri8"`` (for tight tolerances); for stiff flows the stabilised
        ``"rock4"`` or ``"rkc2"``; ``"auto"``, which begins with ``"tsit5"`` and starts again with ``"rock4"`` if the
        flow turns out to be stiff (see `odestop.solvers.Automatic`); or a solver object with its knobs, such as
        ``odestop.solvers.DormandPrince5(stability_fraction=0.9)``; `odestop.solvers.ExplicitEuler`, `Heun` and
        `RungeKutta4` take fixed steps.
    rtol
        Local error allowed per step relative to the state.  The error is also held below 10 rtol in the norm of the
        vector field, so that it stays small beside a small ∇f.  The gradient is less accurate than T, by a factor of
        1e2 to 1e4.  A value below ten units of rounding is raised to that.
    atol
        Local error allowed per step in absolute terms.
    gradient
        ``"discrete_adjoint"`` (default), ``"continuous_adjoint"``, ``"forward_sensitivity"`` (few parameters),
        ``"unrolled"`` (higher derivatives), ``"finite_difference"`` (for checking), ``"backsolve"`` (for research); or
        an object of `odestop.gradients` with its knobs, such as ``DiscreteAdjoint(checkpoints=20)``.
    compile
        Whether `torch.compile` translates the steps of the forward solve, J and the error estimate included, into one
        code that serves every t, h and ε; of the stabilised methods, the dynamics alone.  The steps of the discrete
        adjoint are compiled too, unless the dynamics knows its own products.  It takes seconds to minutes
        at the first call with a dynamics, a criterion and a shape, and pays where many solves of small dimension
        follow.  Where it fails, a warning says so and the solve goes on without it.
    max_steps
        Step attempts allowed per trajectory.
    on_failure
        ``"status"`` reports failures in ``solution.status``; ``"raise"`` raises `StoppingTimeError`, which carries
        the solution.

    Returns
    -------
    ContinuousSolution
        T is +inf, with a zero gradient, for trajectories that do not stop; their status says why.  Where
        J(x0) ≤ ε already (≥ ε for a rise), T = t0 and the only gradient is ∂T/∂t0 = 1.  A tangential crossing has a
        finite T, a `TangencyWarning` with the measured dJ/dt, and a zero gradient.

    Raises
    ------
    ValueError
        For an argument that cannot be used; the message names it and what is accepted.
    StoppingTimeError
        With ``on_failure="raise"``, if any trajectory does not stop.

    Examples
    --------
    >>> import torch, odestop
    >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -rate * x, torch.ones(1, dtype=torch.float64), lambda x: x[..., 0], threshold=0.1
    ... )
    >>> round(solution.time.item(), 6)  # ln(10) / 2
    1.151293
    >>> (slope,) = torch.autograd.grad(solution.time, rate)
    >>> round(slope.item(), 6)  # -ln(10) / 4
    -0.575646
    """
    chosen = _resolve_method(method)
    gradient_method = _resolve("gradient", gradient, GRADIENTS, GradientMethod)  # type: ignore[type-abstract]
    check_choice("on_failure", on_failure, ("status", "raise"))
    x0 = check_state("x0", x0)
    problem = pose(dynamics, x0, criterion, threshold, t0, direction=direction, levels=levels)
    settings = SolveSettings(
        rtol=max(check_positive("rtol", rtol), 10.0 * torch.finfo(x0.dtype).eps),
        atol=check_positive("atol", atol, allow_zero=True),
        t_max=check_horizon(t_max, problem.t0),
        max_steps=check_count("max_steps", max_steps),
        keep_every=gradient_method.checkpoints if isinstance(gradient_method, DiscreteAdjoint) else 1,
        compile=compile,
    )
    solve = solve_forward(problem, chosen, settings)
    solver = solve.solver
    stats = ContinuousStats(
        nfe=problem.dynamics.evaluations,
        criterion_evaluations=problem.criterion.evaluations,
        accepted_steps=torch.from_numpy(solve.accepted).reshape(problem.batch),
        rejected_steps=torch.from_numpy(solve.rejected).reshape(problem.batch),
        peak_bytes=solve.steps.peak_bytes,
        method=type(solver).__name__,
    )
    time, state = gradient_method.attach(problem, solver, solve, stats)
    rate = np.stack([np.full_like(solve.time[:, 0], np.nan) if e is None else e.rate for e in solve.events], axis=-1)
    codes = torch.from_numpy(solve.codes).reshape(problem.threshold.shape)
    rates = problem.levels_to_device(np.where(np.isfinite(solve.time), rate, np.nan))
    if not levels:
        time, state, rates, codes = time[..., 0], state[..., 0, :], rates[..., 0], codes[..., 0]
    position, trajectory = position_map(dynamics)(state), DenseTrajectory(problem, solver, solve)
    solution = ContinuousSolution(time, state, position, rates, stats, codes, trajectory)
    _warn_of_tangency(solve, rate)
    if on_failure == "raise":
        raise_on_failure(solution, solution.status_codes)
    return solution


def pose(
    dynamics: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    criterion: Callable[[Tensor], Tensor],
    threshold: float | int | Tensor,
    t0: float | int | Tensor,
    *,
    direction: str = "falling",
    levels: bool = False,
) -> StoppingProblem:
    """Check the arguments that define the question, evaluate F and J once, and find their parameters."""
    check_callable("dynamics", dynamics, "(t, x) -> dx/dt")
    check_callable("criterion", criterion, "x -> J(x)")
    check_choice("direction", direction, ("falling", "rising", "either"))
    batch = x0.shape[:-1]
    threshold = (
        check_levels(threshold, x0, batch)
        if levels
        else check_per_trajectory("threshold", threshold, x0, batch).unsqueeze(-1)
    )
    t0 = check_per_trajectory("t0", t0, x0, batch)
    initial_state = getattr(dynamics, "initial_state", _identity)
    state = check_state("initial_state(x0)", initial_state(x0))
    field = TrackedFunction("dynamics", dynamics)
    objective = TrackedFunction("criterion", _of_time_and_state(criterion, position_map(dynamics)))
    slope = _probe(field, "t has shape (*batch, 1) for a batch", broadcast_time(t0.detach()), state)
    check_shape("dynamics", slope, state.shape, "the shape of the state")
    check_dtype("dynamics", slope, state.dtype)
    value = _probe(objective, "x has shape (*batch, d)", t0.detach(), state)
    check_shape("criterion", value, batch, "one value per trajectory")
    check_dtype("criterion", value, state.dtype)
    separable = is_separable(field, objective, t0.detach(), state.detach(), slope, value)
    orientation = _orientation(direction, value, threshold)
    return StoppingProblem(field, objective, state, threshold, t0, slope, value, orientation, separable)


def _of_time_and_state(
    criterion: Callable[..., Tensor], position: Callable[[Tensor], Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    """J(t, state) of a criterion that sees positions, and times if it says so."""
    if isinstance(criterion, TimeDependent):
        return lambda t, state: criterion(t, position(state))
    return lambda t, state: criterion(position(state))


def _orientation(direction: str, value: Tensor, threshold: Tensor) -> np.ndarray:
    """+1 where J falls to the level and -1 where it rises to it, shape (n, levels)."""
    above = (value.detach().unsqueeze(-1) >= threshold.detach()).reshape(-1, threshold.shape[-1]).cpu().numpy()
    if direction == "either":
        return np.where(above, 1.0, -1.0)
    return np.full(above.shape, 1.0 if direction == "falling" else -1.0)


def _probe(function: TrackedFunction, hint: str, *arguments: Tensor) -> Tensor:
    """First evaluation of a user's function; an exception of its own gets a note about what it was given."""
    try:
        return function.probe(*arguments)
    except Exception as error:
        shapes = ", ".join(str(tuple(argument.shape)) for argument in arguments)
        error.add_note(f"odestop called {function.name} with arguments of shape {shapes}; {hint}")
        raise


def position_map(dynamics: object) -> Callable[[Tensor], Tensor]:
    """Map from the state of the dynamics to the point that the criterion sees."""
    return PositionMap(getattr(dynamics, "position", _identity))


def _identity(state: Tensor) -> Tensor:
    return state


def _resolve_method(method: str | OneStepMethod | Automatic) -> OneStepMethod | Automatic:
    if isinstance(method, Automatic):
        return method
    if isinstance(method, str) and method in FIXED_STEP_METHODS:
        raise ValueError(
            f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}, which takes fixed steps: "
            f"odestop.solvers.{FIXED_STEP_METHODS[method].__name__}(step_size=...) is accepted as well"
        )
    return _resolve("method", method, METHODS, OneStepMethod)


def _resolve(name: str, value: str | Kind, aliases: dict[str, Kind], kind: type[Kind]) -> Kind:
    """Turn an alias into the object behind it."""
    if isinstance(value, str):
        return aliases[check_choice(name, value, tuple(aliases))]
    if not isinstance(value, kind):
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, aliases))} or a {kind.__name__} object, got {value!r}"
        )
    return value


def check_horizon(t_max: float | int, t0: Tensor) -> float:
    """Return the horizon as a float if it is later than every trajectory's start."""
    if isinstance(t_max, bool) or not isinstance(t_max, (int, float)) or math.isnan(t_max):
        raise ValueError(f"t_max must be a number or inf, got {t_max!r}")
    latest = float(t0.detach().max())
    if t_max <= latest:
        raise ValueError(f"t_max must be later than t0 = {latest}, got {t_max}")
    return float(t_max)


def _warn_of_tangency(solve: ForwardSolve, rate: np.ndarray) -> None:
    tangential = solve.codes == StoppingStatus.TANGENTIAL.code
    if tangential.any():
        warnings.warn(
            f"{int(tangential.sum())} of {tangential.size} trajectories touch the threshold tangentially: "
            f"dJ/dt = {rate[tangential][0]:.3e} at the first such event; their stopping times have no usable gradient",
            TangencyWarning,
            stacklevel=3,
        )
