"""The shipped criteria by name."""

from __future__ import annotations

import math
from typing import Annotated

from torch import nn

from odestop.criteria import ObjectiveGap, SquaredGradientMapping, SquaredGradientNorm
from odestop.objectives import CompositeObjective, Objective
from odestop.registry.catalogue import Catalogue, Entry, Range

CRITERIA: Catalogue[Entry[nn.Module]] = Catalogue("criterion", Entry)
"""Criteria J, each for an objective."""


@CRITERIA.register("objective-gap", ObjectiveGap)
def _objective_gap(
    objective: Objective | CompositeObjective,
    minimum: Annotated[
        float | None, Range("f*", -math.inf, math.inf, "least value; the objective's own if not given")
    ] = None,
) -> ObjectiveGap:
    return ObjectiveGap(objective, minimum)


CRITERIA.register("squared-gradient-norm")(SquaredGradientNorm)


@CRITERIA.register("squared-gradient-mapping", SquaredGradientMapping)
def _squared_gradient_mapping(
    objective: CompositeObjective,
    mapping_step: Annotated[float | None, Range("s", 1e-3, 10.0, "step of the mapping; 1/L if not given")] = None,
) -> SquaredGradientMapping:
    return SquaredGradientMapping(objective, mapping_step)
