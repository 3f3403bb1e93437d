"""Which iterates of a run stay in memory for Algorithm 1, and how the others come back.

Algorithm 1 reads x_{N-1}, …, x_0 in falling order.  A record of a run keeps only some of these iterates, and steps
again from the nearest one below when another is read.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from odestop._validation import check_count

Retrace = Callable[[int, Tensor], Tensor]
"""``(k, x_k) -> x_{k+1}``, with the same bits as in the forward run."""


class Checkpoints(ABC):
    """How many iterates a run may keep; the base of `EverySteps`, `SquareRoot` and `MemoryBudget`.

    N is not known in advance, so iterates are kept at a spacing s, x_0, x_s, x_{2s}, …, and whenever there are too
    many of them, every second one is dropped and s doubles.
    """

    spacing: int = 1
    """s at the start of the run."""

    @abstractmethod
    def limit(self, spacing: int, state_bytes: int) -> float | int:
        """Return the number of iterates at which a spacing must double."""

    @abstractmethod
    def slots(self, spacing: int, kept: int, state_bytes: int) -> int:
        """Return how many more iterates may be held while those between two kept ones are read."""

    def settled(self, spacing: int, length: int, state_bytes: int) -> int:
        """Return the spacing to read x_0, …, x_{length-1} with, now that N is known: s, or s times a power of two."""
        return spacing


@dataclass(frozen=True)
class EverySteps(Checkpoints):
    """Keep every m-th iterate: ``checkpoints=m``; m = 1, or ``checkpoints="all"``, keeps all of them.

    Memory: ⌈N/m⌉ + min(m, N) - 1 states.  Recomputed: N - ⌈N/m⌉ steps per backward pass.

    Parameters
    ----------
    spacing
        m >= 1.
    """

    spacing: int = 1

    def __post_init__(self) -> None:
        check_count("checkpoints", self.spacing)

    def limit(self, spacing: int, state_bytes: int) -> float | int:
        """Return infinity: the spacing stays."""
        return math.inf

    def slots(self, spacing: int, kept: int, state_bytes: int) -> int:
        """Return enough for a whole segment."""
        return spacing - 1


@dataclass(frozen=True)
class SquareRoot(Checkpoints):
    """Keep about every √N-th iterate: ``checkpoints="sqrt"``.

    The spacing s is the least power of two with N <= 2 s², so that √(N/2) <= s < √(2N).  Memory: ⌈N/s⌉ + min(s, N) - 1
    states, at most 2.13 √N.  Recomputed: N - ⌈N/s⌉ steps per backward pass.
    """

    def limit(self, spacing: int, state_bytes: int) -> float | int:
        """Return 2 s."""
        return 2 * spacing

    def slots(self, spacing: int, kept: int, state_bytes: int) -> int:
        """Return enough for a whole segment."""
        return spacing - 1


@dataclass(frozen=True)
class MemoryBudget(Checkpoints):
    """Keep as many iterates as fit, and step again for the others as rarely as possible.

    With c states in the budget and N > c, K <= c - 1 iterates are kept at a spacing s, and those between two of them
    are read by the binomial schedule (Griewank and Walther 2000, "Algorithm 799: revolve") with the other c - K slots.
    Memory: min(N, c) states.  Recomputed: (K - 1) R(s - 1) + R(N - 1 - (K - 1) s) steps per backward pass, with R(n) =
    r (n + 1) - C(c - K + r, c - K + 1) for the least r with C(c - K + r, r) > n; of the spacings that thinning can
    reach, the one that makes this smallest.

    Parameters
    ----------
    bytes
        Memory of the stored states, at least two of them.  The run holds a few more states beside them: those between
        which it steps, and the graph of one step.

    Raises
    ------
    ValueError
        If the budget is not a positive integer; at the start of a run, if it does not hold two of its states.

    Examples
    --------
    >>> import torch
    >>> from odestop.discrete import Euler, discrete_stopping_time
    >>> x0 = torch.ones(1000, dtype=torch.float64, requires_grad=True)
    >>> solution = discrete_stopping_time(
    ...     Euler(lambda t, x: -x, 0.01), x0, lambda x: x.mean(-1), 0.1, checkpoints=MemoryBudget(80_000)
    ... )
    >>> solution.steps.backward()
    >>> int(solution.steps), solution.stats.peak_bytes, solution.stats.recomputed_steps
    (230, 80000, 546)
    """

    bytes: int

    def __post_init__(self) -> None:
        check_count("bytes", self.bytes)

    def limit(self, spacing: int, state_bytes: int) -> float | int:
        """Return c, the number of states in the budget."""
        capacity = self.bytes // state_bytes
        if capacity < 2:
            raise ValueError(
                f"checkpoints must hold at least two states of {state_bytes} bytes, MemoryBudget({2 * state_bytes}), "
                f"got {self}"
            )
        return capacity

    def slots(self, spacing: int, kept: int, state_bytes: int) -> int:
        """Return what is left of the budget."""
        return self.bytes // state_bytes - kept

    def settled(self, spacing: int, length: int, state_bytes: int) -> int:
        """Return the spacing that costs the fewest steps."""
        spacings = [spacing]
        while spacings[-1] < length:
            spacings.append(2 * spacings[-1])

        def cost(spacing: int) -> float | int:
            kept = math.ceil(length / spacing)
            free = self.slots(spacing, kept, state_bytes)
            return (kept - 1) * binomial_cost(spacing - 1, free) + binomial_cost(
                length - 1 - (kept - 1) * spacing, free
            )

        return min(spacings, key=cost)


def resolve_checkpoints(checkpoints: str | int | Checkpoints) -> Checkpoints:
    """Return the schedule behind ``"all"``, ``"sqrt"`` or m; an object passes through."""
    if isinstance(checkpoints, Checkpoints):
        return checkpoints
    if isinstance(checkpoints, int):
        return EverySteps(checkpoints)
    if checkpoints == "all":
        return EverySteps(1)
    if checkpoints == "sqrt":
        return SquareRoot()
    raise ValueError(
        "checkpoints must be 'all', 'sqrt', an integer m to keep every m-th iterate, or an object such as "
        f"MemoryBudget(bytes), got {checkpoints!r}"
    )


def binomial_cost(length: int, slots: int) -> float | int:
    """Return the fewest steps from x_0 that read x_n, …, x_1 once each, holding x_0 and ``slots`` more states.

    Examples
    --------
    >>> binomial_cost(10, 10), binomial_cost(10, 3), binomial_cost(10, 1)
    (10, 18, 55)
    """
    if length == 0:
        return 0
    if slots < 1:
        return math.inf
    repeats = _repeats(length, slots)
    return repeats * (length + 1) - math.comb(slots + repeats, slots + 1)


def binomial_stride(length: int, slots: int) -> int:
    """Return where between 1 and n to keep the next state on the way to x_n, for the cost of `binomial_cost`.

    Examples
    --------
    >>> binomial_stride(10, 10), binomial_stride(10, 3), binomial_stride(10, 1)
    (1, 5, 10)
    """
    repeats = _repeats(length, slots)
    # Below the new state r - 1 repeats must do; above it, with one slot fewer, r - 1 would not.
    return min(math.comb(slots + repeats - 1, slots), length + 1 - math.comb(slots + repeats - 2, slots - 1))


def _repeats(length: int, slots: int) -> int:
    """Return the least r such that no step need be taken more than r times: C(slots + r, r) > length."""
    repeats = 1
    while math.comb(slots + repeats, repeats) <= length:
        repeats += 1
    return repeats


@runtime_checkable
class Trajectory(Protocol):
    """x_0, …, x_{N-1}: a list, or a record of a run that computes some of them when they are read."""

    def __len__(self) -> int: ...

    def __getitem__(self, k: int, /) -> Tensor: ...


class Record(ABC):
    """x_0, …, x_{N-1} of a run, as far as its gradient needs them; a `Trajectory`.

    Attributes
    ----------
    peak_bytes
        Most bytes of states held at one time so far.
    recomputed_steps
        Steps taken again so far.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self.recomputed_steps = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @abstractmethod
    def __getitem__(self, k: int, /) -> Tensor: ...

    @abstractmethod
    def append(self, state: Float[Tensor, "*batch m"], running: Bool[Tensor, "*batch"] | None) -> None:
        """Record x_k for k = 0, 1, …; trajectories that are not ``running`` stand still; None if all run."""

    @abstractmethod
    def finish(self, length: int, retrace: Retrace) -> None:
        """End the record at x_{length-1}; ``retrace`` is how to step again."""

    def _measure(self, states: int, state_bytes: int) -> None:
        self.peak_bytes = max(self.peak_bytes, states * state_bytes)


