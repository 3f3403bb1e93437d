"""Stabilised explicit Runge-Kutta methods: many stages for a long stability interval, as many as a step needs.

The real stability interval of s stages grows like s², so that a step of size h on a flow of spectral radius ρ costs
about √(hρ) evaluations where an ordinary explicit method would take hρ/β steps.  Made for dissipative flows: the
eigenvalues of ∂F/∂x have to lie near the negative real axis.
"""

from __future__ import annotations

import functools
import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from odestop.solvers.one_step import Field, OneStepMethod, Segment, StepParts
from odestop.solvers.stabilised_coefficients import (
    StageCoefficients,
    rkc2_coefficients,
    rkc2_counts_and_limits,
    rock4_coefficients,
    rock4_counts_and_limits,
)
from odestop.solvers.stage_adjoints import Coefficient, RecurrenceAdjoint, finishing_stages, plus, scaled

Array = np.ndarray
Carry = tuple[Tensor, ...]

_IDLE = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0)
_SMALLEST_SEGMENT = 8


@dataclass(frozen=True)
class StabilisedRungeKutta(OneStepMethod):
    """Explicit Runge-Kutta method whose number of stages follows from hρ, for each step and each trajectory.

    One evaluation covers a whole batch: a step of a batch costs as many as its trajectory with the most stages.  The
    others sit still until it has as many left as they take, so that no trajectory depends on its company.

    Parameters
    ----------
    controller
        Proportional-integral step-size controller.
    stability_fraction
        s is the smallest number of stages whose stability limit ℓ has hρ ≤ ``stability_fraction`` ℓ.  ρ comes from
        power iteration, which approaches it from below: keep a reserve.
    """

    stability_fraction: float = 0.9
    _with_start: ClassVar[bool]

    def __post_init__(self) -> None:
        if not 0.0 < self.stability_fraction <= 1.0:
            raise ValueError(f"stability_fraction must lie in (0, 1], got {self.stability_fraction!r}")

    @abstractmethod
    def counts_and_limits(self) -> tuple[Array, Array]:
        """Numbers of stages that there are, increasing, and ℓ for each of them."""

    @abstractmethod
    def coefficients(self, stages: int) -> StageCoefficients:
        """Coefficients of a step with this number of stages."""

    @abstractmethod
    def _opened(self, x: Tensor, slope: Tensor) -> Carry:
        """What the stages hand on, before the first one: the slope first, the state last."""

    @abstractmethod
    def _with_stage(self, row: Sequence[Coefficient], h: Tensor, slope: Tensor, carry: Carry) -> Carry:
        """What is handed on after one stage of the recurrence, given the slope at the stage before."""

    @abstractmethod
    def _finished(
        self, field: Field, t: Tensor, h: Tensor, finish: Sequence[Coefficient], carry: Carry
    ) -> tuple[Tensor, list[Tensor]]:
        """x_1, and the slopes that the error estimate needs."""

    @abstractmethod
    def _error(self, h: Tensor, finish: Sequence[Coefficient], ends: Sequence[Tensor], slopes: list[Tensor]) -> Tensor:
        """Error estimate; ``ends`` are x, x_1 and the slopes there, ``slopes`` those of `_finished`."""

    @property
    def stability_limit(self) -> float:
        """ℓ of the most stages."""
        return float(self.counts_and_limits()[1][-1])

    @property
    def fewest_stages(self) -> int:
        """Stages of the cheapest step."""
        return int(self.counts_and_limits()[0][0])

    @property
    def fixed_stages(self) -> bool:
        """Whether all steps have the same number of stages."""
        return False

    def stages_for(self, step_size: Array, radius: Array) -> Array:
        """Fewest stages for which the step is stable, shape (n,); the most that there are where none suffice."""
        counts, limits = self.counts_and_limits()
        needed = np.searchsorted(self.stability_fraction * limits, (1.0 - 1e-9) * step_size * radius)
        return counts[np.minimum(needed, len(counts) - 1)]

    def advance(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        x: Float[Tensor, "*batch d"],
        step_size: Float[Tensor, "*batch"],
        first_slope: Float[Tensor, "*batch d"] | None = None,
        stages: Array | int | None = None,
    ) -> tuple[Float[Tensor, "*batch d"], list[Tensor]]:
        """x_1 and the first slope, with as many ``stages`` as said; differentiable in everything but them.

        Raises
        ------
        ValueError
            If ``stages`` is missing, or not among the numbers of stages that there are.
        """
        slope = field(t, x) if first_slope is None else first_slope
        rows, finish = self._coefficient_rows(stages, t)
        carry = self._through(range(len(rows)), field, t, step_size, rows, self._opened(x, slope))
        return self._finished(field, t, step_size, finish, carry)[0], [slope]

    def step_parts(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        x: Float[Tensor, "*batch d"],
        step_size: Float[Tensor, "*batch"],
        first_slope: Float[Tensor, "*batch d"],
        stages: Array | int | None = None,
    ) -> StepParts:
        """What a step computes, with the slopes at its end and at the end less the error."""
        rows, finish = self._coefficient_rows(stages, t)
        carry = self._through(range(len(rows)), field, t, step_size, rows, self._opened(x, first_slope))
        end, slopes = self._finished(field, t, step_size, finish, carry)
        end_slope = field(t + step_size, end)
        error = self._error(step_size.unsqueeze(-1), finish, (x, end, first_slope, end_slope), slopes)
        slope_error = end_slope - field(t + step_size, end - error)
        return end, error, (first_slope, end_slope), slope_error

    def segments(
        self,
        field: Field,
        t: Float[Tensor, "*batch"],
        step_size: Float[Tensor, "*batch"],
        stages: Array | int | None = None,
    ) -> list[Segment]:
        """`advance` in about √s parts of √s stages."""
        rows, finish = self._coefficient_rows(stages, t)
        count = max(1, len(rows) // max(_SMALLEST_SEGMENT, math.isqrt(len(rows))))
        bounds = [len(rows) * part // count for part in range(count + 1)]
        pieces = [range(first, stop) for first, stop in itertools.pairwise(bounds)]

        def segment(piece: range, carry: Carry) -> Carry:
            if piece.start == 0:
                (x,) = carry
                carry = self._opened(x, field(t, x))
            carry = self._through(piece, field, t, step_size, rows, carry)
            if piece.stop == len(rows):
                carry = (self._finished(field, t, step_size, finish, carry)[0],)
            return carry

        return [functools.partial(segment, piece) for piece in pieces]

    def adjoint(self, stages: Array, like: Float[Tensor, "*batch d"]) -> RecurrenceAdjoint:
        """The adjoint of a step with these numbers of stages."""
        rows, finish = self._coefficient_rows(stages, like[..., 0])
        return RecurrenceAdjoint(rows, finish, with_start=self._with_start)

    def _through(self, piece: range, field: Field, t: Tensor, step_size: Tensor, rows: Sequence, carry: Carry) -> Carry:
        """The stages of ``piece``; the slope for the first of all is in the carry already."""
        h = step_size.unsqueeze(-1)
        for index in piece:
            node, *row = rows[index]
            slope = carry[0] if index == 0 else field(_ahead(t, node, step_size), carry[-1])
            carry = self._with_stage(row, h, slope, carry)
        return carry

    def _checked(self, stages: Array | int | None) -> Array:
        known = self.counts_and_limits()[0]
        if stages is not None:
            counts = np.atleast_1d(stages)
            nearest = known[np.minimum(np.searchsorted(known, counts), len(known) - 1)]
            if np.array_equal(nearest, counts):
                return nearest
        raise ValueError(f"stages must be among {known.tolist()}, got {stages!r}")

    def _coefficient_rows(self, stages: Array | int | None, t: Tensor) -> tuple[list, list]:
        """Coefficients of the recurrence and of the finish: numbers, or tensors (*batch,) where trajectories differ."""
        counts = self._checked(stages)
        kinds = np.unique(counts)
        if kinds.size <= 1:
            own = self.coefficients(int(kinds[0]) if kinds.size else self.fewest_stages)
            return own.recurrence.tolist(), own.finish.tolist()
        most = len(self.coefficients(int(kinds[-1])).recurrence)
        padded = {s: _padded(self.coefficients(s), most) for s in kinds.tolist()}
        stacked = (np.stack([padded[s][part] for s in counts.tolist()], axis=-1) for part in (0, 1))
        recurrence, finish = (torch.from_numpy(array).to(t) for array in stacked)
        rows = recurrence.reshape(*recurrence.shape[:2], *t.shape).unbind()
        return [row.unbind() for row in rows], list(finish.reshape(-1, *t.shape).unbind())


def _padded(own: StageCoefficients, most: int) -> tuple[Array, Array]:
    """Coefficients with stages that change nothing before the first."""
    idle = np.tile(np.array(_IDLE), (most - len(own.recurrence), 1))
    return np.concatenate([idle, own.recurrence]), own.finish


@dataclass(frozen=True)
class ROCK4(StabilisedRungeKutta):
    """Orthogonal-Runge-Kutta-Chebyshev method of order 4 with 5 to 244 stages, ℓ ≈ 0.34 s².  Alias ``"rock4"``.

    For stiff dissipative flows, that is for long solves of ill-conditioned problems: the evaluations grow like the
    square root of the stiffness (T - t0)ρ.  It is built as the method of Abdulle (2002) is, with coefficients of its
    own (see `odestop.solvers.stability_polynomials`): |R| ≤ 0.8 on the stability interval, where the original has 0.95,
    so that stiff modes are gone in a few steps, which the gradient of T profits from; and an embedded solution of order
    3 whose distance is bounded on the whole interval.  The last stages evaluate F up to 5 % of the step beyond its end.

    Examples
    --------
    >>> import torch, odestop
    >>> rates = torch.tensor([1.0, 3000.0], dtype=torch.float64)
    >>> solution = odestop.continuous_stopping_time(
    ...     lambda t, x: -rates * x,
    ...     torch.ones(2, dtype=torch.float64),
    ...     lambda x: x[..., 0],
    ...     0.1,
    ...     method="rock4",
    ... )
    >>> round(solution.time.item(), 6)  # ln(10)
    2.302585
    """

    _with_start = False

    @property
    def order(self) -> int:
        """Order of the solution that is propagated."""
        return 4

    @property
    def error_order(self) -> int:
        """Order of the embedded solution."""
        return 3

    def counts_and_limits(self) -> tuple[Array, Array]:
        """Numbers of stages that there are, increasing, and ℓ for each of them."""
        return rock4_counts_and_limits()

    def coefficients(self, stages: int) -> StageCoefficients:
        """Coefficients of a step with this number of stages."""
        return rock4_coefficients(stages)

    def _opened(self, x: Tensor, slope: Tensor) -> Carry:
        return slope, x, x

    def _with_stage(self, row: Sequence[Coefficient], h: Tensor, slope: Tensor, carry: Carry) -> Carry:
        _, before, last = carry
        keep, previous, rate, *_ = row
        settled = plus(scaled(keep, last), previous, before)
        return slope, last, torch.addcmul(settled, scaled(rate, h), slope)

    def _finished(
        self, field: Field, t: Tensor, h: Tensor, finish: Sequence[Coefficient], carry: Carry
    ) -> tuple[Tensor, list[Tensor]]:
        last_slope, _, start = carry
        nodes, matrix, weights = finishing_stages(finish)
        wide = h.unsqueeze(-1)
        slopes: list[Tensor] = []
        for node, row in zip(nodes, matrix, strict=True):
            stage = torch.addcmul(start, wide, _combined(row, slopes)) if slopes else start
            slopes.append(field(_ahead(t, node, h), stage))
        return torch.addcmul(start, wide, _combined(weights, slopes)), [last_slope, *slopes]

    def _error(self, h: Tensor, finish: Sequence[Coefficient], ends: Sequence[Tensor], slopes: list[Tensor]) -> Tensor:
        return h * _combined(finish[14:], slopes)


@dataclass(frozen=True)
class RKC2(StabilisedRungeKutta):
    """Runge-Kutta-Chebyshev method of order 2 with 2 to 250 stages, ℓ ≈ 0.65 s².  Alias ``"rkc2"``.

    The method of Sommeijer, Shampine & Verwer (1998), with their damping 2/13 and their error estimate.  Simple, and
    cheap where a few digits are enough; for the gradient of T take `ROCK4`.

    Examples
    --------
    >>> import odestop
    >>> method = odestop.solvers.RKC2()
    >>> method.order, method.fewest_stages, round(method.stability_limit / 250**2, 2)
    (2, 2, 0.65)
    """

    _with_start = True

    @property
    def order(self) -> int:
        """Order of the solution that is propagated."""
        return 2

    @property
    def error_order(self) -> int:
        """Order up to which the error estimate vanishes."""
        return 2

    def counts_and_limits(self) -> tuple[Array, Array]:
        """Numbers of stages that there are, increasing, and ℓ for each of them."""
        return rkc2_counts_and_limits()

    def coefficients(self, stages: int) -> StageCoefficients:
        """Coefficients of a step with this number of stages."""
        return rkc2_coefficients(stages)

    def _opened(self, x: Tensor, slope: Tensor) -> Carry:
        return slope, x, x, x

    def _with_stage(self, row: Sequence[Coefficient], h: Tensor, slope: Tensor, carry: Carry) -> Carry:
        first_slope, start, before, last = carry
        keep, previous, rate, origin, first_rate = row
        settled = plus(plus(scaled(keep, last), previous, before), origin, start)
        slopes = plus(scaled(rate, slope), first_rate, first_slope)
        return first_slope, start, last, torch.addcmul(settled, h, slopes)

    def _finished(
        self, field: Field, t: Tensor, h: Tensor, finish: Sequence[Coefficient], carry: Carry
    ) -> tuple[Tensor, list[Tensor]]:
        return carry[-1], []

    def _error(self, h: Tensor, finish: Sequence[Coefficient], ends: Sequence[Tensor], slopes: list[Tensor]) -> Tensor:
        start, end, first_slope, end_slope = ends
        return 0.8 * (start - end) + 0.4 * h * (first_slope + end_slope)


def _combined(coefficients: Sequence[Coefficient], slopes: Sequence[Tensor]) -> Tensor:
    """Σ c_i k_i of at least one slope."""
    total = scaled(coefficients[0], slopes[0])
    for coefficient, slope in zip(coefficients[1:], slopes[1:], strict=True):
        total = plus(total, coefficient, slope)
    return total


def _ahead(t: Tensor, node: Coefficient, h: Tensor) -> Tensor:
    """Time t + τh, shape (*batch,)."""
    return torch.addcmul(t, node, h) if isinstance(node, Tensor) else torch.add(t, h, alpha=node)
