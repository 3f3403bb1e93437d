"""Learned optimizers: a small network for every coordinate, the same for all, so that they fit any dimension.

Both see a partial derivative g_i by the features (g_i, asinh(g_i/δ)/asinh(1/δ)).  The second is a smooth, odd
logarithm: it tells derivatives down to the scale δ apart, as the pair (log|g|, sign g) of Andrychowicz et al. (2016,
"Learning to learn by gradient descent by gradient descent") does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop._validation import check_count, check_positive
from odestop.dynamics._hyperparameters import NON_NEGATIVE, at_trajectories, register_number
from odestop.dynamics.gradient_driven import GradientDrivenFlow
from odestop.objectives.base import Objective, check_objective

_FEATURES = 2
_SMALL_DERIVATIVE = 1e-4


class CoordinatewiseMLPFlow(GradientDrivenFlow):
    """dx_i/dt = -s (g_i + u(g_i)), g = ∇f(x), with u a perceptron that all coordinates share.

    u(g) = Σ_j v_j (tanh(w_jᵀ φ(g) + b_j) - tanh(-w_jᵀ φ(g) + b_j)) has one hidden layer on the features φ of g.  It
    is odd, so that it vanishes with g: stationary points of f are at rest.  It starts small, near the gradient flow
    at speed s, and exactly there for ``scale=0``.

    The discrete algorithm x - h s (g + u(g)) is forward Euler of this flow: a learned optimizer without memory.

    Parameters
    ----------
    objective
        f.
    hidden
        Hidden units; they have 4 parameters each, all differentiable.
    speed
        s > 0, a number or a tensor of shape () or (*batch,); differentiable.
    scale
        Standard deviation of the normal distribution that the network's parameters are drawn from, at least 0.
    seed
        Seed of that draw; the same numbers, up to rounding, in every dtype and on every device.
    dtype, device
        Where the network's parameters go; PyTorch's defaults if not given.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or another argument is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = CoordinatewiseMLPFlow(DiagonalQuadratic([1.0, 4.0]), hidden=4)
    >>> sum(parameter.numel() for parameter in flow.parameters())
    17
    >>> flow(torch.tensor(0.0), torch.zeros(3, 2)).abs().sum().item()
    0.0
    """

    speed: Tensor
    coordinatewise = True

    def __init__(
        self,
        objective: Objective,
        hidden: int = 8,
        speed: float | int | Tensor = 1.0,
        *,
        scale: float | int = 0.1,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        register_number(self, "speed", speed)
        check_count("hidden", hidden)
        shapes = (hidden, _FEATURES), (hidden,), (hidden,)
        weight, bias, readout = _draws(shapes, scale, seed, dtype, device)
        self.weight, self.bias, self.readout = nn.Parameter(weight), nn.Parameter(bias), nn.Parameter(readout)

    def response(
        self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch d"], gradient: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return dx/dt; t, of shape () or (*batch, 1), plays no part."""
        inner = _features(gradient) @ self.weight.mT
        outer = torch.tanh(inner + self.bias) - torch.tanh(self.bias - inner)
        return -at_trajectories(self.speed, state) * (gradient + outer @ self.readout)


