"""Where a table comes from: versions, commit, date, machine, and the parameters that made it."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent

_PACKAGES = ("odestop", "torch", "torchdiffeq", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib")


def provenance(checkout: Path = CHECKOUT) -> dict[str, Any]:
    """Return versions, the commit of a checkout, the date and the machine, as JSON can hold them."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "git_commit": _git(checkout, "rev-parse", "HEAD"),
        "git_uncommitted_changes": bool(_git(checkout, "status", "--porcelain")),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "threads_used": 1,
        },
    }


def _git(checkout: Path, *arguments: str) -> str | None:
    """Return what git says, or None where there is no git or no repository."""
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
