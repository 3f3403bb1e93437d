"""All that one attempted step computes on the device, as one function: evaluated as it is, or compiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from odestop._compilation import CompiledFunction
from odestop.continuous.problem import StoppingProblem, to_host
from odestop.solvers import OneStepMethod, Step
from odestop.solvers.one_step import StepParts

Array = np.ndarray
Function = Callable[[Tensor, Tensor], Tensor]


class Attempt:
    """A step of size h from (t, x), J at its end, and the norms by which it is accepted or not.

    Compiled, a method with a fixed number of stages is one code, which serves every t, h and x.  A method whose steps
    differ in their stages has F alone compiled.

    Parameters
    ----------
    problem, solver
        F and J, and the method.
    rtol, atol
        Tolerances of the local error.
    compile
        Whether to compile it.
    """

    def __init__(
        self, problem: StoppingProblem, solver: OneStepMethod, rtol: float, atol: float, compile: bool
    ) -> None:
        self._problem = problem
        self._tolerances = rtol, atol
        self._cost: tuple[int, int] | None = None
        self._compiled: CompiledFunction | None = None
        field: Function = problem.field
        if compile and solver.fixed_stages:
            uncounted = attempt_function(problem.field_again, problem.criterion.again, solver)
            self._compiled = CompiledFunction("the step", uncounted)
            # As numbers they would be constants of the code.
            self._inputs = torch.tensor([rtol, atol], dtype=torch.float64).to(problem.initial_state).unbind()
        elif compile:
            field = self._compiled_field()
        self._function = attempt_function(field, problem.criterion, solver)

    def __call__(
        self, t: Tensor, x: Tensor, h: Tensor, slope: Tensor, mark: Tensor, stages: Array
    ) -> tuple[Step, list[Array]]:
        """Take the step, with F(t, x) given.

        Returns
        -------
        tuple[Step, list[Array]]
            The step, and six numbers per trajectory on the host: J at the end; the error relative to the tolerances;
            the norms of the error (of its slope where the step has that), of the slope, of the state at the end, and
            of the distance of that state from ``mark``.
        """
        arguments = (t, x, h, slope, mark, *self._tolerances)
        if self._compiled is None:
            parts, measured = self._function(*arguments, stages)
        elif self._cost is None:
            # As it is, the first one shows what one costs, and whether F and J need grad mode.
            before = self._counts()
            parts, measured = self._function(*arguments, stages)
            self._cost = self._counts()[0] - before[0], self._counts()[1] - before[1]
        else:
            # For the compiler an argument that is another one, as the mark is x after most steps, is a case of its own.
            with torch.no_grad():
                parts, measured = self._compiled(t, x, h, slope, mark.detach(), *self._inputs)
            self._problem.dynamics.evaluations += self._cost[0]
            self._problem.criterion.evaluations += self._cost[1]
        return Step.of_parts(x, h, stages, parts), to_host(*measured)

    def _counts(self) -> tuple[int, int]:
        return self._problem.dynamics.evaluations, self._problem.criterion.evaluations

    def _compiled_field(self) -> Function:
        """F as one compiled function, with its count kept outside."""
        problem = self._problem
        compiled = CompiledFunction("the dynamics", problem.field_again)

        def field(t: Tensor, x: Tensor) -> Tensor:
            problem.dynamics.evaluations += 1
            with torch.no_grad():
                return compiled(t, x)

        return field


def attempt_function(field: Function, criterion: Function, solver: OneStepMethod) -> Callable:
    """Return the attempt as a pure function of tensors, but for the counts that ``field`` and ``criterion`` keep."""

    def attempt(
        t: Tensor,
        x: Tensor,
        h: Tensor,
        slope: Tensor,
        mark: Tensor,
        rtol: Tensor | float,
        atol: Tensor | float,
        stages: Array | None = None,
    ) -> tuple[StepParts, tuple[Tensor, ...]]:
        parts = solver.step_parts(field, t, x, h, slope, stages)
        end, error, slopes, slope_error = parts
        allowed = atol + rtol * torch.maximum(x.abs(), end.abs())
        norm = torch.linalg.vector_norm
        measured = (
            criterion(t + h, end),
            root_mean_square(error / allowed),
            norm(error if slope_error is None else slope_error, dim=-1),
            norm(slopes[-1], dim=-1),
            norm(end, dim=-1),
            norm(end - mark, dim=-1),
        )
        return parts, measured

    return attempt


def root_mean_square(vector: Tensor) -> Tensor:
    """Root of the mean of the squares, over the last dimension."""
    return torch.linalg.vector_norm(vector, dim=-1) / vector.shape[-1] ** 0.5
