"""How the step count answers a change: Definition 3, and the exact derivative of the fractional step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from odestop._validation import check_choice


class CrossingWeights(NamedTuple):
    """Weights of dN = final · dJ(x_N) + previous · dJ(x_{N-1}) + threshold · dε, each of shape (*batch,).

    dJ covers a change of the iterate and a change of the criterion's own parameters.  ``previous`` is None
    where x_{N-1} has no part.
    """

    final: Tensor
    previous: Tensor | None
    threshold: Tensor


@runtime_checkable
class Sensitivity(Protocol):
    """A step count from the crossing of the threshold, J(x_{N-1}) > ε ≥ J(x_N), and its derivative."""

    def steps(self, count: Tensor, previous_value: Tensor, final_value: Tensor, threshold: Tensor) -> Tensor:
        """Return the step count, shape (*batch,), in the dtype of the values."""
        ...

    def weights(self, previous_value: Tensor, final_value: Tensor, threshold: Tensor) -> CrossingWeights:
        """Return what a change of J at either end and of the threshold does to the step count."""
        ...


@dataclass(frozen=True)
class Definition3:
    """The paper's sensitivity: N itself, with the derivative that Definition 3 gives it.

    ∂N/∂θ := -∇J(x_N)ᵀ ∂x_N/∂θ / (J(x_N) - J(x_{N-1})) (eq. 8), and the same for x0.  The same rule gives
    1 / (J(x_N) - J(x_{N-1})) for the threshold and -∂J(x_N; φ)/∂φ / (J(x_N) - J(x_{N-1})) for parameters φ of
    the criterion.  It jumps with N, and h ∂N/∂θ is O(h) off ∂T/∂θ (Thm. 2).

    Examples
    --------
    >>> import torch
    >>> before, after, threshold = torch.tensor(1.5), torch.tensor(0.5), torch.tensor(0.75)
    >>> Definition3().steps(torch.tensor(4), before, after, threshold)
    tensor(4.)
    >>> Definition3().weights(before, after, threshold).final
    tensor(1.)
    """

    def steps(
        self,
        count: Int[Tensor, "*batch"],
        previous_value: Float[Tensor, "*batch"],
        final_value: Float[Tensor, "*batch"],
        threshold: Float[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch"]:
        """Return N."""
        return count.to(final_value.dtype)

    def weights(
        self,
        previous_value: Float[Tensor, "*batch"],
        final_value: Float[Tensor, "*batch"],
        threshold: Float[Tensor, "*batch"],
    ) -> CrossingWeights:
        """Return the weights of equation 8."""
        decrease = previous_value - final_value
        return CrossingWeights(final=1 / decrease, previous=None, threshold=-1 / decrease)


@dataclass(frozen=True)
class Interpolated:
    """The fractional step N̂ = N - 1 + (J(x_{N-1}) - ε) / (J(x_{N-1}) - J(x_N)), with its exact derivative.

    N̂ lies in (N - 1, N], is continuous in everything it depends on, also where N jumps, and is
    differentiable within a step count.

    Examples
    --------
    >>> import torch
    >>> before, after, threshold = torch.tensor(1.5), torch.tensor(0.5), torch.tensor(0.75)
    >>> Interpolated().steps(torch.tensor(4), before, after, threshold)
    tensor(3.7500)
    >>> Interpolated().weights(before, after, threshold).previous
    tensor(0.2500)
    """

    def steps(
        self,
        count: Int[Tensor, "*batch"],
        previous_value: Float[Tensor, "*batch"],
        final_value: Float[Tensor, "*batch"],
        threshold: Float[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch"]:
        """Return N̂."""
        fraction = (previous_value - threshold) / (previous_value - final_value)
        return count.to(final_value.dtype) - 1 + fraction

    def weights(
        self,
        previous_value: Float[Tensor, "*batch"],
        final_value: Float[Tensor, "*batch"],
        threshold: Float[Tensor, "*batch"],
    ) -> CrossingWeights:
        """Return the partial derivatives of N̂."""
        decrease = previous_value - final_value
        fraction = (previous_value - threshold) / decrease
        return CrossingWeights(final=fraction / decrease, previous=(1 - fraction) / decrease, threshold=-1 / decrease)


_ALIASES: dict[str, Sensitivity] = {"definition3": Definition3(), "interpolated": Interpolated()}


def resolve_sensitivity(sensitivity: str | Sensitivity) -> Sensitivity:
    """Return the sensitivity behind a string alias; an object passes through."""
    if isinstance(sensitivity, str):
        return _ALIASES[check_choice("sensitivity", sensitivity, tuple(_ALIASES))]
    if not isinstance(sensitivity, Sensitivity):
        raise ValueError(
            f"sensitivity must be one of {', '.join(map(repr, _ALIASES))} or a Sensitivity object, got {sensitivity!r}"
        )
    return sensitivity
