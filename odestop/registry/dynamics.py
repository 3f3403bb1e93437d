"""The shipped dynamics by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from odestop.dynamics import (
    AdagradFlow,
    AdamFlow,
    CoordinatewiseLSTMFlow,
    CoordinatewiseMLPFlow,
    CoordinatewisePreconditioner,
    CosineSchedule,
    CubicRegularizedFlow,
    DensePreconditionedFlow,
    DiagonallyPreconditionedFlow,
    ExponentialSchedule,
    GaussNewtonFlow,
    GaussNewtonMetric,
    GradientFlow,
    GreedyDiagonalFlow,
    GreedyLyapunovFlow,
    GreedySchattenFlow,
    HeavyBallFlow,
    HighResolutionConvexNesterovFlow,
    HighResolutionNesterovFlow,
    HyperbolicEntropy,
    InertialHessianDampedFlow,
    LazyNewtonFlow,
    MirrorFlow,
    NaturalGradientFlow,
    NesterovFlow,
    NewtonFlow,
    NormalizedFlow,
    OrthantEntropy,
    PiecewiseSchedule,
    PNorm,
    PolynomialSchedule,
    PreconditionedFlow,
    ProximalFlow,
    RegularizedNewtonFlow,
    RescaledGradientFlow,
    RMSpropFlow,
    SignFlow,
    SimplexEntropy,
    SpectralFlow,
    StronglyConvexNesterovFlow,
)
from odestop.objectives import (
    CompositeObjective,
    LeastSquares,
    LogisticRegression,
    MatrixFactorization,
    Objective,
    SoftmaxRegression,
)
from odestop.registry.catalogue import Catalogue, Entry, Range, Seed

DYNAMICS: Catalogue[Entry[nn.Module]] = Catalogue("dynamics", Entry)
"""Dynamics dx/dt = -A(θ, x, t), each for an objective."""


def _dimension(objective: Objective) -> int:
    if objective.dimension is None:
        raise ValueError("objective must have a known dimension, got one for any dimension")
    return objective.dimension


Scale = Annotated[float | Tensor, Range("θ₁", 0.1, 10.0, "speed at the start")]


DYNAMICS.register("gradient-flow")(GradientFlow)


@DYNAMICS.register("exponential-flow", RescaledGradientFlow, ExponentialSchedule)
def _exponential_flow(
    objective: Objective,
    scale: Scale = 1.0,
    rate: Annotated[float | Tensor, Range("θ₂", 0.0, 0.1, "rate at which it slows down")] = 0.005,
) -> RescaledGradientFlow:
    return RescaledGradientFlow(objective, ExponentialSchedule(scale, rate))


@DYNAMICS.register("polynomial-flow", RescaledGradientFlow, PolynomialSchedule)
def _polynomial_flow(
    objective: Objective,
    scale: Scale = 1.0,
    exponent: Annotated[float | Tensor, Range("θ₂", 0.0, 1.0, "power of time by which it slows down")] = 0.25,
) -> RescaledGradientFlow:
    return RescaledGradientFlow(objective, PolynomialSchedule(scale, exponent))


@DYNAMICS.register("cosine-flow", RescaledGradientFlow, CosineSchedule)
def _cosine_flow(
    objective: Objective,
    scale: Scale = 1.0,
    final: Annotated[float | Tensor, Range("θ₂", 0.01, 10.0, "speed from the end of the schedule on")] = 0.1,
    duration: Annotated[float | Tensor, Range("θ₃", 0.1, 1000.0, "time that the schedule takes")] = 100.0,
) -> RescaledGradientFlow:
    return RescaledGradientFlow(objective, CosineSchedule(scale, final, duration))


@DYNAMICS.register("warm-up-flow", RescaledGradientFlow, PiecewiseSchedule)
def _warm_up_flow(
    objective: Objective,
    initial: Annotated[float | Tensor, Range("v₀", 0.0, 10.0, "speed at the start")] = 0.1,
    final: Annotated[float | Tensor, Range("v₁", 0.1, 10.0, "speed after the warm-up")] = 1.0,
    duration: Annotated[float, Range("k₁", 0.1, 1000.0, "time that the warm-up takes")] = 10.0,
) -> RescaledGradientFlow:
    speeds = torch.stack([torch.as_tensor(speed, dtype=torch.float64) for speed in (initial, final)])
    return RescaledGradientFlow(objective, PiecewiseSchedule([0.0, duration], speeds))


@DYNAMICS.register("mirror-flow", MirrorFlow, HyperbolicEntropy)
def _mirror_flow(
    objective: Objective,
    beta: Annotated[float | Tensor, Range("β", 0.01, 100.0, "size below which coordinates move additively")] = 1.0,
) -> MirrorFlow:
    return MirrorFlow(objective, HyperbolicEntropy(beta))


@DYNAMICS.register("p-norm-flow", MirrorFlow, PNorm)
def _p_norm_flow(
    objective: Objective,
    p: Annotated[float | Tensor, Range("p", 1.1, 2.0, "power; near 1 it favours sparse points")] = 1.5,
) -> MirrorFlow:
    return MirrorFlow(objective, PNorm(p))


@DYNAMICS.register("simplex-flow", MirrorFlow, SimplexEntropy)
def _simplex_flow(objective: Objective) -> MirrorFlow:
    return MirrorFlow(objective, SimplexEntropy())


@DYNAMICS.register("orthant-flow", MirrorFlow, OrthantEntropy)
def _orthant_flow(objective: Objective) -> MirrorFlow:
    return MirrorFlow(objective, OrthantEntropy())


@DYNAMICS.register("proximal-flow", ProximalFlow)
def _proximal_flow(
    objective: CompositeObjective,
    step: Annotated[
        float | Tensor | None, Range("s", 0.01, 1.0, "step of the proximal operator; 1/L if not given")
    ] = None,
) -> ProximalFlow:
    if step is None:
        if not objective.smooth.smoothness:
            raise ValueError("step must be given for an objective whose smoothness is unknown")
        step = 1 / objective.smooth.smoothness
    return ProximalFlow(objective, step)


@DYNAMICS.register("spectral-flow", SpectralFlow)
def _spectral_flow(
    objective: MatrixFactorization | SoftmaxRegression,
    smoothing: Annotated[float | Tensor, Range("s", 1e-2, 10.0, "singular value at which the speed is 1/√2")] = 0.1,
) -> SpectralFlow:
    if isinstance(objective, MatrixFactorization):
        shape = (sum(objective.matrix.shape), objective.rank)
    else:
        shape = (objective.indicators.shape[1], objective.features.shape[1])
    return SpectralFlow(objective, shape, smoothing)


@DYNAMICS.register("normalized-flow", NormalizedFlow)
def _normalized_flow(
    objective: Objective,
    smoothing: Annotated[float | Tensor, Range("s", 0.0, 10.0, "gradient norm at which the speed is half")] = 0.1,
) -> NormalizedFlow:
    return NormalizedFlow(objective, smoothing)


@DYNAMICS.register("sign-flow", SignFlow)
def _sign_flow(
    objective: Objective,
    smoothing: Annotated[float | Tensor, Range("s", 1e-3, 10.0, "gradient below which the speed is linear")] = 0.1,
) -> SignFlow:
    return SignFlow(objective, smoothing)


@DYNAMICS.register("dense-preconditioner", DensePreconditionedFlow)
def _dense_preconditioner(
    objective: Objective,
    dtype: torch.dtype | None,
    scale: Annotated[float | Tensor, Range("σ", 0.0, 1.0, "standard deviation of the initial parameters")] = 0.05,
    seed: Seed = 0,
) -> DensePreconditionedFlow:
    dimension, generator = _dimension(objective), torch.Generator().manual_seed(seed)
    draws = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    return DensePreconditionedFlow(objective, (scale * draws).to(dtype or torch.get_default_dtype()))


@DYNAMICS.register("diagonal-preconditioner", DiagonallyPreconditionedFlow)
def _diagonal_preconditioner(
    objective: Objective,
    dtype: torch.dtype | None,
    theta: Annotated[float | Tensor, Range("θ", 0.1, 3.0, "every entry of the diagonal p but the first")] = 2.5,
) -> DiagonallyPreconditionedFlow:
    theta = torch.as_tensor(theta, dtype=dtype or torch.get_default_dtype())
    return DiagonallyPreconditionedFlow(
        objective, torch.cat([theta.new_ones(1), theta.expand(_dimension(objective) - 1)])
    )


@DYNAMICS.register("learned-preconditioner", PreconditionedFlow, CoordinatewisePreconditioner)
def _learned_preconditioner(
    objective: Objective,
    dtype: torch.dtype | None,
    hidden: Annotated[int, Range("m", 1, 8, "hidden units per coordinate")] = 2,
    scale: Annotated[float, Range("σ", 0.0, 1.0, "standard deviation of the initial parameters")] = 0.1,
    seed: Seed = 0,
) -> PreconditionedFlow:
    network = CoordinatewisePreconditioner(_dimension(objective), hidden, scale=scale, seed=seed, dtype=dtype)
    return PreconditionedFlow(objective, network)


DYNAMICS.register("newton-flow")(NewtonFlow)


@DYNAMICS.register("regularized-newton-flow", RegularizedNewtonFlow)
def _regularized_newton_flow(
    objective: Objective,
    damping: Annotated[float | Tensor, Range("c", 0.0, 10.0, "damping where the gradient has norm 1")] = 0.1,
    exponent: Annotated[float | Tensor, Range("p", 0.0, 1.0, "power of the gradient's norm in the damping")] = 0.0,
) -> RegularizedNewtonFlow:
    return RegularizedNewtonFlow(objective, damping, exponent)


Damping = Annotated[float | Tensor, Range("λ", 1e-3, 10.0, "damping")]


@DYNAMICS.register("gauss-newton-flow", GaussNewtonFlow)
def _gauss_newton_flow(objective: LeastSquares | MatrixFactorization, damping: Damping = 0.1) -> NaturalGradientFlow:
    residuals = _misfits(objective) if isinstance(objective, LeastSquares) else _entries(objective)
    return NaturalGradientFlow(objective, GaussNewtonMetric(residuals), damping)


def _misfits(objective: LeastSquares) -> Callable[[Tensor], Tensor]:
    """Return r with f = ½ ‖r(x)‖²."""
    scale = 1 / math.sqrt(len(objective.targets))
    return lambda x: scale * (x @ objective.features.mT - objective.targets)


def _entries(objective: MatrixFactorization) -> Callable[[Tensor], Tensor]:
    """Return r with f = ½ ‖r(x)‖²."""

    def residuals(x: Tensor) -> Tensor:
        U, V = objective.factors_from(x)
        return (U @ V.mT - objective.matrix).flatten(-2)

    return residuals


@DYNAMICS.register("natural-gradient-flow", NaturalGradientFlow, GaussNewtonMetric)
def _natural_gradient_flow(
    objective: LogisticRegression | SoftmaxRegression, damping: Damping = 0.1
) -> NaturalGradientFlow:
    # The metric is the Fisher information per row of the data, of the model without the penalty.
    if isinstance(objective, LogisticRegression):
        return NaturalGradientFlow(objective, _binary_information(objective), damping)
    return NaturalGradientFlow(objective, _multiclass_information(objective), damping)


def _binary_information(objective: LogisticRegression) -> GaussNewtonMetric:
    return GaussNewtonMetric(lambda x: x @ objective.features.mT, lambda z: functional.softplus(z).mean(-1))


def _multiclass_information(objective: SoftmaxRegression) -> GaussNewtonMetric:
    def logits(x: Tensor) -> Tensor:
        return (objective.features @ objective.weights_from(x).mT).flatten(-2)

    classes = objective.indicators.shape[1]
    return GaussNewtonMetric(logits, lambda z: z.unflatten(-1, (-1, classes)).logsumexp(-1).mean(-1))


@DYNAMICS.register("cubic-newton-flow", CubicRegularizedFlow)
def _cubic_newton_flow(
    objective: Objective,
    cubic: Annotated[float | Tensor, Range("M", 0.01, 100.0, "weight of the cubic term")] = 1.0,
) -> CubicRegularizedFlow:
    return CubicRegularizedFlow(objective, cubic)


@DYNAMICS.register("lazy-newton-flow", LazyNewtonFlow)
def _lazy_newton_flow(
    objective: Objective,
    time_constant: Annotated[float | Tensor, Range("τ", 0.05, 5.0, "mean age of the Hessian")] = 0.5,
) -> LazyNewtonFlow:
    return LazyNewtonFlow(objective, time_constant)


Friction = Annotated[float | Tensor, Range("r", 0.0, 10.0, "friction r/t")]
StrongConvexity = Annotated[float | Tensor, Range("μ", 1e-4, 10.0, "strong convexity; the friction is 2 √μ")]
ModelledRate = Annotated[float | Tensor, Range("s", 1e-4, 1.0, "learning rate of the modelled method")]
AveragingTime = Annotated[float | Tensor, Range("τ", 0.05, 10.0, "time over which squared gradients are averaged")]
InitialSquare = Annotated[float | Tensor, Range("δ", 0.01, 10.0, "where the memory of squared gradients starts")]


@DYNAMICS.register("heavy-ball", HeavyBallFlow)
def _heavy_ball(
    objective: Objective, friction: Annotated[float | Tensor, Range("c", 0.0, 5.0, "friction")] = 1.0
) -> HeavyBallFlow:
    return HeavyBallFlow(objective, friction)


@DYNAMICS.register("nesterov", NesterovFlow)
def _nesterov(objective: Objective, friction: Friction = 3.0) -> NesterovFlow:
    return NesterovFlow(objective, friction)


@DYNAMICS.register("strongly-convex-nesterov", StronglyConvexNesterovFlow)
def _strongly_convex_nesterov(
    objective: Objective, strong_convexity: StrongConvexity = 0.1
) -> StronglyConvexNesterovFlow:
    return StronglyConvexNesterovFlow(objective, strong_convexity)


@DYNAMICS.register("high-resolution-convex-nesterov", HighResolutionConvexNesterovFlow)
def _high_resolution_convex_nesterov(
    objective: Objective, learning_rate: ModelledRate = 0.01
) -> HighResolutionConvexNesterovFlow:
    return HighResolutionConvexNesterovFlow(objective, learning_rate)


@DYNAMICS.register("high-resolution-nesterov", HighResolutionNesterovFlow)
def _high_resolution_nesterov(
    objective: Objective,
    learning_rate: ModelledRate = 0.01,
    strong_convexity: StrongConvexity = 0.1,
) -> HighResolutionNesterovFlow:
    return HighResolutionNesterovFlow(objective, learning_rate, strong_convexity)


@DYNAMICS.register("hessian-damped", InertialHessianDampedFlow)
def _hessian_damped(
    objective: Objective,
    alpha: Annotated[float | Tensor, Range("α", 0.0, 10.0, "friction α/t")] = 3.0,
    beta: Annotated[float | Tensor, Range("β", 0.0, 2.0, "damping by the Hessian")] = 0.5,
    gamma: Annotated[float | Tensor, Range("γ", 0.1, 5.0, "weight of the gradient")] = 1.0,
) -> InertialHessianDampedFlow:
    return InertialHessianDampedFlow(objective, alpha, beta, gamma)


@DYNAMICS.register("adagrad", AdagradFlow)
def _adagrad(objective: Objective, initial_square: InitialSquare = 0.1) -> AdagradFlow:
    return AdagradFlow(objective, initial_square)


@DYNAMICS.register("rmsprop", RMSpropFlow)
def _rmsprop(objective: Objective, tau: AveragingTime = 1.0, initial_square: InitialSquare = 0.1) -> RMSpropFlow:
    return RMSpropFlow(objective, tau, initial_square)


@DYNAMICS.register("adam", AdamFlow)
def _adam(
    objective: Objective,
    tau1: Annotated[float | Tensor, Range("τ₁", 0.01, 1.0, "time over which gradients are averaged")] = 0.1,
    tau2: Annotated[float | Tensor, Range("τ₂", 0.05, 10.0, "time over which their squares are")] = 1.0,
) -> AdamFlow:
    return AdamFlow(objective, tau1, tau2)


Budget = Annotated[float | Tensor, Range("B", 0.1, 10.0, "size of the trust region")]
Memory = Annotated[float | Tensor, Range("τ", 0.05, 10.0, "time constant of the mean of past gradients")]


@DYNAMICS.register("greedy-schatten", GreedySchattenFlow)
def _greedy_schatten(
    objective: Objective,
    budget: Budget = 1.0,
    time_constant: Memory = 1.0,
    order: Annotated[int, Range("n", 0, 5, "0: spectral ball, 1: Frobenius ball, higher: towards the trace ball")] = 1,
) -> GreedySchattenFlow:
    return GreedySchattenFlow(objective, budget, time_constant, order)


@DYNAMICS.register("greedy-lyapunov", GreedyLyapunovFlow)
def _greedy_lyapunov(objective: Objective, budget: Budget = 1.0, time_constant: Memory = 1.0) -> GreedyLyapunovFlow:
    return GreedyLyapunovFlow(objective, budget, time_constant)


@DYNAMICS.register("greedy-diagonal", GreedyDiagonalFlow)
def _greedy_diagonal(
    objective: Objective,
    budget: Budget = 1.0,
    time_constant: Memory = 1.0,
    power: Annotated[float | Tensor, Range("p", 0.0, 2.0, "power of the moments in the costs")] = 1.5,
) -> GreedyDiagonalFlow:
    return GreedyDiagonalFlow(objective, budget, time_constant, power)


Speed = Annotated[float | Tensor, Range("s", 0.1, 10.0, "factor of the velocity")]
Hidden = Annotated[int, Range("m", 1, 32, "hidden units")]
InitialScale = Annotated[float, Range("σ", 0.0, 1.0, "standard deviation of the initial parameters")]


@DYNAMICS.register("learned-mlp", CoordinatewiseMLPFlow)
def _learned_mlp(
    objective: Objective,
    dtype: torch.dtype | None,
    hidden: Hidden = 8,
    speed: Speed = 1.0,
    scale: InitialScale = 0.1,
    seed: Seed = 0,
) -> CoordinatewiseMLPFlow:
    return CoordinatewiseMLPFlow(objective, hidden, speed, scale=scale, seed=seed, dtype=dtype)


@DYNAMICS.register("learned-lstm", CoordinatewiseLSTMFlow)
def _learned_lstm(
    objective: Objective,
    dtype: torch.dtype | None,
    hidden: Hidden = 8,
    layers: Annotated[int, Range("layers", 1, 3, "cells, one upon the other")] = 1,
    speed: Speed = 1.0,
    time_constant: Annotated[float | Tensor, Range("τ", 0.05, 10.0, "time constant of the cells' states")] = 1.0,
    scale: InitialScale = 0.1,
    seed: Seed = 0,
) -> CoordinatewiseLSTMFlow:
    return CoordinatewiseLSTMFlow(objective, hidden, layers, speed, time_constant, scale=scale, seed=seed, dtype=dtype)
