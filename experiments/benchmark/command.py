"""What the commands of the benchmark share: their options, and where they run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

ScaleOption = Annotated[str, typer.Option(help="quick (minutes) or full (longer, with the largest cases).")]
DeviceOption = Annotated[str, typer.Option(help="cpu, or cuda where there is one.")]
OutputOption = Annotated[Path, typer.Option(help="Folder for tables and figures.")]


def prepare(scale: str, device: str, output: Path) -> Console:
    """Refuse what cannot be run, make the folder, and keep to one processor."""
    if scale not in ("quick", "full"):
        raise typer.BadParameter(f"scale must be quick or full, got {scale!r}")
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"device must be cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("device is cuda, but PyTorch sees no CUDA device here")
    keep_to_one_processor()
    output.mkdir(parents=True, exist_ok=True)
    # The tables are wide, and whole in files.
    return Console(width=None if sys.stdout.isatty() else 160)


def keep_to_one_processor() -> None:
    """Give this process one processor, so that all libraries work with one thread, before they ask how many there are.

    Threads that wait for each other would count as processor time.  Where the system has no way to do so, PyTorch alone
    is held to one thread.
    """
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
