"""One ODE step, its error estimate, step-size control and dense output; no stopping rule, no autograd."""

from odestop.solvers.automatic import Automatic
from odestop.solvers.dense_output import DenseOutput, HermiteOutput
from odestop.solvers.one_step import OneStepMethod, Step
from odestop.solvers.runge_kutta import (
    BogackiShampine3,
    DormandPrince5,
    ExplicitEuler,
    FixedStepRungeKutta,
    Heun,
    PrinceDormand8,
    RungeKutta,
    RungeKutta4,
    Tsitouras5,
)
from odestop.solvers.stabilised import RKC2, ROCK4, StabilisedRungeKutta
from odestop.solvers.stability import SpectralRadius
from odestop.solvers.step_control import PIController
from odestop.solvers.tableaus import (
    BOGACKI_SHAMPINE_3,
    DORMAND_PRINCE_5,
    EXPLICIT_EULER,
    HEUN_2,
    PRINCE_DORMAND_8,
    RUNGE_KUTTA_4,
    TSITOURAS_5,
    ButcherTableau,
)

METHODS: dict[str, OneStepMethod | Automatic] = {
    "dopri5": DormandPrince5(),
    "tsit5": Tsitouras5(),
    "bosh3": BogackiShampine3(),
    "dopri8": PrinceDormand8(),
    "rock4": ROCK4(),
    "rkc2": RKC2(),
    "auto": Automatic(),
}
"""The aliases that ``method=`` accepts: the methods that choose their steps, and the choice among them."""

FIXED_STEP_METHODS: dict[str, type[FixedStepRungeKutta]] = {
    "euler": ExplicitEuler,
    "heun": Heun,
    "rk4": RungeKutta4,
}
"""What others call the methods that need a step size."""

__all__ = [
    "BOGACKI_SHAMPINE_3",
    "DORMAND_PRINCE_5",
    "EXPLICIT_EULER",
    "FIXED_STEP_METHODS",
    "HEUN_2",
    "METHODS",
    "PRINCE_DORMAND_8",
    "RKC2",
    "ROCK4",
    "RUNGE_KUTTA_4",
    "TSITOURAS_5",
    "Automatic",
    "BogackiShampine3",
    "ButcherTableau",
    "DenseOutput",
    "DormandPrince5",
    "ExplicitEuler",
    "FixedStepRungeKutta",
    "HermiteOutput",
    "Heun",
    "OneStepMethod",
    "PIController",
    "PrinceDormand8",
    "RungeKutta",
    "RungeKutta4",
    "SpectralRadius",
    "StabilisedRungeKutta",
    "Step",
    "Tsitouras5",
]
