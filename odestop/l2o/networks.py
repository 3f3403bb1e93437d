"""Learned optimizers: networks of weights that become a step map when they meet an objective."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from odestop._numerics import square_root
from odestop._validation import check_count, check_positive
from odestop.l2o.lstm import CoordinatewiseLSTM, mix_rows, uniform_parameter, with_ones
from odestop.l2o.step_map import LearnedStepMap
from odestop.objectives.base import Objective


class LearnedOptimizer(nn.Module):
    """Base of the learned optimizers: weights that know no objective and fit every dimension.

    A small recurrent network is shared by all coordinates, and each coordinate has a memory of its own, zero at the
    start.  Subclasses implement `update`, the one definition of the rule, and say in `memory_rows` what they remember.

    Attributes
    ----------
    options
        The arguments that build the same network again, weights apart: what `odestop.l2o.save` writes down.
    """

    kind: ClassVar[str]
    """The name of the network in configurations and files."""

    options: dict[str, float | int]
    lstm: CoordinatewiseLSTM

    @property
    def memory_rows(self) -> tuple[int, ...]:
        """Rows of each part of the memory, so that it has shape (*batch, rows, d)."""
        return (self.lstm.hidden,) * (2 * self.lstm.layers)

    def update(
        self, k: int, gradient: Float[Tensor, "*batch d"], memory: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*batch d"], tuple[Tensor, ...]]:
        """Return x_{k+1} - x_k, and the memory after step k, from ∇f(x_k) and the memory before."""
        raise NotImplementedError

    def optimizer(self, objective: Objective, *, detach_gradient: bool = False) -> LearnedStepMap:
        """Return the step map that minimises an objective with this network; weights are shared, not copied.

        Parameters
        ----------
        objective
            f.
        detach_gradient
            Whether ∇f(x_k) enters the network as a constant; see `LearnedStepMap`.

        Raises
        ------
        ValueError
            If ``objective`` is not an `Objective`.

        Examples
        --------
        >>> from odestop.objectives import DiagonalQuadratic
        >>> f = DiagonalQuadratic([1.0, 4.0])
        >>> step = RNNprop(hidden=4).optimizer(f)
        >>> step(0, step.initial_state(torch.ones(2))).shape
        torch.Size([38])
        """
        return LearnedStepMap(self, objective, detach_gradient=detach_gradient)


class L2ODM(LearnedOptimizer):
    """The learned optimizer of Andrychowicz et al. (2016, "Learning to learn by gradient descent by gradient descent").

    x_{k+1} = x_k + s o_k, where o_k is a linear function of the last hidden state of stacked LSTM cells, coordinate by
    coordinate.  The cells see a partial derivative g by two features on a logarithmic scale, (log|g|/p, sign g) where
    |g| ≥ e⁻ᵖ and (-1, eᵖ g) below.

    Parameters
    ----------
    hidden
        Hidden units of each cell.
    layers
        Number of cells.
    output_scale
        s > 0.
    preprocessing
        p > 0.
    seed
        Seed of the weights; the same numbers, up to rounding, in every dtype and on every device.
    dtype, device
        Where the weights go; PyTorch's defaults if not given.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = L2ODM(hidden=4).optimizer(DiagonalQuadratic([1.0, 4.0]))
    >>> x0 = torch.ones(3, 2)
    >>> step(0, step.initial_state(x0)).shape  # x, and four times as many numbers for each h and c of two cells
    torch.Size([3, 34])
    """

    kind: ClassVar[str] = "l2o-dm"

    def __init__(
        self,
        hidden: int = 30,
        layers: int = 2,
        *,
        output_scale: float | int = 0.1,
        preprocessing: float | int = 10.0,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_count("hidden", hidden)
        self.output_scale = check_positive("output_scale", output_scale)
        self.preprocessing = check_positive("preprocessing", preprocessing)
        self.options = {
            "hidden": hidden,
            "layers": layers,
            "output_scale": self.output_scale,
            "preprocessing": self.preprocessing,
        }
        generator = torch.Generator().manual_seed(seed)
        self.lstm = CoordinatewiseLSTM(2, hidden, layers, generator, dtype=dtype, device=device)
        self.readout = uniform_parameter((1, hidden + 1), 1 / math.sqrt(hidden), generator, dtype, device)

    def update(
        self, k: int, gradient: Float[Tensor, "*batch d"], memory: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*batch d"], tuple[Tensor, ...]]:
        """Return x_{k+1} - x_k, and the memory after step k."""
        smallest = math.exp(-self.preprocessing)
        logarithm = gradient.abs().clamp(min=smallest).log() / self.preprocessing
        sign = (gradient / smallest).clamp(-1.0, 1.0)
        output, memory = self.lstm(torch.stack([logarithm, sign], dim=-2), memory)
        return self.output_scale * mix_rows(self.readout, with_ones(output)).squeeze(-2), memory


class RNNprop(LearnedOptimizer):
    """The learned optimizer of Lv, Jiang, Li (2017, "Learning gradient descent: better generalization …").

    x_{k+1} = x_k - α tanh(o_k), where o_k is a linear function of the last hidden state of stacked LSTM cells,
    coordinate by coordinate.  The cells see (g, m̂)/√v̂ through a linear layer of ``hidden`` ELU units, with Adam's
    moments, m ← β₁ m + (1 - β₁) g and v ← β₂ v + (1 - β₂) g², and their bias corrections: rescaling f changes nothing.

    Parameters
    ----------
    hidden
        Units of the linear layer, and hidden units of each cell.
    layers
        Number of cells.
    output_scale
        α > 0, the longest step of a coordinate.
    beta1, beta2
        0 <= β₁, β₂ < 1.
    eps
        Added to √v̂, at least 0.
    seed
        Seed of the weights; the same numbers, up to rounding, in every dtype and on every device.
    dtype, device
        Where the weights go; PyTorch's defaults if not given.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from odestop.objectives import DiagonalQuadratic
    >>> step = RNNprop(output_scale=0.1).optimizer(DiagonalQuadratic([1.0, 4.0]))
    >>> path = torch.stack(list(step.iterates(torch.ones(2), 5)))
    >>> bool((path.diff(dim=0).abs() < 0.1).all())
    True
    """

    kind: ClassVar[str] = "rnnprop"

    def __init__(
        self,
        hidden: int = 30,
        layers: int = 2,
        *,
        output_scale: float | int = 0.1,
        beta1: float | int = 0.95,
        beta2: float | int = 0.95,
        eps: float | int = 1e-8,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_count("hidden", hidden)
        self.output_scale = check_positive("output_scale", output_scale)
        self.beta1, self.beta2 = _check_averaging("beta1", beta1), _check_averaging("beta2", beta2)
        self.eps = check_positive("eps", eps, allow_zero=True)
        self.options = {
            "hidden": hidden,
            "layers": layers,
            "output_scale": self.output_scale,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "eps": self.eps,
        }
        generator = torch.Generator().manual_seed(seed)
        self.lstm = CoordinatewiseLSTM(hidden, hidden, layers, generator, dtype=dtype, device=device)
        self.input_layer = uniform_parameter((hidden, 3), 1 / math.sqrt(2), generator, dtype, device)
        self.readout = uniform_parameter((1, hidden + 1), 1 / math.sqrt(hidden), generator, dtype, device)

    @property
    def memory_rows(self) -> tuple[int, ...]:
        """Rows of each part of the memory: m, v, and those of the cells."""
        return (1, 1, *super().memory_rows)

    def update(
        self, k: int, gradient: Float[Tensor, "*batch d"], memory: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*batch d"], tuple[Tensor, ...]]:
        """Return x_{k+1} - x_k, and the memory after step k."""
        mean, square, *cells = memory
        row = gradient.unsqueeze(-2)
        mean = self.beta1 * mean + (1 - self.beta1) * row
        square = self.beta2 * square + (1 - self.beta2) * row * row
        root = square_root(square / (1 - self.beta2 ** (k + 1))) + self.eps
        features = with_ones(row / root, mean / (1 - self.beta1 ** (k + 1)) / root)
        signal = nn.functional.elu(mix_rows(self.input_layer, features))
        output, following = self.lstm(signal, tuple(cells))
        move = torch.tanh(mix_rows(self.readout, with_ones(output)).squeeze(-2))
        return -self.output_scale * move, (mean, square, *following)


NETWORKS: dict[str, type[L2ODM] | type[RNNprop]] = {network.kind: network for network in (L2ODM, RNNprop)}
"""The networks by their names in configurations and files."""


def _check_averaging(name: str, value: float | int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name} must be a number of at least 0 and less than 1, got {value!r}")
    return float(value)
