"""``odestop train``: train a learned optimizer with the stopping time in its loss."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from odestop.cli.assignments import split_assignment

EPILOG = (
    "Several processes share every batch under torchrun: torchrun --nproc-per-node 2 -m odestop train config.toml. "
    "The settings are the parameters of odestop.l2o.TrainingConfiguration."
)


def train(
    configuration: Annotated[
        Path | None, typer.Argument(help="TOML file of settings; the defaults without one.", metavar="[config.toml]")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="<key>=<value>", help="A setting, such as network.kind=l2o-dm; may be repeated."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for networks, checkpoint, curves and TensorBoard logs.")] = Path(
        "training"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the folder's checkpoint.")] = False,
) -> None:
    """Train a learned optimizer on the sum of function values plus λ times the stopping time (eq. 10)."""
    from odestop.l2o import TrainingConfiguration
    from odestop.l2o import train as run

    console = Console(highlight=False)
    try:
        overrides = dict(split_assignment(text, "key=value") for text in assignments or [])
        settings = TrainingConfiguration.from_toml(configuration, overrides)
        training = run(settings, output, resume=resume, console=console)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error)) from error
    except ImportError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo(f"Stopped. The last checkpoint is in {output}; --resume continues from there.", err=True)
        raise typer.Exit(130) from None
    if os.environ.get("RANK", "0") != "0":
        return
    best = training.validation[training.validation["best"]].iloc[-1]
    console.print(
        f"Best at training step {best['step']:.0f}: loss {best['loss']:.4g}, f {best['final_value']:.4g}, "
        f"N {best['stopping_steps']:.1f}, stopped {best['stopped']:.0%}. It is {output / 'best.safetensors'}."
    )
