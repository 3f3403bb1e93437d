"""Adam whose step size changes between the steps, and the slope of the loss along its last direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim.adam import adam

from odestop._validation import check_positive

Closure = Callable[[], Tensor | float]
"""Evaluates the loss, leaves its gradient in the parameters, and returns it."""


class AdaptedAdam(torch.optim.Optimizer):
    """Adam with decoupled weight decay; a subclass adapts each group's ``"lr"`` before or after `_take_steps`.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, foreach
        As for ``torch.optim.AdamW``.
    own
        Further entries of each parameter group.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | int,
        betas: tuple[float | int, float | int],
        eps: float | int,
        weight_decay: float | int,
        foreach: bool | None,
        own: dict[str, Any],
    ) -> None:
        common = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "foreach": foreach}
        super().__init__(params, {**common, "last_lr": math.nan, **own})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, as every optimizer of torch does."""
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Lets the state_dict of torch's own Adam be loaded.
        super().__setstate__(state)
        for group in self.param_groups:
            for key, value in self.defaults.items():
                group.setdefault(key, value)

    def _check_group(self, group: dict[str, Any]) -> None:
        """Raise if an option is out of range or a parameter is not real."""
        for name in ("lr", "eps", "weight_decay"):
            check_positive(name, group[name], allow_zero=True)
        if len(group["betas"]) != 2 or not all(0 <= beta < 1 for beta in group["betas"]):
            raise ValueError(f"betas must be two numbers that are at least 0 and less than 1, got {group['betas']}")
        for parameter in group["params"]:
            if not parameter.is_floating_point():
                raise ValueError(f"params must be real floating-point tensors, got one of dtype {parameter.dtype}")

    # As in torch's own optimizers; torch.compiler.disable would import the whole compiler at this place.
    @_disable_dynamo
    def _slope(self, group: dict[str, Any]) -> float:
        """Return the sum of ∇f · d over the group's parameters that moved by -α d in the last step, nan if none did.

        Here ∇f is the present gradient, and d includes the weight decay of the place before the step.
        """
        moved = [p for p in group["params"] if p.grad is not None and self.state.get(p, {}).get("moved", False)]
        if not moved:
            return math.nan
        states = [self.state[p] for p in moved]
        beta1, beta2 = group["betas"]
        counts = [float(state["step"]) for state in states]
        # d = m̂ / (√v̂ + ε) = (c / b) m / (√v + ε c) with b = 1 - β₁ᵏ and c = √(1 - β₂ᵏ): fewer passes over the tensors.
        scales = [math.sqrt(1 - beta2**count) for count in counts]
        roots = torch._foreach_sqrt([state["exp_avg_sq"] for state in states])
        torch._foreach_add_(roots, [group["eps"] * scale for scale in scales])
        gradients = present_gradients(moved)
        products = torch._foreach_mul([state["exp_avg"] for state in states], gradients)
        torch._foreach_div_(products, roots)
        factors = [scale / (1 - beta1**count) for scale, count in zip(scales, counts, strict=True)]
        total = _weighted_sum(products, factors)
        if group["weight_decay"] == 0:
            return total
        # x_{k+1} = (1 - α w) x_k - α d, so that d + w x_k = (d + w x_{k+1}) / (1 - α w).
        total += _weighted_sum(torch._foreach_mul(moved, gradients), [group["weight_decay"]] * len(moved))
        kept = 1 - group["last_lr"] * group["weight_decay"]
        return total / kept if kept != 0 else math.nan

    def _take_steps(self) -> None:
        """Take one step of Adam in every group, by its present rate."""
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            gradients = present_gradients(moving)
            for p in group["params"]:
                self._prepare_state(p)
            states = [self.state[p] for p in moving]
            if group["weight_decay"] != 0 and moving:
                torch._foreach_mul_(moving, 1 - group["lr"] * group["weight_decay"])
            adam(
                moving,
                gradients,
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                foreach=group["foreach"],
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=0.0,
                eps=group["eps"],
                maximize=False,
            )
            group["last_lr"] = group["lr"]

    def _prepare_state(self, p: Tensor) -> None:
        """Create the moments of a parameter at its first gradient, and note whether it moves now."""
        if p.grad is None and p not in self.state:
            return
        state = self.state[p]
        if not state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        state["moved"] = p.grad is not None


def evaluate(closure: Closure) -> Tensor | float:
    """Call a closure with grad mode on."""
    with torch.enable_grad():
        return closure()


@_disable_dynamo
def loss_value(loss: Tensor | float | int) -> float:
    """Return a loss as a number, nan if it is not finite."""
    if isinstance(loss, Tensor) and loss.numel() != 1:
        raise ValueError(f"loss must be a number or a tensor with one element, got shape {tuple(loss.shape)}")
    value = float(loss.item() if isinstance(loss, Tensor) else loss)
    return value if math.isfinite(value) else math.nan


def present_gradients(parameters: list[Tensor]) -> list[Tensor]:
    """Return the gradients of those parameters that have one.

    Raises
    ------
    RuntimeError
        If one of them is sparse.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if any(gradient.is_sparse for gradient in gradients):
        raise RuntimeError("sparse gradients are not supported; torch.nn.Embedding gives dense ones by sparse=False")
    return gradients


def _weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> float:
    """Return the sum of all entries, those of each tensor times its weight."""
    sums = [tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors]
    return float(sum(part.to(sums[0]) * weight for part, weight in zip(sums, weights, strict=True)))
