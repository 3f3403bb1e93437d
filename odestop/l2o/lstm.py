"""Long short-term memory for every coordinate: one fused call over all coordinates of all problems.

Features come before coordinates in memory, (*batch, features, d): the four gates of a cell are then contiguous blocks,
which the elementwise operations run through at full speed, and the memory of a cell is a number of vectors like x, as
that of any other step map.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from odestop._validation import check_count


class CoordinatewiseLSTM(nn.Module):
    """Cells, one upon the other, that all coordinates share; each coordinate has hidden states of its own.

    With the signal s (the features, or the output h of the cell below), coordinate by coordinate and with the rows of
    W in four blocks:  (i, f, o, u) = W [s, h, 1],  c ← σ(f) c + σ(i) tanh(u),  h ← σ(o) tanh(c).  The backward pass
    is written out, for first derivatives only.

    Parameters
    ----------
    features
        Rows of the input.
    hidden
        Hidden units of each cell.
    layers
        Number of cells.
    generator
        Draws the weights, uniform in ±1/√hidden, in double precision: the same numbers in every dtype, up to rounding.
    dtype, device
        Where the weights go; PyTorch's defaults if not given.

    Attributes
    ----------
    weights
        W of every cell, shape (4 hidden, inputs + hidden + 1), the bias in its last column.

    Raises
    ------
    ValueError
        If a size is not a positive integer.

    Examples
    --------
    >>> lstm = CoordinatewiseLSTM(features=2, hidden=3, layers=2, generator=torch.Generator().manual_seed(0))
    >>> memory = tuple(torch.zeros(5, 3, 7) for _ in range(4))  # h, c, h, c for 5 problems of 7 coordinates
    >>> output, memory = lstm(torch.ones(5, 2, 7), memory)
    >>> output.shape, len(memory)
    (torch.Size([5, 3, 7]), 4)
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        layers: int,
        generator: torch.Generator,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        check_count("features", features)
        self.hidden, self.layers = check_count("hidden", hidden), check_count("layers", layers)
        bound = 1 / math.sqrt(hidden)
        inputs = [features] + [hidden] * (layers - 1)
        self.weights = nn.ParameterList(
            uniform_parameter((4 * hidden, size + hidden + 1), bound, generator, dtype, device) for size in inputs
        )

    def forward(
        self, signal: Float[Tensor, "*batch features d"], memory: tuple[Tensor, ...]
    ) -> tuple[Float[Tensor, "*batch hidden d"], tuple[Tensor, ...]]:
        """Return the output of the last cell and the next memory (h, c, h, c, …), each of shape (*batch, hidden, d)."""
        following: list[Tensor] = []
        for weight, h, c in zip(self.weights, memory[::2], memory[1::2], strict=True):
            signal, c = _Cell.apply(weight, signal, h, c)
            following += [signal, c]
        return signal, tuple(following)


def uniform_parameter(
    shape: tuple[int, ...],
    bound: float,
    generator: torch.Generator,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> nn.Parameter:
    """Draw a parameter, uniform in ±bound."""
    draw = (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) * bound
    return nn.Parameter(draw.to(dtype=dtype or torch.get_default_dtype(), device=device))


def mix_rows(
    weight: Float[Tensor, "rows features"], signal: Float[Tensor, "*batch features d"]
) -> Float[Tensor, "*batch rows d"]:
    """Return W s for every coordinate."""
    stacked = signal.reshape(-1, *signal.shape[-2:])
    mixed = torch.bmm(weight.expand(len(stacked), -1, -1), stacked)
    return mixed.reshape(*signal.shape[:-2], *mixed.shape[-2:])


def with_ones(*parts: Float[Tensor, "*batch _ d"]) -> Float[Tensor, "*batch rows d"]:
    """Return the rows of all parts and a row of ones, by which a matrix has its bias as a last column."""
    return torch.cat([*parts, torch.ones_like(parts[0][..., :1, :])], dim=-2)


class _Cell(torch.autograd.Function):
    """One cell: (W, s, h, c) -> (h, c)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, signal: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        inputs = with_ones(signal, h)
        gates = mix_rows(weight, inputs)
        hidden = c.shape[-2]
        gates[..., : 3 * hidden, :].sigmoid_()
        gates[..., 3 * hidden :, :].tanh_()
        let_in, keep, let_out, update = gates.split(hidden, dim=-2)
        following = torch.mul(keep, c).addcmul_(let_in, update)
        squashed = following.tanh()
        ctx.save_for_backward(weight, inputs, c, gates, squashed)
        return let_out * squashed, following

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_h: Tensor, d_following: Tensor) -> tuple[Tensor, ...]:
        weight, inputs, c, gates, squashed = ctx.saved_tensors
        hidden = c.shape[-2]
        let_in, keep, let_out, update = gates.split(hidden, dim=-2)
        d_gates = torch.empty_like(gates)
        d_let_in, d_keep, d_let_out, d_update = d_gates.split(hidden, dim=-2)
        torch.mul(d_h, squashed, out=d_let_out)
        d_c = torch.ops.aten.tanh_backward(d_h * let_out, squashed).add_(d_following)
        torch.mul(d_c, update, out=d_let_in)
        torch.mul(d_c, c, out=d_keep)
        torch.mul(d_c, let_in, out=d_update)
        sigmoids, d_sigmoids = gates[..., : 3 * hidden, :], d_gates[..., : 3 * hidden, :]
        torch.ops.aten.sigmoid_backward.grad_input(d_sigmoids, sigmoids, grad_input=d_sigmoids)
        torch.ops.aten.tanh_backward.grad_input(d_update, update, grad_input=d_update)
        stacked, d_stacked = (rows.reshape(-1, *rows.shape[-2:]) for rows in (inputs, d_gates))
        d_weight = torch.bmm(d_stacked, stacked.mT).sum(0)
        # Nobody asks for the derivative of the ones.
        d_inputs = mix_rows(weight[:, :-1].mT, d_gates)
        features = d_inputs.shape[-2] - hidden
        return d_weight, d_inputs[..., :features, :], d_inputs[..., features:, :], d_c.mul_(keep)
