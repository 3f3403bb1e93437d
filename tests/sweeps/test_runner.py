"""Running sweeps in this process: what is solved, what is remembered, what becomes of failures."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from odestop.sweeps import CellStatus, ExistingExecutor, FailedCellsWarning, Runner, Store, Sweep
from tests.sweeps.cells import Member, Square, Troublemaker, area, family_work, misbehave, scaled_area

SQUARES = [Square(2.0), Square(3.0), Square(1.0)]


def test_every_cell_becomes_a_row_with_its_fields_and_its_record() -> None:
    table = Runner().run(Sweep("squares", SQUARES, area))
    assert table[["side", "area"]].values.tolist() == [[2.0, 4.0], [3.0, 9.0], [1.0, 1.0]]
    assert list(table.columns) == ["side", "seed", "area", "threads", "seconds"]
    assert (table["seconds"] >= 0).all()


def test_cells_run_on_one_thread_and_the_setting_is_restored() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert Runner().run(Sweep("squares", SQUARES, area))["threads"].tolist() == [1, 1, 1]
        assert Runner(threads=2).run(Sweep("squares", SQUARES, area))["threads"].tolist() == [2, 2, 2]
        with pytest.warns(FailedCellsWarning):
            Runner().run(Sweep("trouble", [Troublemaker("fails")], misbehave))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Counted:
    side: float


CALLS: list[float] = []


def counted(cell: Counted) -> dict[str, float]:
    CALLS.append(cell.side)
    return {"area": cell.side**2}


def test_what_the_store_knows_is_not_solved_again(tmp_path: Path) -> None:
    CALLS.clear()
    cells = [Counted(1.0), Counted(2.0), Counted(1.0)]
    with Store(tmp_path / "s.sqlite") as store:
        first = Runner(store).run(Sweep("counted", cells, counted))
        assert CALLS == [1.0, 2.0]
    with Store(tmp_path / "s.sqlite") as store:
        again = Runner(store).run(Sweep("counted", cells, counted))
        assert CALLS == [1.0, 2.0]
        assert again.equals(first)
        Runner(store).run(Sweep("counted", [*cells, Counted(3.0)], counted))
        assert CALLS == [1.0, 2.0, 3.0]
        Runner(store).run(Sweep("another name", [Counted(1.0)], counted))
        assert CALLS == [1.0, 2.0, 3.0, 1.0]


def test_the_key_depends_on_name_code_bound_arguments_and_parameters() -> None:
    square = SQUARES[0]
    sweeps = [
        Sweep("squares", SQUARES, area),
        Sweep("others", SQUARES, area),
        Sweep("squares", SQUARES, partial(scaled_area, factor=2.0)),
        Sweep("squares", SQUARES, partial(scaled_area, factor=3.0)),
    ]
    keys = [sweep.key(square) for sweep in sweeps]
    assert len(set(keys)) == len(keys)
    assert sweeps[0].key(SQUARES[1]) != keys[0]
    assert Sweep("squares", SQUARES, area).key(square) == keys[0]
    assert sweeps[0].fingerprint != sweeps[2].fingerprint != sweeps[3].fingerprint


def test_the_fingerprint_changes_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "laboratory"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text("FACTOR = 1\n")
    (folder / "cell.py").write_text("def solve(cell):\n    return {}\n")
    from laboratory.cell import solve  # type: ignore[import-not-found]

    before = Sweep("s", [], solve).fingerprint
    assert Sweep("s", [], solve).fingerprint == before
    (folder / "helper.py").write_text("FACTOR = 2\n")
    assert Sweep("s", [], solve).fingerprint != before


def test_failures_are_recorded_and_stop_nobody(tmp_path: Path) -> None:
    kinds = ["fine", "fails", "hangs", "swallows errors and hangs", "returns a list"]
    sweep = Sweep("trouble", [Troublemaker(kind) for kind in kinds], misbehave)
    with Store(tmp_path / "s.sqlite") as store:
        with pytest.warns(FailedCellsWarning, match="4 of 5 cells of trouble have no record; kind='fails': Zero"):
            table = Runner(store, time_limit=0.2).run(sweep)
        assert table[["kind", "kind_length"]].values.tolist() == [["fine", 4]]
        rows = {row.parameters["kind"]: row for row in store.rows("trouble")}
        assert rows["fails"].status is CellStatus.FAILED
        assert rows["fails"].error is not None
        assert "Traceback" in rows["fails"].error
        assert "ZeroDivisionError: on purpose" in rows["fails"].error
        for kind in ("hangs", "swallows errors and hangs"):
            assert rows[kind].status is CellStatus.TIMED_OUT
            assert rows[kind].error == "the cell took longer than 0.2 s"
            assert 0.2 <= rows[kind].seconds < 5
        assert "a record must hold numbers, strings, booleans and None" in (rows["returns a list"].error or "")


def test_failed_cells_are_tried_again_on_request_only(tmp_path: Path) -> None:
    sweep = Sweep("trouble", [Troublemaker("fails"), Troublemaker("fine")], misbehave)
    with Store(tmp_path / "s.sqlite") as store:
        for retry, runs in ((False, 1), (False, 1), (True, 2)):
            with pytest.warns(FailedCellsWarning):
                table = Runner(store, retry=retry).run(sweep)
            assert len(table.attrs["provenance"]) == runs
        assert len(store.rows("trouble")) == 2


def test_a_time_limit_holds_in_other_threads_too() -> None:
    sweep = Sweep("trouble", [Troublemaker("hangs"), Troublemaker("fine"), Troublemaker("hangs")], misbehave)
    with ThreadPoolExecutor(2) as executor, pytest.warns(FailedCellsWarning, match="took longer than"):
        table = Runner(backend=ExistingExecutor(executor, 2), time_limit=0.1).run(sweep)
    assert table["kind"].tolist() == ["fine"]


def test_numbers_that_json_does_not_have_come_back(tmp_path: Path) -> None:
    sweep = Sweep("odd", [Troublemaker("returns what is not finite")], misbehave)
    with Store(tmp_path / "s.sqlite") as store:
        Runner(store).run(sweep)
        row = Runner(store).run(sweep).iloc[0]
    assert math.isnan(row["nan"])
    assert row["inf"] == math.inf
    assert row["none"] is None
    assert row["text"] == "Ω"
    assert row["truth"]
    assert row["count"] == 2**40


def test_groups_stay_together_and_expensive_ones_go_first() -> None:
    order: list[tuple[str, int]] = []

    def note(member: Member) -> dict[str, int]:
        order.append((member.family, member.index))
        return {}

    members = [Member(family, index) for index in (0, 1) for family in ("cheap", "dear")]
    costs = {"cheap": 1.0, "dear": 5.0}
    Runner().run(Sweep("g", members, note, cost=lambda m: costs[m.family], group=lambda m: m.family))
    assert order == [("dear", 0), ("dear", 1), ("cheap", 0), ("cheap", 1)]
    table = Runner().run(Sweep("f", members, family_work, group=lambda m: m.family))
    assert table.groupby("family")["shared"].nunique().tolist() == [1, 1]


def test_progress_shows_cells_and_time() -> None:
    output = StringIO()
    Runner(console=Console(file=output, force_terminal=True, width=100)).run(Sweep("squares", SQUARES, area))
    text = output.getvalue()
    assert "squares" in text
    assert "3/3 cells" in text
    assert "in all" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": [1.0]}, r"cells must hold dataclass instances, got 1\.0"),
        ({"cells": [Square]}, "cells must hold dataclass instances"),
        ({"cells": [Square([1.0])]}, r"numbers, strings, booleans, None or tuples of these, got side=\[1\.0\]"),
        ({"solve": print}, "solve must be a function"),
    ],
)
def test_sweeps_that_cannot_be_run_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep(**({"name": "s", "cells": SQUARES, "solve": area} | arguments))


@pytest.mark.parametrize(("argument", "value"), [("time_limit", 0.0), ("threads", 0)])
def test_runners_that_cannot_run_are_refused(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=argument):
        Runner(**{argument: value})


def test_an_interruption_keeps_what_was_done(tmp_path: Path) -> None:
    def interrupt(cell: Square) -> dict[str, float]:
        if cell.side == 3.0:
            raise KeyboardInterrupt
        return {"area": cell.side**2}

    with Store(tmp_path / "s.sqlite") as store:
        with pytest.raises(KeyboardInterrupt):
            Runner(store).run(Sweep("squares", SQUARES, interrupt))
        assert [row.parameters["side"] for row in store.rows("squares")] == [2.0]
