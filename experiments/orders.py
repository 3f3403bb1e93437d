"""The order in h of a measured error, one fit per curve."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from odestop.comparison import fit_order


def fitted_orders(
    table: pd.DataFrame, by: Sequence[str], x: str = "step_size", y: str = "relative_error"
) -> pd.DataFrame:
    """Fit y ≈ C x^order to every group of rows, all its seeds together.

    Parameters
    ----------
    table
        Rows with positive columns ``x`` and ``y``.
    by
        Columns that tell the curves apart.

    Returns
    -------
    pandas.DataFrame
        One row per group: its columns ``by``, ``order``, the ends ``low`` and ``high`` of its 95 % confidence
        interval, ``intercept`` (natural logarithm of C) and ``points``.
    """
    rows = []
    for key, group in table.groupby(list(by), sort=True):
        fit = fit_order(group[x].to_numpy(), group[y].to_numpy())
        rows.append(
            {
                **dict(zip(by, key, strict=True)),
                "order": fit.order,
                "low": fit.low,
                "high": fit.high,
                "intercept": fit.intercept,
                "points": len(group),
            }
        )
    return pd.DataFrame(rows)
