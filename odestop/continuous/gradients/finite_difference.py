"""The gradient by central differences of whole solves, for checking the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from odestop._validation import check_positive
from odestop.continuous.forward import ForwardSolve, solve_forward
from odestop.continuous.gradients.first_order import StoppingGradients, attach_first_order
from odestop.continuous.problem import StoppingProblem
from odestop.continuous.solution import ContinuousStats
from odestop.solvers import OneStepMethod
from odestop.status import StoppingStatus


@dataclass(frozen=True)
class FiniteDifference:
    """Central differences of T and x(T), each from two more solves.  Alias ``"finite_difference"``.

    Each input is moved up and down by w = ``relative_step`` times its size, and the problem is solved again, with the
    same tolerances.  An entry's size is its magnitude, or the root mean square of the vector or tensor it belongs to
    where that is larger; a threshold's is its own magnitude, and that of t0 is the time until the event.  Parameters
    are moved in place and put back.

    * Cost: 2 (p + d + 2) solves for p entries of parameters and d coordinates, as far as they require a gradient, paid
      by every backward pass; trajectories and levels share them.  ``stats`` counts none of it.
    * Memory: one more solve.
    * Accuracy: w² for the truncation, and the error of T divided by w for the noise of the solves, whose steps adapt
      to the moved input.  First derivatives only.
    * When to use it: to check the other methods.

    Parameters
    ----------
    relative_step
        Width of the differences relative to the sizes of the inputs.

    Examples
    --------
    >>> import torch, odestop
    >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -rate * x,
    ...     torch.ones(1, dtype=torch.float64),
    ...     lambda x: x[..., 0],
    ...     threshold=0.1,
    ...     gradient="finite_difference",
    ... )
    >>> solution.time.backward()
    >>> round(rate.grad.item(), 4)  # -ln(10) / 4
    -0.5756
    """

    relative_step: float = 1e-3

    def __post_init__(self) -> None:
        check_positive("relative_step", self.relative_step)

    def attach(
        self, problem: StoppingProblem, solver: OneStepMethod, solve: ForwardSolve, stats: ContinuousStats
    ) -> tuple[Tensor, Tensor]:
        """T of shape (*batch, levels) and x(T) of shape (*batch, levels, d), as differentiable tensors."""

        def pull_back(time_cotangent: Tensor, state_cotangent: Tensor) -> StoppingGradients:
            differences = _Differences(problem, solver, solve, time_cotangent, state_cotangent)
            return differences.run(self.relative_step)

        return attach_first_order(problem, solve, pull_back)


class _Differences:
    """One backward pass: differences of the scalar Σ τ·T + v·x(T)."""

    def __init__(
        self,
        problem: StoppingProblem,
        solver: OneStepMethod,
        solve: ForwardSolve,
        time_cotangent: Tensor,
        state_cotangent: Tensor,
    ) -> None:
        self.original, self.solver, self.solve = problem, solver, solve
        # Copies, because a parameter that is moved in place may share its memory with them.
        self.problem = replace(
            problem,
            initial_state=problem.initial_state.detach().clone(),
            threshold=problem.threshold.detach().clone(),
            t0=problem.t0.detach().clone(),
        )
        reached = torch.from_numpy(solve.codes == StoppingStatus.REACHED.code)
        self.usable = reached.to(time_cotangent.device).reshape(time_cotangent.shape)
        self.time_cotangent, self.state_cotangent = time_cotangent, state_cotangent

    def run(self, relative_step: float) -> StoppingGradients:
        """Difference quotients for every input that requires a gradient."""
        gradients = StoppingGradients.zeros(self.problem)
        if not bool(self.usable.any()):
            return gradients
        if self.original.initial_state.requires_grad:
            self._by_initial_state(relative_step, gradients.initial_state)
        if self.original.threshold.requires_grad:
            self._by_threshold(relative_step, gradients.threshold)
        if self.original.t0.requires_grad:
            self._by_t0(relative_step, gradients.t0)
        self._by_parameters(relative_step, gradients)
        return gradients

    def _by_initial_state(self, relative_step: float, gradient: Tensor) -> None:
        """One coordinate at a time, in all trajectories at once."""
        x = self.problem.initial_state
        width = relative_step * _sizes(x, x.square().mean(-1, keepdim=True).sqrt())
        for j, only_j in enumerate(torch.eye(x.shape[-1]).to(x)):
            up, down = x + width * only_j, x - width * only_j
            change = self._change(
                self._answer(replace(self.problem, initial_state=up)),
                self._answer(replace(self.problem, initial_state=down)),
            )
            gradient[..., j] = change.sum(-1) / (up - down)[..., j]

    def _by_threshold(self, relative_step: float, gradient: Tensor) -> None:
        """All at once: a level of a trajectory depends on its own threshold alone."""
        threshold = self.problem.threshold
        value = self.problem.initial_value.unsqueeze(-1).abs()
        width = relative_step * _sizes(threshold, torch.where(threshold == 0.0, value, 0.0))
        up, down = threshold + width, threshold - width
        gradient += self._change(
            self._answer(replace(self.problem, threshold=up)), self._answer(replace(self.problem, threshold=down))
        ) / (up - down)

    def _by_t0(self, relative_step: float, gradient: Tensor) -> None:
        """All trajectories at once."""
        t0 = self.problem.t0
        time = torch.where(self.usable, self.problem.levels_to_device(self.solve.time), t0.unsqueeze(-1))
        width = relative_step * _sizes(time.amax(-1) - t0, torch.zeros_like(t0))
        up, down = t0 + width, t0 - width
        gradient += self._change(
            self._answer(replace(self.problem, t0=up)), self._answer(replace(self.problem, t0=down))
        ).sum(-1) / (up - down)

    def _by_parameters(self, relative_step: float, gradients: StoppingGradients) -> None:
        """Entry by entry; one that the dynamics and the criterion share is moved for both at once."""
        parameters = (*self.problem.dynamics.parameters, *self.problem.criterion.parameters)
        pending = {id(parameter): parameter for parameter in parameters}
        _refuse_overlap(list(pending.values()))
        for parameter, gradient in zip(parameters, (*gradients.dynamics, *gradients.criterion), strict=True):
            if pending.pop(id(parameter), None) is None:
                continue
            values = parameter.detach().clone()
            widths = relative_step * _sizes(values, values.square().mean().sqrt())
            for index in np.ndindex(*values.shape):
                up, down = values[index] + widths[index], values[index] - widths[index]
                change = self._change(self._answer_at(parameter, index, up), self._answer_at(parameter, index, down))
                gradient[index] = change.sum() / (up - down)

    def _answer_at(self, parameter: Tensor, index: tuple[int, ...], value: Tensor) -> tuple[np.ndarray, Tensor]:
        with _moved(parameter, index, value):
            return self._answer(self.problem)

    def _answer(self, problem: StoppingProblem) -> tuple[np.ndarray, Tensor]:
        """T (n, levels) and x(T) (*batch, levels, d) of a moved problem."""
        problem = replace(
            problem,
            initial_slope=problem.field(problem.t0, problem.initial_state),
            initial_value=problem.criterion(problem.t0, problem.initial_state),
        )
        solve = solve_forward(problem, self.solver, self.solve.settings)
        return solve.time, solve.state

    def _change(self, up: tuple[np.ndarray, Tensor], down: tuple[np.ndarray, Tensor]) -> Tensor:
        """Change of the scalar between two answers, split over trajectories and levels (*batch, levels)."""
        usable = self.usable.reshape(up[0].shape).cpu().numpy()
        if not (np.isfinite(up[0][usable]).all() and np.isfinite(down[0][usable]).all()):
            raise RuntimeError(
                "a trajectory that reaches its threshold does not reach it with a moved input, so that there is no "
                "difference to take; try FiniteDifference with a smaller relative_step"
            )
        with np.errstate(invalid="ignore"):
            time = self.problem.levels_to_device(up[0] - down[0])
        total = self.time_cotangent * time + (self.state_cotangent * (up[1] - down[1])).sum(-1)
        return torch.where(self.usable, total, 0.0)


def _sizes(values: Tensor, at_least: Tensor) -> Tensor:
    """Magnitudes to measure steps by: positive, and not below the given ones."""
    sizes = torch.maximum(values.abs(), at_least)
    return torch.where(sizes > 0.0, sizes, 1.0)


def _refuse_overlap(parameters: Sequence[Tensor]) -> None:
    """Raise if moving one entry in place would move another one with it."""
    occupied = []
    for parameter in parameters:
        storage, width = parameter.untyped_storage(), parameter.element_size()
        positions = torch.arange(storage.nbytes() // width)
        entries = positions.as_strided(parameter.shape, parameter.stride(), parameter.storage_offset()).flatten()
        occupied += [storage.data_ptr() + width * entry for entry in entries.tolist()]
    if len(set(occupied)) < len(occupied):
        raise RuntimeError(
            'gradient="finite_difference" moves the entries of the parameters in place, and some of them share their '
            "memory: one is a view of another, or expanded; clone it first"
        )


@contextlib.contextmanager
def _moved(parameter: Tensor, index: tuple[int, ...], value: Tensor) -> Iterator[None]:
    """Give one entry of a parameter another value for a while, unnoticed by autograd."""
    entries = parameter.data
    before = entries[index].clone()
    entries[index] = value
    try:
        yield
    finally:
        entries[index] = before
