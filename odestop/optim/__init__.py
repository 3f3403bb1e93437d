"""Optimizers that adapt their hyperparameters as they run, by the sensitivity of their step count and otherwise."""

from odestop.optim.adam_hd import AdamHD
from odestop.optim.adam_ola import AdamOLA
from odestop.optim.hypergradient_descent import HDM
from odestop.optim.online_adaptation import AdaptedHyperparameter, OnlineAdaptation, OnlineRun

__all__ = ["HDM", "AdamHD", "AdamOLA", "AdaptedHyperparameter", "OnlineAdaptation", "OnlineRun"]
