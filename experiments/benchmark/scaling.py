"""How the cost at equal accuracy grows with dimension, condition number and batch, and the exponents of that."""

from __future__ import annotations

import pandas as pd
from rich.table import Table

from experiments.benchmark.cases import Case
from experiments.orders import fitted_orders

BASE = Case(100, 1e2)
AXES = ("dimension", "condition_number", "batch")
QUANTITIES = ("evaluations", "answer_seconds")
_COLUMNS = ["axis", "x", "peer", *QUANTITIES]
# Overheads hide the power law where everything is small.
_FITTED = 3


def along_axes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the cases that differ from the base case, d = κ = 100, in one field.

    Parameters
    ----------
    rows
        ``benchmark_ratios`` of `experiments.benchmark.measurements.run`.

    Returns
    -------
    pandas.DataFrame
        Columns ``axis``, ``x``, ``peer`` and the quantities; axes on which there is one case only are left out.
    """
    parts = []
    for axis in AXES:
        others = [field for field in (*AXES, "parameters") if field != axis]
        part = rows[(rows[others] == [getattr(BASE, field) for field in others]).all(axis=1)]
        if part[axis].nunique() > 1:
            parts.append(part.assign(axis=axis, x=part[axis].astype(float))[_COLUMNS])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=_COLUMNS)


def exponents(along: pd.DataFrame) -> pd.DataFrame:
    """Fit quantity ≈ C x^exponent at the three largest x of every axis and peer that has three, from `along_axes`.

    Returns
    -------
    pandas.DataFrame
        Columns ``quantity``, ``axis``, ``peer``, ``exponent``, ``low``, ``high`` (95 %).
    """
    largest = along.sort_values("x").groupby(["axis", "peer"]).tail(_FITTED)
    enough = largest.groupby(["axis", "peer"]).filter(lambda curve: len(curve) == _FITTED)
    columns = ["quantity", "axis", "peer", "exponent", "low", "high"]
    if enough.empty:
        return pd.DataFrame(columns=columns)
    fits = [
        fitted_orders(enough, ["axis", "peer"], x="x", y=quantity).assign(quantity=quantity) for quantity in QUANTITIES
    ]
    return pd.concat(fits, ignore_index=True).rename(columns={"order": "exponent"})[columns]


def as_table(fits: pd.DataFrame) -> Table:
    """The exponents for reading."""
    table = Table(title=f"Exponents at equal accuracy, of the {_FITTED} largest cases on each axis from d = κ = 100")
    for heading in ("axis", "peer", *QUANTITIES):
        table.add_column(heading.replace("answer_seconds", "time").replace("_", " "))
    for (axis, peer), of_peer in fits.groupby(["axis", "peer"], sort=False):
        by_quantity = of_peer.set_index("quantity")["exponent"]
        shown = (f"{by_quantity[quantity]:.2f}" for quantity in QUANTITIES)
        table.add_row(str(axis).replace("_", " "), str(peer), *shown)
    return table
