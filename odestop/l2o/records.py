"""Rows of a table that grows while a training runs: one JSON object per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Records:
    """A file of rows, each with its training step.

    Parameters
    ----------
    path
        The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: dict[str, Any]) -> None:
        """Add a row."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows; a last line that was cut short, by a process that was killed, is none."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines(True) if line[-1] == "\n"]

    def cut(self, step: int) -> None:
        """Drop the rows after a training step, whose work will be done again."""
        kept = "".join(json.dumps(row) + "\n" for row in self.rows() if row["step"] <= step)
        unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        unfinished.write_text(kept, encoding="utf-8")
        unfinished.replace(self.path)
