"""From the name of a figure to its files: run the experiments, draw, and judge the paper's claims."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.catalogue import DRAWINGS, EXPERIMENTS, OF_THE_PAPER, TARGETS, Tables
from experiments.claims import JudgedClaim, Verdict, as_markdown, judge
from odestop.plotting.style import save
from odestop.sweeps import Runner


def reproduce(targets: Sequence[str], scale: str, output: Path, runner: Runner) -> list[Path]:
    """Run what the targets need and write figures, data, parameters and claims.

    Parameters
    ----------
    targets
        Any of `TARGETS`; ``all`` is what the claims about the paper rest on, with the verification of Theorem 1 and
        Proposition 1.
    scale
        ``"quick"`` (minutes), ``"paper"`` (the paper's grid), or ``"tiny"`` for a test of the machinery; `Experiment`
        knows which ones it has.
    output
        Folder to write to; it is made.
    runner
        Runs the experiments; the claims are shown on its console.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ValueError
        For a target that does not exist, or a scale that an experiment does not have.
    """
    for target in targets:
        _check("target", target, TARGETS)
    console = runner.console or Console(quiet=True)
    start = time.perf_counter()
    wanted = list(dict.fromkeys(name for target in targets for name in TARGETS[target]))
    needed = {name for name, experiment in EXPERIMENTS.items() if not experiment.drawings.keys().isdisjoint(wanted)}
    if "all" in targets:
        needed.update(OF_THE_PAPER)
    for name in needed:
        _check(f"scale of {name}", scale, EXPERIMENTS[name].scales)
    output.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    tables: dict[str, pd.DataFrame] = {}
    for name in (name for name in EXPERIMENTS if name in needed):
        results, files = _run(name, scale, output, runner, console)
        tables.update(results)
        written += files
    for name in wanted:
        written += save(DRAWINGS[name](tables), output / name)
    written += _write_claims(judge(tables), "all" in targets, output, console)
    console.print(
        f"{len(written)} files in {output}, {time.perf_counter() - start:.0f} s", highlight=False, soft_wrap=True
    )
    return written


def _check(name: str, value: str, accepted: Iterable[str]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}, got {value!r}")


def _run(
    name: str, scale: str, output: Path, runner: Runner, console: Console
) -> tuple[dict[str, pd.DataFrame], list[Path]]:
    """Run an experiment; write its tables, and one JSON with where they come from."""
    experiment = EXPERIMENTS[name]
    start = time.perf_counter()
    tables = experiment.run(scale, runner)
    seconds = time.perf_counter() - start
    console.print(f"{name}: {sum(map(len, tables.values()))} rows in {seconds:.0f} s", highlight=False)
    written = []
    for table_name, table in tables.items():
        path = output / f"{table_name}.csv"
        table.to_csv(path, index=False)
        written.append(path)
    record = {
        "experiment": name,
        "tables": [path.name for path in written],
        "scale": scale,
        "cell_seconds": round(sum(float(table.get("seconds", pd.Series()).sum()) for table in tables.values()), 1),
        "computed_by": _provenance(tables),
        "parameters": experiment.parameters(scale),
    }
    return tables, [*written, _write_json(output / f"{name}.json", record)]


def _provenance(tables: Tables) -> list[dict[str, Any]]:
    """Return the runs that computed the tables: dates, versions, commits and machines."""
    runs: list[dict[str, Any]] = []
    for table in tables.values():
        runs += [run for run in table.attrs.get("provenance", []) if run not in runs]
    return runs


def _write_claims(claims: list[JudgedClaim], complete: bool, output: Path, console: Console) -> list[Path]:
    """Show the claims; write them where all experiments were run, so that a part does not replace the whole."""
    if not complete:
        claims = [claim for claim in claims if claim.verdict != Verdict.NOT_TESTED]
    if claims:
        console.print(_claims_table(claims))
    if not complete:
        return []
    markdown = output / "claims.md"
    markdown.write_text(as_markdown(claims), encoding="utf-8")
    return [_write_json(output / "claims.json", [asdict(claim) for claim in claims]), markdown]


def _write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _claims_table(claims: list[JudgedClaim]) -> Table:
    colours = {Verdict.HOLDS: "green", Verdict.FAILS: "bold red", Verdict.NOT_TESTED: "dim"}
    table = Table(title="The paper's claims on these runs", show_lines=True)
    for column in ("place", "claim", "verdict", "measured"):
        table.add_column(column, overflow="fold")
    for claim in claims:
        verdict = Text(claim.verdict.value, style=colours[claim.verdict])
        table.add_row(Text(claim.place), Text(claim.statement), verdict, Text(claim.measured))
    return table
