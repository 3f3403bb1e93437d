"""Where cells run: in this process, in a pool of processes, on a Dask cluster, or on any executor of the user's own."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any, Protocol, runtime_checkable

from odestop._validation import check_count


@runtime_checkable
class Backend(Protocol):
    """Opens an executor."""

    def open(self) -> AbstractContextManager[tuple[Executor, int]]:
        """Return an executor and how many jobs it can run at the same time; it is closed on leaving the context."""
        ...


@dataclass(frozen=True)
class InProcess:
    """One cell after the other, in this process."""

    @contextmanager
    def open(self) -> Iterator[tuple[Executor, int]]:
        """Return an executor that runs a job as it is submitted."""
        yield _ImmediateExecutor(), 1


@dataclass(frozen=True)
class ProcessPool:
    """Processes of this machine.

    Parameters
    ----------
    workers
        Number of processes; by default one per processor that this process may use.

    Raises
    ------
    ValueError
        If it is not a positive integer.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_count("workers", self.workers)

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.workers or usable_processors()

    @contextmanager
    def open(self) -> Iterator[tuple[Executor, int]]:
        """Start the processes.

        They are not forks of this one: a fork of a process whose libraries have started threads can hang.
        """
        context = _process_context()
        with ProcessPoolExecutor(self.size, mp_context=context, initializer=_end_with_parent) as executor:
            try:
                yield executor, self.size
            except BaseException:
                # Whoever interrupts does not want to wait for the cells in flight.
                for process in list((executor._processes or {}).values()):
                    process.terminate()
                executor.shutdown(wait=False, cancel_futures=True)
                raise


@dataclass(frozen=True)
class DaskCluster:
    """A Dask cluster, through the executor of its client; needs ``odestop[cluster]``.

    Its workers must be able to import ``odestop`` and the module of the function that solves a cell.

    Parameters
    ----------
    address
        Of the scheduler, such as ``"tcp://127.0.0.1:8786"``.
    """

    address: str

    @contextmanager
    def open(self) -> Iterator[tuple[Executor, int]]:
        """Connect to the scheduler.

        Raises
        ------
        ModuleNotFoundError
            Without the package ``distributed``.
        ValueError
            If the scheduler does not answer, or has no workers.
        """
        from distributed import Client

        try:
            client = Client(self.address, timeout=20)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"cluster must be the address of a Dask scheduler, got {self.address!r}: {error}"
            ) from error
        with client:
            threads = sum(client.nthreads().values())
            if not threads:
                raise ValueError(f"cluster must have workers, got {self.address!r} without any")
            with client.get_executor(pure=False, retries=0) as executor:
                yield executor, threads


@dataclass(frozen=True)
class ExistingExecutor:
    """An executor that is open already, and stays so.

    Parameters
    ----------
    executor
        Any `concurrent.futures.Executor`.
    slots
        How many jobs it can run at the same time.

    Raises
    ------
    ValueError
        If ``slots`` is not a positive integer.
    """

    executor: Executor
    slots: int = 1

    def __post_init__(self) -> None:
        check_count("slots", self.slots)

    def open(self) -> AbstractContextManager[tuple[Executor, int]]:
        """Return the executor."""
        return nullcontext((self.executor, self.slots))


def usable_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _process_context() -> BaseContext:
    """Return a way to start processes that import PyTorch once for all of them, where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["odestop.sweeps.jobs"])
    return context


class _ImmediateExecutor(Executor):
    """Runs a job in the call of `submit`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed; it would wait for ever for the next job."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
