"""What a person sees of a training: a progress bar, and curves in TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def training_bar(console: Console | None, steps: int, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Show the training steps done, the last row of the history, and the time left; None shows nothing."""
    if console is None:
        yield lambda row: None
        return
    columns = (
        TextColumn("training"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, TimeRemainingColumn(), TextColumn("left"), console=console) as progress:
        task = progress.add_task("training", total=steps, completed=done, state="")

        def show(row: dict[str, Any]) -> None:
            state = (
                f"loss {row['loss']:.4g}  f {row['final_value']:.4g}  "
                f"N {row['stopping_steps']:.1f}  stopped {row['stopped']:.0%}"
            )
            progress.update(task, completed=row["step"], state=state)

        yield show


class TensorBoard:
    """Curves for TensorBoard, or nothing.

    Parameters
    ----------
    writer
        A ``SummaryWriter``; None writes nothing.
    """

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    @staticmethod
    @contextmanager
    def at(folder: Path | None, step: int) -> Iterator[TensorBoard]:
        """Write to a folder, over what an interrupted training wrote there after ``step``; None writes nothing."""
        if folder is None:
            yield TensorBoard(None)
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError("tensorboard=True needs TensorBoard: pip install odestop[l2o]") from None
        with SummaryWriter(folder, purge_step=step + 1) as writer:
            yield TensorBoard(writer)

    def write(self, group: str, row: dict[str, Any]) -> None:
        """Add a row of the history."""
        if self.writer is not None:
            for name in row.keys() - {"step"}:
                self.writer.add_scalar(f"{group}/{name}", row[name], row["step"])
