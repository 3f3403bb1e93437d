"""Hypergradient descent on a diagonal step size and on the momentum of the heavy ball."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from odestop._validation import check_positive
from odestop.optim._adapted_adam import Closure, evaluate, loss_value, present_gradients

_LARGEST_MOMENTUM = 0.9995
_TINY = 1e-12


class HDM(torch.optim.Optimizer):
    """Hypergradient descent with heavy-ball momentum (Chu, Gao, Ye, Udell, 2025, arXiv 2502.11229).

    With a step size P for each coordinate and one momentum β, the trial point of step k is

        x⁺ = x_k - P ∇f(x_k) + β (x_k - x_{k-1}),

    and P and β follow the gradient of (f(x⁺) - f(x_k)) / w with w = ‖∇f(x_k)‖² + L²/4 ‖x_k - x_{k-1}‖², which is
    -∇f(x⁺) ∇f(x_k) / w, coordinate by coordinate, in P, and ∇f(x⁺)ᵀ (x_k - x_{k-1}) / w in β, by Adagrad.  P is kept at
    0 or above, β in [0, 0.9995].  The trial point is accepted if f(x⁺) < f(x_k), otherwise x_{k+1} = x_k.

    This is the method in its plain form.  The authors' own code also estimates L as it runs and lowers the rate of P
    over time; that is left out.

    Parameters
    ----------
    params
        Real floating-point tensors, in one parameter group.
    lr
        Rate of the Adagrad on P, > 0, in units of P; P itself begins at 0 and is ``optimizer.state[x]["step_size"]``.
    momentum
        β at the start; ``optimizer.param_groups[0]["momentum"]`` is the current one.
    momentum_rate
        Rate of the Adagrad on β, >= 0.
    smoothness
        L >= 0 in w, a Lipschitz constant of ∇f; 0 leaves the term out.

    Raises
    ------
    ValueError
        If an argument is out of range, a parameter is complex, or there are several parameter groups; in `step`, if it
        gets no closure, or the loss at the start is not finite.
    RuntimeError
        In `step`, if a gradient is sparse.

    Notes
    -----
    The objective must be deterministic.  Each step costs one evaluation of the closure, the first one two.  Where the
    loss or the gradient at the trial point is not finite, the step sizes are halved in place of the rule.

    Examples
    --------
    >>> x = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> optimizer = HDM([x], lr=0.05)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = x[0] ** 2 + 4 * x[1] ** 2
    ...     loss.backward()
    ...     return loss
    >>> for _ in range(50):
    ...     loss = optimizer.step(closure)
    >>> loss < 1e-3
    True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | int,
        momentum: float | int = 0.95,
        *,
        momentum_rate: float | int = 1.0,
        smoothness: float | int = 0.0,
    ) -> None:
        check_positive("lr", lr)
        if not 0 <= momentum <= _LARGEST_MOMENTUM:
            raise ValueError(f"momentum must be at least 0 and at most {_LARGEST_MOMENTUM}, got {momentum}")
        check_positive("momentum_rate", momentum_rate, allow_zero=True)
        check_positive("smoothness", smoothness, allow_zero=True)
        options = {"lr": lr, "momentum": momentum, "momentum_rate": momentum_rate, "smoothness": smoothness}
        super().__init__(params, {**options, "momentum_squares": 0.0, "loss": math.nan})
        if len(self.param_groups) != 1:
            raise ValueError(f"params must be in one parameter group, got {len(self.param_groups)}")
        if not all(p.is_floating_point() for p in self.param_groups[0]["params"]):
            raise ValueError("params must be real floating-point tensors, got a complex one")

    @torch.no_grad()
    def step(self, closure: Closure) -> float:  # type: ignore[override]
        """Evaluate the trial point, adapt P and β by it, and accept it if the loss is lower there.

        Parameters
        ----------
        closure
            Clears the gradients, computes the loss, calls ``backward()`` and returns the loss.

        Returns
        -------
        float
            The loss before the step.
        """
        if not callable(closure):
            raise ValueError(f"step must get a closure, got {type(closure).__name__}")
        group = self.param_groups[0]
        parameters: list[Tensor] = group["params"]
        if not self.state:
            self._start(closure)
        loss = group["loss"]
        states = [self.state[p] for p in parameters]
        places = [p.clone() for p in parameters]
        displacements = [place - state["previous"] for place, state in zip(places, states, strict=True)]
        for p, state, displacement in zip(parameters, states, displacements, strict=True):
            p.addcmul_(state["step_size"], state["gradient"], value=-1).add_(displacement, alpha=group["momentum"])
        trial_loss = loss_value(evaluate(closure))
        trial_gradients = _gradients(parameters)
        finite = math.isfinite(trial_loss) and all(bool(gradient.isfinite().all()) for gradient in trial_gradients)
        if finite:
            self._adapt(group, states, displacements, trial_gradients)
        else:
            torch._foreach_mul_([state["step_size"] for state in states], 0.5)
        accepted = finite and trial_loss < loss
        for p, state, place, gradient in zip(parameters, states, places, trial_gradients, strict=True):
            state["previous"] = place
            if accepted:
                state["gradient"] = gradient
            else:
                p.copy_(place)
        if accepted:
            group["loss"] = trial_loss
        return loss

    def _start(self, closure: Closure) -> None:
        """Evaluate the start point; P is zero there."""
        group = self.param_groups[0]
        loss = evaluate(closure)
        value = loss_value(loss)
        if math.isnan(value):
            raise ValueError(f"the loss at the start must be finite, got {loss}")
        group["loss"] = value
        for p, gradient in zip(group["params"], _gradients(group["params"]), strict=True):
            zeros = torch.zeros_like(p)
            self.state[p] = {"gradient": gradient, "previous": p.clone(), "step_size": zeros, "squares": zeros.clone()}

    def _adapt(
        self,
        group: dict[str, Any],
        states: list[dict[str, Tensor]],
        displacements: list[Tensor],
        trial_gradients: list[Tensor],
    ) -> None:
        """Take one step of Adagrad in P and in β."""
        gradients = [state["gradient"] for state in states]
        scale = _dot(gradients, gradients) + group["smoothness"] ** 2 / 4 * _dot(displacements, displacements) + _TINY
        for state, trial in zip(states, trial_gradients, strict=True):
            hypergradient = trial * state["gradient"] / -scale
            squares = state["squares"].addcmul_(hypergradient, hypergradient)
            state["step_size"].addcdiv_(hypergradient, squares.sqrt() + _TINY, value=-group["lr"]).clamp_(min=0)
        slope = _dot(trial_gradients, displacements) / scale
        group["momentum_squares"] += slope * slope
        change = group["momentum_rate"] * slope / (math.sqrt(group["momentum_squares"]) + _TINY)
        group["momentum"] = min(max(group["momentum"] - change, 0.0), _LARGEST_MOMENTUM)


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    """Return copies of the gradients, zero where there is none."""
    present_gradients(parameters)
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


def _dot(left: list[Tensor], right: list[Tensor]) -> float:
    return float(sum((a * b).sum() for a, b in zip(left, right, strict=True)))
