"""The same question answered by torchdiffeq: the paper's ground truth, and the cross-check of the native solver."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchdiffeq import odeint, odeint_event

from odestop._functions import TrackedFunction
from odestop._validation import check_count, check_positive, check_state
from odestop.continuous.problem import StoppingProblem
from odestop.continuous.solution import ContinuousSolution, ContinuousStats
from odestop.continuous.stopping_time import check_horizon, pose, position_map
from odestop.status import StoppingStatus


def torchdiffeq_stopping_time(
    dynamics: Callable[[Tensor, Tensor], Tensor],
    x0: Tensor,
    criterion: Callable[[Tensor], Tensor],
    threshold: float | int | Tensor,
    *,
    t0: float | int | Tensor = 0.0,
    t_max: float | int = math.inf,
    method: str = "dopri5",
    rtol: float | int = 1e-7,
    atol: float | int = 1e-9,
    max_steps: int = 100_000,
    max_step_size: float | int = math.inf,
    event_scale: float | int = 1.0,
) -> ContinuousSolution:
    """Answer `continuous_stopping_time` with torchdiffeq's ``odeint_event``.

    The solve keeps its whole graph, and the gradient is torchdiffeq's own: it reaches the parameters of the dynamics
    and ``x0``, not the criterion's parameters, the threshold or ``t0``.  The trajectories of a batch are solved one by
    one, each with its own event, so ``dynamics`` is called with x of shape (d,) and a 0-d t.

    Parameters
    ----------
    dynamics, x0, criterion, threshold, t_max, rtol, atol, max_steps
        As in `continuous_stopping_time`; here ``atol`` is also torchdiffeq's tolerance of the event time.
    t0
        Initial time, a number or a tensor that broadcasts to (*batch,).
    method
        Any adaptive method of torchdiffeq.
    max_step_size
        torchdiffeq's ``max_step``.
    event_scale
        Factor on the event function.  torchdiffeq adds 1e-12 to dJ/dt before it divides by it, which biases gradients
        at small thresholds; a large factor makes that harmless.

    Returns
    -------
    ContinuousSolution
        With the statuses REACHED, ALREADY_SATISFIED, HORIZON, MAX_STEPS, STEP_UNDERFLOW and NON_FINITE; accepted and
        rejected steps are not known to torchdiffeq and read -1.

    Raises
    ------
    ValueError
        For an argument that cannot be used, among them a threshold or criterion parameter that requires a gradient.

    Examples
    --------
    >>> import torch, odestop
    >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> solution = odestop.torchdiffeq_stopping_time(
    ...     lambda t, x: -rate * x, torch.ones(1, dtype=torch.float64), lambda x: x[..., 0], threshold=0.1
    ... )
    >>> round(solution.time.item(), 6)
    1.151293
    """
    x0 = check_state("x0", x0)
    check_positive("rtol", rtol)
    check_positive("atol", atol)
    check_count("max_steps", max_steps)
    problem = pose(dynamics, x0, criterion, threshold, t0)
    t_max = check_horizon(t_max, problem.t0)
    _refuse_unsupported_gradients(problem)
    options: dict[str, float | int] = {"max_num_steps": max_steps}
    if math.isfinite(max_step_size):
        options["max_step"] = check_positive("max_step_size", max_step_size)
    solver_arguments = {"method": method, "rtol": rtol, "atol": atol, "options": options}
    rows = _Rows(problem, float(event_scale), t_max, solver_arguments)
    size = problem.initial_state.shape[-1]
    starts = problem.initial_state.reshape(-1, size)
    answers = [rows.solve(start, index) for index, start in enumerate(starts)]
    times, states, codes = zip(*answers, strict=True)
    state = torch.stack(states).reshape(problem.initial_state.shape)
    unknown = torch.full(problem.batch, -1)
    return ContinuousSolution(
        time=torch.stack(times).reshape(problem.batch),
        state=state,
        position=position_map(dynamics)(state),
        criterion_rate=torch.full(problem.batch, math.nan, dtype=x0.dtype, device=x0.device),
        stats=ContinuousStats(problem.dynamics.evaluations, problem.criterion.evaluations, unknown, unknown),
        status_codes=torch.from_numpy(np.array(codes)).reshape(problem.batch),
    )


def _refuse_unsupported_gradients(problem: StoppingProblem) -> None:
    for name, tensors in (
        ("threshold", (problem.threshold,)),
        ("t0", (problem.t0,)),
        ("criterion", problem.criterion.parameters),
    ):
        if any(tensor.requires_grad for tensor in tensors):
            raise ValueError(
                f"{name} requires a gradient, which torchdiffeq's odeint_event does not give; "
                "detach it, or use continuous_stopping_time"
            )


class _Rows:
    """Solves one trajectory after the other."""

    def __init__(self, problem: StoppingProblem, event_scale: float, t_max: float, solver_arguments: dict) -> None:
        self.problem, self.event_scale, self.t_max = problem, event_scale, t_max
        self.solver_arguments = solver_arguments

    def solve(self, start: Tensor, index: int) -> tuple[Tensor, Tensor, int]:
        """T, x(T) and the status of the trajectory from ``start``."""
        t0 = self.problem.t0.detach().reshape(-1)[index]
        threshold = self.problem.threshold.detach().reshape(-1)[index]
        value = self.problem.initial_value.reshape(-1)[index]
        never = torch.full_like(t0, math.inf)
        if not torch.isfinite(value):
            return never, start, StoppingStatus.NON_FINITE.code
        if value <= threshold:
            return t0, start, StoppingStatus.ALREADY_SATISFIED.code

        def event(t: Tensor, x: Tensor) -> Tensor:
            gap = _with_autograd(self.problem.criterion, t, x) - threshold
            return self.event_scale * torch.minimum(gap, (self.t_max - t).to(gap))

        def field(t: Tensor, x: Tensor) -> Tensor:
            return _with_autograd(self.problem.dynamics, t, x)

        try:
            time, states = odeint_event(
                field, start, t0, event_fn=event, odeint_interface=odeint, **self.solver_arguments
            )
        except AssertionError as failure:
            return never, start, _status_of(str(failure)).code
        state = states[-1]
        gap = _with_autograd(self.problem.criterion, time.detach(), state.detach()) - threshold
        if gap > self.t_max - time:
            return never, state.detach(), StoppingStatus.HORIZON.code
        return time, state, StoppingStatus.REACHED.code


def _with_autograd(function: TrackedFunction, *arguments: Tensor) -> Tensor:
    """Call a function that may use autograd inside, also where torchdiffeq has switched grad mode off."""
    function.evaluations += 1
    *others, state = arguments
    if torch.is_grad_enabled() and state.requires_grad:
        return function.function(*arguments)
    with torch.enable_grad():
        value = function.function(*others, state.detach().requires_grad_())
    return value if torch.is_grad_enabled() else value.detach()


def _status_of(message: str) -> StoppingStatus:
    """The status behind one of torchdiffeq's assertions."""
    if "max_num_steps" in message:
        return StoppingStatus.MAX_STEPS
    if "non-finite" in message or "nan" in message:
        return StoppingStatus.NON_FINITE
    return StoppingStatus.STEP_UNDERFLOW
