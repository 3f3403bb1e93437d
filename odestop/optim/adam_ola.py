"""Adam that adapts its own step size by the sensitivity of its step count: Algorithm 2 of the paper."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from odestop._validation import check_positive
from odestop.optim._adapted_adam import AdaptedAdam, Closure, evaluate, loss_value
from odestop.optim._update import updated


class AdamOLA(AdaptedAdam):
    r"""Adam with online adaptation of the step size (Algorithm 2, eq. 13-15 of arXiv 2505.22509).

    An Adam step goes from x_k to x_{k+1} = x_k - α d_k with d_k = m̂ / (√v̂ + ε).  If x_{k+1} were where a target is
    met, the sensitivity of the step count N to α, by Definition 3 and with x_k held fixed, would be

        S_k = ∇f(x_{k+1})ᵀ d_k / (f(x_{k+1}) - f(x_k)),

    and α ← α - η S_k is a step of gradient descent on N.  It is taken only when

        f_ref - f(x_{k+1}) > ε_desc · (number of updates of α so far),

    and then f_ref ← f(x_{k+1}); f_ref is f(x_0) at the start.  This condition implies that f(x_{k+1}) < f(x_k): the
    denominator is negative.  So the **sign rule** is: ∇f(x_{k+1})ᵀ d_k > 0 raises α, because f still falls along
    -d_k at the end of the step, which was too short; ∇f(x_{k+1})ᵀ d_k < 0 lowers α, because the step went past the
    minimum along d_k.

    f(x_{k+1}) and ∇f(x_{k+1}) are those of the next call of `step`, which first adapts α by the last direction and then
    takes its own step: an iteration costs one gradient.  With ``reevaluate=True`` the closure is called again after
    the step instead, as Algorithm 2 is written.  On a deterministic objective the iterates are the same.  On
    minibatches they are not: only the second form compares two losses on the same batch.

    Each parameter group has its own α, its ``"lr"``, which is adapted by the group's own partial derivative: the sum in
    the numerator runs over the parameters of the group.  For one α, use one group.  With ``weight_decay`` the step is
    that of ``torch.optim.AdamW``, and d_k + weight_decay · x_k is in place of d_k above.  With ``adaptation_rate=0``
    it is ``torch.optim.Adam`` or ``AdamW`` bit for bit.

    Parameters
    ----------
    params
        Parameters or parameter groups, as for every optimizer of torch: real floating-point tensors.
    lr
        α >= 0 at the start; one of 0 is not adapted.  ``optimizer.param_groups[i]["lr"]`` is the current one, a float,
        which a scheduler may change too.
    betas
        0 <= β₁, β₂ < 1.
    eps
        ε >= 0.
    weight_decay
        Decoupled weight decay w >= 0.
    adaptation_rate
        η >= 0.  Where the steps are short, S_k is about -1/α, so that η is in units of α²; with ``log_rate`` it is a
        pure number.
    descent_tolerance
        ε_desc >= 0, in units of the loss.
    reevaluate
        Whether ``step(closure)`` evaluates the closure a second time, after the step.
    log_rate
        Whether ln α is adapted rather than α: α ← α exp(-η α S_k), which stays positive.
    max_relative_change
        c > 0, so that an update leaves α within [α / (1 + c), α (1 + c)]; None for no bound.
    foreach
        Whether to work on all tensors at once; None to choose as ``torch.optim.Adam`` does.

    Raises
    ------
    ValueError
        If an argument is out of range, a parameter is complex, or `step` gets no loss.
    RuntimeError
        In `step`, if a gradient is sparse.

    Notes
    -----
    What happens where the rule says nothing useful:

    * f(x_{k+1}) ≥ f(x_k), or a loss that is not finite: no update of α, Adam's step all the same.
    * S_k not finite, or α zero: no update of α.
    * α - η S_k ≤ 0: no update of α, and a RuntimeWarning.  `log_rate` avoids it.
    * A parameter whose gradient is None, now or at the step before, is not part of the sum.

    Each parameter group also holds ``"sensitivity"``, the last S_k that updated α, ``"updates"``, their number,
    ``"reference_loss"``, f_ref, and ``"previous_loss"``, f(x_k); all are part of the ``state_dict``.  The loss is read
    from its device at every step.

    Examples
    --------
    >>> x = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> optimizer = AdamOLA([x], lr=0.01, adaptation_rate=1e-4)
    >>> for _ in range(101):
    ...     optimizer.zero_grad()
    ...     loss = x[0] ** 2 + 4 * x[1] ** 2
    ...     loss.backward()
    ...     _ = optimizer.step(loss=loss)  # or step(closure)
    >>> optimizer.param_groups[0]["lr"] > 0.05, loss.item() < 1e-3  # with a constant rate it is 0.25
    (True, True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | int = 1e-3,
        betas: tuple[float | int, float | int] = (0.9, 0.999),
        eps: float | int = 1e-8,
        weight_decay: float | int = 0.0,
        *,
        adaptation_rate: float | int,
        descent_tolerance: float | int = 0.0,
        reevaluate: bool = False,
        log_rate: bool = False,
        max_relative_change: float | int | None = None,
        foreach: bool | None = None,
    ) -> None:
        own = {
            "adaptation_rate": adaptation_rate,
            "descent_tolerance": descent_tolerance,
            "log_rate": log_rate,
            "max_relative_change": max_relative_change,
            "sensitivity": math.nan,
            "updates": 0,
            "reference_loss": math.nan,
            "previous_loss": math.nan,
            "reevaluate": reevaluate,
        }
        super().__init__(params, lr, betas, eps, weight_decay, foreach, own)

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Closure | None = None, *, loss: Tensor | float | int | None = None
    ) -> Tensor | float | int:
        """Adapt α by the last step, and take the next one.

        Parameters
        ----------
        closure
            Clears the gradients, computes the loss, calls ``backward()`` and returns the loss.
        loss
            In place of a closure: the loss at the present parameters, whose gradients are there already; a number or a
            tensor with one element, not scaled by a GradScaler: ``scaler.step(optimizer, loss=loss)``.

        Returns
        -------
        Tensor | float
            The loss before the step.

        Raises
        ------
        ValueError
            If neither or both are given, or the loss is not one number.
        """
        loss = self._loss(closure, loss)
        value = loss_value(loss)
        if closure is not None and self.defaults["reevaluate"]:
            self._take_steps()
            after = loss_value(evaluate(closure))
            for group in self.param_groups:
                self._adapt(group, value, after)
            return loss
        for group in self.param_groups:
            self._adapt(group, group["previous_loss"], value)
            group["previous_loss"] = value
        self._take_steps()
        return loss

    def _loss(self, closure: Closure | None, loss: Tensor | float | int | None) -> Tensor | float | int:
        if closure is None and self.defaults["reevaluate"]:
            raise ValueError("step must get a closure with reevaluate=True, as the loss is evaluated after it again")
        if closure is not None and loss is None:
            return evaluate(closure)
        if closure is None and loss is not None:
            return loss
        raise ValueError(
            "step must get the loss at the present parameters, either by a closure or as loss=..., "
            f"got {'neither' if loss is None else 'both'}"
        )

    # Decisions on numbers are not for a graph; the steps of Adam are.
    @_disable_dynamo
    def _adapt(self, group: dict[str, Any], previous: float, value: float) -> None:
        """Update α of a group after a step on which the loss went from ``previous`` to ``value``; nan is unknown."""
        if math.isnan(group["reference_loss"]):
            group["reference_loss"] = previous
        fallen = group["reference_loss"] - value > group["descent_tolerance"] * group["updates"]
        # The second condition follows from the first, except after a loss that was not finite and between minibatches.
        if not (fallen and value < previous) or group["adaptation_rate"] == 0:
            return
        group["reference_loss"] = value
        sensitivity = self._slope(group) / (value - previous)
        rate = updated(
            group["lr"],
            group["adaptation_rate"],
            sensitivity,
            reparametrize=group["log_rate"],
            max_relative_change=group["max_relative_change"],
        )
        if rate is not None:
            group.update(lr=rate, sensitivity=sensitivity, updates=group["updates"] + 1)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        for name in ("adaptation_rate", "descent_tolerance"):
            check_positive(name, group[name], allow_zero=True)
        if group["max_relative_change"] is not None:
            check_positive("max_relative_change", group["max_relative_change"])
