"""Progress of a sweep on a console: cells done, cells per second, the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Advance = Callable[[int, float], None]
"""Takes a number of cells that were done, and their expected cost."""


@contextmanager
def progress_bar(console: Console | None, name: str, cells: int, cost: float) -> Iterator[Advance]:
    """Show a bar that fills with the expected cost of the cells done.

    Parameters
    ----------
    console
        Where to show it; None shows nothing.
    name
        What is running.
    cells
        Number of cells there are.
    cost
        Their expected cost, in any unit.
    """
    if console is None:
        yield lambda done, cost: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), _Cells(), _Rate(), _TimeLeft(elapsed_when_finished=True))
    # Cells take up to minutes, so the speed is that of the whole run so far.
    with Progress(*columns, console=console, speed_estimate_period=1e6) as progress:
        task = progress.add_task(name, total=cost, cells=cells, done=0)

        def advance(done: int, cost: float) -> None:
            finished = progress.tasks[task].fields["done"] + done
            progress.update(task, advance=cost, done=finished)
            if finished == cells:
                # The costs need not add up to the last digit.
                progress.update(task, completed=progress.tasks[task].total)

        yield advance


class _Cells(ProgressColumn):
    """Cells done, of all; the bar itself counts expected cost."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['done']}/{task.fields['cells']} cells")


class _Rate(ProgressColumn):
    """Cells per second."""

    def render(self, task: Task) -> Text:
        elapsed = task.finished_time or task.elapsed
        if not elapsed or not task.fields["done"]:
            return Text("–/s")
        return Text(f"{task.fields['done'] / elapsed:.1f}/s")


class _TimeLeft(TimeRemainingColumn):
    """The time left, and at the end the time taken."""

    def render(self, task: Task) -> Text:
        return Text.assemble(super().render(task), " in all" if task.finished else " left")
