"""Real data that comes with scikit-learn, so that no download is needed."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor

from odestop._validation import check_choice

LOADERS = {
    "breast-cancer": "load_breast_cancer",
    "diabetes": "load_diabetes",
    "digits": "load_digits",
    "wine": "load_wine",
}
"""Name of scikit-learn's loader by the name of the data."""


def bundled_data(
    name: str,
    *,
    intercept: bool = True,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return standardised features (n, d) and labels or targets (n,) of a data set that scikit-learn bundles.

    =============== ==== == ==========================================
    name            n    d  what there is to predict
    =============== ==== == ==========================================
    breast-cancer   569  30 one of 2 classes, labels in {0, 1}
    digits          1797 64 one of 10 classes, labels in {0, …, 9}
    wine            178  13 one of 3 classes, labels in {0, 1, 2}
    diabetes        442  10 a number, standardised like the features
    =============== ==== == ==========================================

    Parameters
    ----------
    name
        One of the table.
    intercept
        Whether to append a constant column 1 to the features, which makes their number d + 1.
    dtype, device
        Where the features and real targets go; labels are integers.

    Raises
    ------
    ValueError
        If there is no such data set.
    ImportError
        If scikit-learn is not installed.

    Examples
    --------
    >>> features, labels = bundled_data("wine")
    >>> features.shape, labels.unique().tolist()
    (torch.Size([178, 14]), [0, 1, 2])
    """
    check_choice("name", name, tuple(LOADERS))
    try:
        load = getattr(importlib.import_module("sklearn.datasets"), LOADERS[name])
    except ImportError as error:
        raise ImportError(
            f"the {name} data need scikit-learn; install it with pip install 'odestop[experiments]'"
        ) from error
    raw, targets = (torch.as_tensor(array) for array in load(return_X_y=True))
    features = _standardised(raw)
    if intercept:
        features = torch.cat([features, torch.ones_like(raw[:, :1])], dim=1)
    dtype = dtype or torch.get_default_dtype()
    targets = _standardised(targets).to(dtype) if targets.is_floating_point() else targets
    return features.to(dtype=dtype, device=device), targets.to(device=device)


def _standardised(columns: Tensor) -> Tensor:
    """Mean 0 and variance 1 along each column; zeros where it is constant."""
    centred = columns - columns.mean(0)
    deviation = columns.std(0, correction=0)
    return centred / torch.where(deviation > 0, deviation, 1.0)
