"""Learning to optimize: recurrent networks as step maps, trained with the stopping time in the loss (eq. 10)."""

from odestop.l2o.configuration import TrainingConfiguration
from odestop.l2o.evaluation import (
    classical_step_maps,
    objective_values,
    steps_to_small_decrease,
    steps_to_value,
    steps_until_settled,
    stopping_report,
)
from odestop.l2o.files import load, load_metadata, save
from odestop.l2o.flows import InertialCoefficients, LearnedInertialFlow, stopping_times, train_inertial_flow
from odestop.l2o.networks import L2ODM, NETWORKS, LearnedOptimizer, RNNprop
from odestop.l2o.problems import (
    DISTRIBUTIONS,
    LassoProblems,
    LogisticProblems,
    ProblemDistribution,
    QuadraticProblems,
    SubgradientLasso,
)
from odestop.l2o.step_map import LearnedStepMap
from odestop.l2o.trainer import Training, train
from odestop.l2o.training_loss import TrainingLoss

__all__ = [
    "DISTRIBUTIONS",
    "L2ODM",
    "NETWORKS",
    "InertialCoefficients",
    "LassoProblems",
    "LearnedInertialFlow",
    "LearnedOptimizer",
    "LearnedStepMap",
    "LogisticProblems",
    "ProblemDistribution",
    "QuadraticProblems",
    "RNNprop",
    "SubgradientLasso",
    "Training",
    "TrainingConfiguration",
    "TrainingLoss",
    "classical_step_maps",
    "load",
    "load_metadata",
    "objective_values",
    "save",
    "steps_to_small_decrease",
    "steps_to_value",
    "steps_until_settled",
    "stopping_report",
    "stopping_times",
    "train",
    "train_inertial_flow",
]
