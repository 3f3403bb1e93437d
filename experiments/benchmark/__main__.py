"""``python -m experiments.benchmark``: T and ∇T against every peer, and together against one at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.table import Table

from experiments.benchmark import measurements, scaling, together
from experiments.benchmark.command import DeviceOption, OutputOption, ScaleOption, prepare
from experiments.benchmark.timing import SECONDS, Unit, unit_on
from figures import benchmark as benchmark_figure
from figures import benchmark_scaling
from odestop.plotting.style import save
from odestop.sweeps import Runner, Store, provenance


def main(
    scale: ScaleOption = "quick",
    device: DeviceOption = "cpu",
    output: OutputOption = Path("results"),
    store: Annotated[Path | None, typer.Option(help="File that keeps each measurement, to go on from later.")] = None,
) -> None:
    """Measure T and its gradient side by side with torchdiffeq, scipy and, where it is installed, diffrax.

    diffrax and jax are the extra "bench".  The quick scale takes half an hour, the full one hours.
    """
    console = prepare(scale, device, output)
    unit = unit_on(device)
    tables = measurements.run(scale, Runner(store=Store(store), console=console), device)
    along = scaling.along_axes(tables["benchmark_ratios"])
    tables["benchmark_exponents"] = scaling.exponents(along)
    for name, table in tables.items():
        table.to_csv(output / f"{name}.csv", index=False)
    console.print(as_table(tables["benchmark_ratios"], unit))
    console.print(scaling.as_table(tables["benchmark_exponents"]))
    save(benchmark_figure.draw(tables["benchmark"], unit.seconds, unit.symbol), output / "benchmark")
    figure = benchmark_scaling.draw(along, tables["benchmark_exponents"], unit.seconds, unit.symbol)
    save(figure, output / "benchmark_scaling")
    together.report(scale, device, output, console)
    record = {"scale": scale, "device": device, "threads": 1, **provenance()}
    (output / "benchmark.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    console.print(f"wrote benchmark tables and figures to {output}")


def as_table(rows: pd.DataFrame, unit: Unit = SECONDS) -> Table:
    """The peers at equal accuracy, for reading."""
    title = f"T to {measurements.TIME_ERROR:.0e} and ∇T to {measurements.GRADIENT_ERROR:.0e}: times as multiples"
    table = Table(title=f"{title} of the fastest way of odestop (float64, one thread)")
    headings = (
        "case",
        "peer",
        "rtol",
        "evaluations",
        "VJPs",
        unit.name,
        "first call",
        "MB",
        "floor / time",
        "multiple",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("case", "peer") else "right")
    for case, of_case in rows.groupby("case", sort=False):
        table.add_section()
        for number, (_, row) in enumerate(of_case.iterrows()):
            table.add_row(
                str(case) if number == 0 else "",
                row["peer"],
                f"{row['tolerance']:.0e}",
                f"{row['evaluations']:.0f}",
                _or_dash(row["pullbacks"], "{:.0f}"),
                f"{row['answer_seconds'] / unit.seconds:.3g}",
                f"{row['first_seconds'] / unit.seconds:.3g}",
                _or_dash(row["peak_bytes"] / 1e6, "{:.3g}"),
                _or_dash(row["floor_seconds"] / row["answer_seconds"], "{:.2f}"),
                f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})",
            )
    return table


def _or_dash(number: float, form: str) -> str:
    return "–" if pd.isna(number) else form.format(number)


if __name__ == "__main__":
    typer.run(main)
