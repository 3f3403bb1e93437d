"""Time as the benchmark takes it: processor time on the CPU, and on CUDA the clock's, once all kernels are done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

Result = TypeVar("Result")


@dataclass(frozen=True)
class Unit:
    """What tables and figures count time in."""

    name: str
    symbol: str
    seconds: float


SECONDS, MILLISECONDS = Unit("seconds", "s", 1.0), Unit("milliseconds", "ms", 1e-3)


def unit_on(device: str) -> Unit:
    """Return seconds for the CPU and milliseconds for CUDA."""
    return SECONDS if device == "cpu" else MILLISECONDS


def timed(call: Callable[[], Result], device: str) -> tuple[Result, float]:
    """Call, and return the result and the seconds it took.

    Processor time is what a busy machine lengthens least, but it does not see a GPU work.

    Examples
    --------
    >>> result, seconds = timed(lambda: sum(range(1000)), "cpu")
    >>> result, seconds >= 0.0
    (499500, True)
    """
    now = time.process_time if device == "cpu" else _clock_of_gpu
    start = now()
    result = call()
    return result, now() - start


def _clock_of_gpu() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()
