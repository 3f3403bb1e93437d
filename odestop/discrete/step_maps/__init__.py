"""Update rules: the protocol, and the maps that ship with the package."""

from odestop.discrete.step_maps.base import StepMap, TimeStepMap
from odestop.discrete.step_maps.euler import Euler

__all__ = ["Euler", "StepMap", "TimeStepMap"]