class CheckpointedRecord(Record):
    """Keeps iterates as a schedule says, and retraces the others, each time from the nearest one below.

    ``_kept`` are those of the forward run, at multiples of the spacing; they stay, so that a second backward pass
    costs what the first did.  ``_between`` is a stack of states in one segment between two of them.
    """

    def __init__(self, schedule: Checkpoints) -> None:
        super().__init__()
        self._schedule = schedule
        self._spacing = schedule.spacing
        self._kept: list[Tensor] = []
        self._between: list[tuple[int, Tensor]] = []
        self._slots = 0
        self._retrace: Retrace | None = None

    def append(self, state: Float[Tensor, "*batch m"], running: Bool[Tensor, "*batch"] | None) -> None:
        """Keep the state if it is due, making room where there are too many."""
        due = self._length % self._spacing == 0
        if due and len(self._kept) >= self._schedule.limit(self._spacing, _bytes(state)):
            self._thin_to(2 * self._spacing)
            due = self._length % self._spacing == 0
        if due:
            self._kept.append(state)
        self._length += 1

    def finish(self, length: int, retrace: Retrace) -> None:
        """Forget the iterates from x_length on, and choose the spacing to read the others with."""
        self._length, self._retrace = length, retrace
        if self._kept:
            state_bytes = _bytes(self._kept[0])
            self._thin_to(self._schedule.settled(self._spacing, length, state_bytes))
            del self._kept[math.ceil(length / self._spacing) :]
            self._slots = self._schedule.slots(self._spacing, len(self._kept), state_bytes)

    def __getitem__(self, k: int, /) -> Tensor:
        """Return x_k; cheapest in falling order."""
        k = range(self._length)[k]
        segment, offset = divmod(k, self._spacing)
        while self._between and not k - offset < self._between[-1][0] <= k:
            self._between.pop()
        if offset == 0:
            return self._kept[segment]
        position, state = self._between[-1] if self._between else (k - offset, self._kept[segment])
        if position < k and len(self._between) == self._slots:
            # Only when read out of order: x_k takes the place of the state that it is computed from.
            self._between.pop()
        while position < k:
            stop = position + binomial_stride(k - position, self._slots - len(self._between))
            state = self._advance(position, state, stop)
            position = stop
            self._between.append((position, state))
            self._measure(len(self._kept) + len(self._between), _bytes(state))
        return state

    def _advance(self, start: int, state: Tensor, stop: int) -> Tensor:
        assert self._retrace is not None, "a record is read after it is finished"
        for k in range(start, stop):
            state = self._retrace(k, state)
        self.recomputed_steps += stop - start
        return state

    def _thin_to(self, spacing: int) -> None:
        self._measure(len(self._kept), _bytes(self._kept[0]))
        self._kept = self._kept[:: spacing // self._spacing]
        self._spacing = spacing


class RecentRecord(Record):
    """The last m iterates of each trajectory before its own stop, for a truncated backward pass.

    Memory: min(m, N) states.  Reading x_k gives some finite state where k is not among a trajectory's last m.

    Parameters
    ----------
    steps
        m >= 1.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps
        self._ring: list[Tensor] = []

    def append(self, state: Float[Tensor, "*batch m"], running: Bool[Tensor, "*batch"] | None) -> None:
        """Overwrite x_{k-m} by x_k, but not for the trajectories that have stopped."""
        slot = self._length % self._steps
        self._length += 1
        if slot == len(self._ring):
            self._ring.append(state)
            self._measure(len(self._ring), _bytes(state))
        elif running is None:
            self._ring[slot] = state
        else:
            self._ring[slot] = torch.where(running.unsqueeze(-1), state, self._ring[slot])

    def finish(self, length: int, retrace: Retrace) -> None:
        """End the record; nothing is ever retraced."""
        self._length = length

    def __getitem__(self, k: int, /) -> Tensor:
        """Return x_k of the trajectories that have it among their last m."""
        return self._ring[range(self._length)[k] % self._steps]


def _bytes(state: Tensor) -> int:
    return state.numel() * state.element_size()
