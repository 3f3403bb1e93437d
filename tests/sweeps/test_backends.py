"""Other processes: the same table everywhere, workers that die, parents that are killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from odestop.sweeps import DaskCluster, ExistingExecutor, FailedCellsWarning, ProcessPool, Runner, Store, Sweep
from odestop.sweeps.backends import usable_processors
from tests.sweeps.cells import Member, Square, Troublemaker, family_work, misbehave, slow_area

CELLS = [Square(float(side), seed) for side in range(8) for seed in range(2)]
ROOT = Path(__file__).resolve().parents[2]


def test_a_pool_and_a_cluster_give_the_table_of_one_process() -> None:
    from distributed import LocalCluster

    sweep = Sweep("squares", CELLS, slow_area)
    expected = Runner().run(sweep).drop(columns="seconds")
    pool = Runner(backend=ProcessPool(2)).run(sweep).drop(columns="seconds")
    assert pool.equals(expected)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        dask = Runner(backend=DaskCluster(cluster.scheduler_address)).run(sweep).drop(columns="seconds")
    assert dask.equals(expected)


def test_the_worker_that_dies_is_found_and_the_others_are_solved() -> None:
    kinds = ["one", "two", "kills its process", "four", "fails", "six"]
    cells = [Troublemaker(kind) for kind in kinds]
    with Store() as store:
        with pytest.warns(FailedCellsWarning, match="2 of 6"):
            table = Runner(store, ProcessPool(2)).run(
                Sweep("trouble", cells, misbehave, group=lambda c: len(c.kind) > 3)
            )
        assert table["kind"].tolist() == ["one", "two", "four", "six"]
        errors = {row.parameters["kind"]: row.error for row in store.rows("trouble") if row.error}
    assert errors["kills its process"] == "the process that solved this cell died"
    assert "ZeroDivisionError" in errors["fails"]


def test_functions_that_other_processes_cannot_find_are_reported() -> None:
    def local(cell: Square) -> dict[str, float]:
        return {}

    with pytest.warns(FailedCellsWarning, match="local"):
        assert Runner(backend=ProcessPool(1)).run(Sweep("local", CELLS[:2], local)).empty


def test_sweeps_whose_times_are_results_stay_in_this_process() -> None:
    members = [Member("a", 0), Member("b", 1)]
    table = Runner(backend=ProcessPool(2)).run(Sweep("timed", members, family_work, alone=True))
    assert set(table["process"]) == {os.getpid()}


KILLED = """
from odestop.sweeps import ProcessPool, Runner, Store, Sweep
from tests.sweeps.cells import Square, slow_area
from functools import partial

if __name__ == "__main__":
    cells = [Square(float(side), seed) for side in range(200) for seed in range(2)]
    with Store({path!r}) as store:
        Runner(store, ProcessPool(2)).run(Sweep("squares", cells, partial(slow_area, pause=0.05)))
"""


def test_workers_end_when_the_sweep_is_killed_and_the_store_keeps_what_was_done(tmp_path: Path) -> None:
    path, script = tmp_path / "s.sqlite", tmp_path / "killed.py"
    script.write_text(KILLED.format(path=str(path)))
    process = subprocess.Popen([sys.executable, script], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if path.is_file():
            with Store(path) as store:
                if store.rows("squares"):
                    break
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert children
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    with Store(path) as store:
        assert 0 < len(store.rows("squares")) < 400


@pytest.mark.parametrize("make", [lambda: ProcessPool(0), lambda: ProcessPool(-1)])
def test_pools_without_workers_are_refused(make) -> None:
    with pytest.raises(ValueError, match="workers must be an integer of at least 1"):
        make()


def test_executors_without_slots_are_refused() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="slots"):
        ExistingExecutor(executor, 0)


def test_clusters_that_do_not_answer_are_refused() -> None:
    sweep = Sweep("squares", CELLS, slow_area)
    with pytest.raises(ValueError, match=r"cluster must be the address of a Dask scheduler, got 'nonsense"):
        Runner(backend=DaskCluster("nonsense://nowhere")).run(sweep)


def test_a_pool_is_as_large_as_the_machine() -> None:
    assert ProcessPool().size == usable_processors() <= (os.cpu_count() or 1)
    assert ProcessPool(3).size == 3
