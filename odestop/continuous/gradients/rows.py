"""Trajectories without an event share their batch with the others; their values must not spoil anything."""

from __future__ import annotations

from torch import Tensor


def donate(values: Tensor, rows: Tensor) -> Tensor:
    """``values`` (*batch, ...), with the first of ``rows`` (*batch,) in place of every row outside.

    What is computed in the other rows is masked out in the end, but nan × 0 must not happen before.  Without any
    row to take from, the values are returned as they are.
    """
    if bool(rows.all()) or not bool(rows.any()):
        return values
    donor = int(rows.reshape(-1).nonzero()[0])
    mask = rows.reshape(rows.shape + (1,) * (values.ndim - rows.ndim))
    return values.where(mask, values.flatten(0, rows.ndim - 1)[donor].detach())
