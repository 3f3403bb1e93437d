"""Where a result comes from: versions, commit, date and machine."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import odestop

_PACKAGES = ("odestop", "torch", "torchdiffeq", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib")


def provenance(threads: int = 1, checkout: Path | None = None) -> dict[str, Any]:
    """Return where a result comes from, as JSON can hold it.

    Parameters
    ----------
    threads
        Threads that each cell used.
    checkout
        A folder under git whose commit is noted; the one that odestop is in by default.

    Returns
    -------
    dict
        Date, versions of Python and of the packages that are installed, commit (None outside a repository), whether
        there were changes since then, and the machine.
    """
    folder = checkout or Path(odestop.__file__).resolve().parent.parent
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **_versions()},
        "git_commit": _git(folder, "rev-parse", "HEAD"),
        "git_uncommitted_changes": bool(_git(folder, "status", "--porcelain")),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "threads_used": threads,
        },
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says, or None where there is no git or no repository."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
