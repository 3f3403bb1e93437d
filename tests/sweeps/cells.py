"""Cells and pure functions that worker processes can import."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch


@dataclass(frozen=True)
class Square:
    side: float
    seed: int = 0


@dataclass(frozen=True)
class Troublemaker:
    kind: str


@dataclass(frozen=True)
class Member:
    family: str
    index: int


def area(square: Square) -> dict[str, Any]:
    return {"area": square.side**2, "threads": torch.get_num_threads()}


def slow_area(square: Square, pause: float = 0.005) -> dict[str, Any]:
    time.sleep(pause)
    generator = torch.Generator().manual_seed(square.seed)
    return {"area": square.side**2, "draw": float(torch.rand((), generator=generator))}


def scaled_area(square: Square, factor: float) -> dict[str, Any]:
    return {"area": factor * square.side**2}


def misbehave(cell: Troublemaker) -> dict[str, Any]:
    match cell.kind:
        case "fails":
            raise ZeroDivisionError("on purpose")
        case "hangs":
            while True:
                time.sleep(0.005)
        case "swallows errors and hangs":
            while True:
                try:
                    time.sleep(0.005)
                except Exception:
                    continue
        case "kills its process":
            os._exit(3)
        case "returns a list":
            return {"values": [1, 2]}
        case "returns what is not finite":
            return {"nan": math.nan, "inf": math.inf, "none": None, "text": "Ω", "truth": True, "count": 2**40}
    return {"kind_length": len(cell.kind)}


def family_work(member: Member) -> dict[str, Any]:
    return {"process": os.getpid(), "shared": shared_work(member.family)}


@lru_cache(maxsize=1)
def shared_work(family: str) -> int:
    return time.perf_counter_ns()