class CoordinatewiseLSTMFlow(nn.Module):
    """dx_i/dt = -s (a g_i + vᵀ h̃_i), d(h_i, c_i)/dt = ((h̃_i, c̃_i) - (h_i, c_i))/τ, (h̃_i, c̃_i) = LSTM(g_i, (h_i, c_i)).

    The recurrent optimizer of Andrychowicz et al. (2016, "Learning to learn by gradient descent by gradient descent")
    in continuous time, with the gradient g = ∇f(x) passed by the cell as well.  All coordinates share the cell and
    each has hidden states of its own.  With several layers each cell reads the output h̃ of the one before.

    One Euler step of size h = τ *is* a step of the discrete optimizer: the cell's states are replaced by (h̃, c̃), and
    x moves by -τ s (a g + vᵀ h̃).  The flow is the limit for smaller steps at the same τ, with states that follow the
    cell, like leaky ones, at the rate h/τ.

    The state is x and, behind it, every cell's h and c for every coordinate: shape (*batch, d (1 + 2 layers hidden)).
    These start at 0.  The cells start without a bias of their input (g = 0 then leaves h = c = 0 at rest), but may
    learn one.

    Parameters
    ----------
    objective
        f.
    hidden
        Hidden units of each cell; differentiable in all parameters of the cells and in v.
    layers
        Cells, one upon the other.
    speed
        s > 0, a number or a tensor of shape () or (*batch,); differentiable.
    time_constant
        τ > 0, likewise.
    gradient_weight
        a ≥ 0, likewise; 0 leaves everything to the cells, as in the paper above.
    scale
        Standard deviation of the normal distribution that weights are drawn from, at least 0.
    seed
        Seed of that draw; the same numbers, up to rounding, in every dtype and on every device.
    dtype, device
        Where the cells' parameters go; PyTorch's defaults if not given.

    Attributes
    ----------
    position
        Maps states to their x.

    Raises
    ------
    ValueError
        If ``objective`` is not an `Objective`, or another argument is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> flow = CoordinatewiseLSTMFlow(DiagonalQuadratic([1.0, 4.0]), hidden=3, layers=2)
    >>> state = flow.initial_state(torch.ones(5, 2))
    >>> state.shape, flow(torch.tensor(0.0), state).shape
    (torch.Size([5, 26]), torch.Size([5, 26]))
    """

    speed: Tensor
    time_constant: Tensor
    gradient_weight: Tensor

    def __init__(
        self,
        objective: Objective,
        hidden: int = 8,
        layers: int = 1,
        speed: float | int | Tensor = 1.0,
        time_constant: float | int | Tensor = 1.0,
        gradient_weight: float | int | Tensor = 1.0,
        *,
        scale: float | int = 0.1,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.objective = check_objective(objective)
        register_number(self, "speed", speed)
        register_number(self, "time_constant", time_constant)
        register_number(self, "gradient_weight", gradient_weight, NON_NEGATIVE)
        self.hidden, self.layers = check_count("hidden", hidden), check_count("layers", layers)
        inputs = [_FEATURES] + [hidden] * (layers - 1)
        shapes = [shape for size in inputs for shape in ((4 * hidden, size), (4 * hidden, hidden))]
        *weights, readout = _draws((*shapes, (hidden,)), scale, seed, dtype, device)
        self.readout = nn.Parameter(readout)
        self.cells = nn.ModuleList(
            _cell(input_weight, hidden_weight)
            for input_weight, hidden_weight in zip(weights[::2], weights[1::2], strict=True)
        )

    def initial_state(self, x0: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch m"]:
        """Return x0 with empty cells."""
        return torch.cat([x0, x0.new_zeros(*x0.shape[:-1], 2 * self.layers * self.hidden * x0.shape[-1])], dim=-1)

    def position(self, state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch d"]:
        """Return the x of a state."""
        return state[..., : state.shape[-1] // (1 + 2 * self.layers * self.hidden)]

    def forward(self, t: Float[Tensor, "*time"], state: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
        """Return d(x, h, c)/dt; t, of shape () or (*batch, 1), plays no part."""
        x = self.position(state)
        gradient = self.objective.gradient(x)
        memory = state[..., x.shape[-1] :].reshape(*x.shape, 2 * self.layers, self.hidden)
        signal, new = _features(gradient).flatten(0, -2), []
        for cell, old in zip(self.cells, memory.flatten(0, -3).split(2, dim=-2), strict=True):
            new.extend(cell(signal, (old[:, 0], old[:, 1])))
            signal = new[-2]
        output = at_trajectories(self.gradient_weight, x) * gradient + (signal @ self.readout).reshape(x.shape)
        change = torch.stack(new, dim=-2).reshape(memory.shape) - memory
        forgetting = change.flatten(-3) / at_trajectories(self.time_constant, x)
        return torch.cat([-at_trajectories(self.speed, x) * output, forgetting], dim=-1)


def _features(gradient: Tensor) -> Tensor:
    """Features of every partial derivative, shape (*batch, d, 2)."""
    logarithm = torch.asinh(gradient / _SMALL_DERIVATIVE) / math.asinh(1 / _SMALL_DERIVATIVE)
    return torch.stack([gradient, logarithm], dim=-1)


def _draws(
    shapes: Sequence[tuple[int, ...]],
    scale: float | int,
    seed: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> list[Tensor]:
    """Normal numbers of a standard deviation, of each shape."""
    check_positive("scale", scale, allow_zero=True)
    generator = torch.Generator().manual_seed(seed)
    draws = (scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return [draw.to(dtype=dtype or torch.get_default_dtype(), device=device) for draw in draws]


def _cell(input_weight: Tensor, hidden_weight: Tensor) -> nn.LSTMCell:
    """An LSTM cell with these weights, remembering at first: the bias of its forget gate is 1, the others are 0."""
    hidden = hidden_weight.shape[1]
    cell = nn.utils.skip_init(
        nn.LSTMCell, input_weight.shape[1], hidden, dtype=input_weight.dtype, device=input_weight.device
    )
    with torch.no_grad():
        cell.weight_ih.copy_(input_weight)
        cell.weight_hh.copy_(hidden_weight)
        cell.bias_hh.zero_()
        cell.bias_ih.zero_()[hidden : 2 * hidden] = 1.0
    return cell
