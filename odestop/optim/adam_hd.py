"""Adam whose step size follows the hypergradient of the loss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from odestop._validation import check_positive
from odestop.optim._adapted_adam import AdaptedAdam, Closure, evaluate


class AdamHD(AdaptedAdam):
    """Adam with hypergradient descent on its step size (Baydin et al., ICLR 2018, Adam-HD).

    With d_{k-1} = m̂ / (√v̂ + ε) the direction of the step before,

        α ← α + β ∇f(x_k)ᵀ d_{k-1},

    before step k: gradient descent on f(x_k) in the α of one step.  The same slope drives `AdamOLA`, which divides it
    by the fall of f; this rule has no such scale, and no condition either, so that α may become negative.

    Parameters
    ----------
    params
        Parameters or parameter groups: real floating-point tensors.  Each group has its own α.
    lr
        α >= 0 at the start; ``optimizer.param_groups[i]["lr"]`` is the current one.
    betas
        0 <= β₁, β₂ < 1 of Adam.
    eps
        ε >= 0.
    weight_decay
        Decoupled weight decay w >= 0; d_{k-1} + w x_{k-1} is in place of d_{k-1} then.
    hypergradient_rate
        β >= 0 of the rule above, in units of α² per unit of the loss.  With 0 it is ``torch.optim.Adam`` or ``AdamW``
        bit for bit.
    foreach
        Whether to work on all tensors at once; None to choose as ``torch.optim.Adam`` does.

    Raises
    ------
    ValueError
        If an argument is out of range, or a parameter is complex.
    RuntimeError
        In `step`, if a gradient is sparse.

    Notes
    -----
    A slope that is not finite changes nothing.  A parameter whose gradient is None, now or at the step before, is not
    part of it.

    Examples
    --------
    >>> x = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> optimizer = AdamHD([x], lr=0.01, hypergradient_rate=1e-3)
    >>> for _ in range(101):
    ...     optimizer.zero_grad()
    ...     loss = x[0] ** 2 + 4 * x[1] ** 2
    ...     loss.backward()
    ...     _ = optimizer.step()
    >>> loss.item() < 1e-3  # with a constant rate it is 0.25
    True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | int = 1e-3,
        betas: tuple[float | int, float | int] = (0.9, 0.999),
        eps: float | int = 1e-8,
        weight_decay: float | int = 0.0,
        *,
        hypergradient_rate: float | int,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, foreach, {"hypergradient_rate": hypergradient_rate})

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor | float | int | None:  # type: ignore[override]
        """Adapt α by the last step, and take the next one.

        Parameters
        ----------
        closure
            Clears the gradients, computes the loss, calls ``backward()`` and returns the loss; without a closure the
            gradients must be there.

        Returns
        -------
        Tensor | float | None
            What the closure returned.
        """
        loss = None if closure is None else evaluate(closure)
        for group in self.param_groups:
            self._adapt(group)
        self._take_steps()
        return loss

    @_disable_dynamo
    def _adapt(self, group: dict[str, Any]) -> None:
        if group["hypergradient_rate"] != 0:
            rate = group["lr"] + group["hypergradient_rate"] * self._slope(group)
            if math.isfinite(rate):
                group["lr"] = rate

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_positive("hypergradient_rate", group["hypergradient_rate"], allow_zero=True)
