"""Sweeps: a grid of cells, a pure function of a cell, and a store that remembers every cell that was solved."""

from odestop.sweeps.backends import Backend, DaskCluster, ExistingExecutor, InProcess, ProcessPool
from odestop.sweeps.provenance import provenance
from odestop.sweeps.runner import FailedCellsWarning, Runner
from odestop.sweeps.store import CellStatus, Row, Store
from odestop.sweeps.sweep import Record, Sweep

__all__ = [
    "Backend",
    "CellStatus",
    "DaskCluster",
    "ExistingExecutor",
    "FailedCellsWarning",
    "InProcess",
    "ProcessPool",
    "Record",
    "Row",
    "Runner",
    "Store",
    "Sweep",
    "provenance",
]
