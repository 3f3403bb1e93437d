"""Definition 1 and Theorem 1: the continuous stopping time T and its gradient."""

from odestop.continuous import gradients
from odestop.continuous.solution import ContinuousSolution, ContinuousStats
from odestop.continuous.stopping_time import continuous_stopping_time
from odestop.continuous.torchdiffeq_reference import torchdiffeq_stopping_time

__all__ = [
    "ContinuousSolution",
    "ContinuousStats",
    "continuous_stopping_time",
    "gradients",
    "torchdiffeq_stopping_time",
]
