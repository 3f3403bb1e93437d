"""The diabetes data with their squares and products: the 64 features of Efron et al. (2004)."""

from __future__ import annotations

import torch
from torch import Tensor

from odestop.objectives import bundled_data

_SEX = 1  # its square says nothing new


def diabetes_with_products() -> tuple[Tensor, Tensor]:
    """Return the 10 features, their 9 squares and 45 products, (442, 64), and the targets, all standardised."""
    features, targets = bundled_data("diabetes", intercept=False, dtype=torch.float64)
    first, second = torch.triu_indices(10, 10)
    is_new = ~((first == _SEX) & (second == _SEX))
    columns = torch.cat([features, features[:, first[is_new]] * features[:, second[is_new]]], dim=1)
    return (columns - columns.mean(0)) / columns.std(0, correction=0), targets
