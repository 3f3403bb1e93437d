"""Running a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch

from experiments.grid import Cell, run_cells


@dataclass(frozen=True)
class Square:
    side: int


def area(square: Square) -> dict[str, float]:
    return {"area": square.side**2, "threads": torch.get_num_threads()}


def test_every_cell_becomes_a_row_with_its_fields_and_its_record() -> None:
    table = run_cells("squares", [Square(2), Square(3)], area)
    assert table[["side", "area"]].values.tolist() == [[2, 4], [3, 9]]
    assert (table["seconds"] >= 0).all()


def test_the_tracker_gets_the_costs_and_passes_the_cells_on() -> None:
    seen: list[object] = []

    def track(name: str, cells: Sequence[Cell], costs: Sequence[float]) -> Iterator[Cell]:
        seen.extend([name, list(costs)])
        yield from cells

    table = run_cells("squares", [Square(2), Square(3)], area, track, cost=lambda square: 10.0 * square.side)
    assert seen == ["squares", [20.0, 30.0]]
    assert len(table) == 2


def test_cells_run_on_one_thread_and_the_setting_is_restored() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert run_cells("squares", [Square(1)], area)["threads"].tolist() == [1]
        with pytest.raises(ZeroDivisionError):
            run_cells("squares", [Square(0)], lambda square: {"inverse": 1 / square.side})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
