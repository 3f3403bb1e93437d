"""Online adaptation of any hyperparameter of any step map, by the sensitivity of N since the last adaptation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from odestop._functions import TrackedFunction
from odestop._validation import check_callable, check_count, check_positive, check_state
from odestop.discrete.adjoint import discrete_adjoint
from odestop.discrete.pullback import own_pull_back
from odestop.discrete.recurrence import recurrence_of
from odestop.discrete.step_maps import StepMap
from odestop.optim._update import updated


@dataclass(frozen=True)
class AdaptedHyperparameter:
    """How fast a hyperparameter is adapted, and the range that it stays in.

    Parameters
    ----------
    rate
        η >= 0; in units of θ², or of 1 with ``reparametrize``.
    lower, upper
        lower < θ < upper: 0 and ∞ for a step size, 0 and 1 for a momentum or a beta.

    Raises
    ------
    ValueError
        If the rate is negative, or the range is empty.
    """

    rate: float | int
    lower: float | int = 0.0
    upper: float | int = math.inf

    def __post_init__(self) -> None:
        check_positive("rate", self.rate, allow_zero=True)
        if not (math.isfinite(self.lower) and self.lower < self.upper):
            raise ValueError(f"lower must be finite and less than upper, got {self.lower} and {self.upper}")


@dataclass(frozen=True)
class OnlineRun:
    """A run whose hyperparameters were adapted on the way.

    Attributes
    ----------
    values
        J(x_0), …, J(x_K), shape (K + 1,).
    hyperparameters
        For each of them, the value that step k was taken with, and last the one after x_K, shape (K + 1,), float64.
    position
        x_K, shape (d,).
    update_steps
        The k at whose x_k there was an update, rising.
    vjps
        Vector-Jacobian products of the step map that the sensitivities took.
    """

    values: Float[Tensor, "steps"]
    hyperparameters: dict[str, Tensor]
    position: Float[Tensor, "d"]
    update_steps: list[int]
    vjps: int


class OnlineAdaptation:
    r"""A step map that adapts its hyperparameters as it runs (eq. 13-15 of arXiv 2505.22509, for any step map).

    x_N is compared to the reference point x_R, where the hyperparameters θ were adapted last, x_0 at the start.  When
    J(x_R) - J(x_N) > ε_desc · (number of updates so far) and J(x_N) < J(x_{N-1}), then

        S = -∇J(x_N)ᵀ ∂x_N/∂θ / (J(x_N) - J(x_{N-1})),   θ ← θ - η S,   R ← N:

    Definition 3 with x_R held fixed, its derivative by Algorithm 1 over the steps since, or the last m of them.  While
    J falls by enough at every step, every x_N is the next reference point, and there is one step to differentiate;
    ``every`` makes updates rarer and S longer-sighted.  With one step, the map `odestop.discrete.Adam`, J = f and
    the rate as θ, this is Algorithm 2, as `AdamOLA` takes it.

    Parameters
    ----------
    step_map
        An update rule as for `odestop.discrete.discrete_stopping_time`, with the hyperparameters as attributes that are
        tensors of shape (); its numbers are.  They are changed in place.
    criterion
        ``x -> J(x)``, of shape () for x of shape (d,); f itself for the paper's rule.
    hyperparameters
        `AdaptedHyperparameter` by name, such as ``{"learning_rate": AdaptedHyperparameter(1e-4)}``.
    descent_tolerance
        ε_desc >= 0, in units of J.
    every
        Steps from one update to the next, at least.
    backward_steps
        m; None for all the steps since the reference point.
    reparametrize
        Whether the logarithm of θ - lower, or where upper is finite that of (θ - lower) / (upper - θ), is adapted in
        place of θ.
    max_relative_change
        c > 0, so that no update changes this logarithm by more than ln(1 + c); None for no bound.

    Raises
    ------
    ValueError
        If an argument is out of range, or a hyperparameter is no such tensor.

    Notes
    -----
    An update that would leave the range is left out for the hyperparameter that it concerns, with a RuntimeWarning; one
    that is not finite, without.

    Examples
    --------
    >>> from odestop.discrete import HeavyBall
    >>> from odestop.objectives import DiagonalQuadratic
    >>> f = DiagonalQuadratic([1.0, 10.0])
    >>> heavy_ball = HeavyBall(f, learning_rate=0.01, momentum=0.5)
    >>> adapted = {"learning_rate": AdaptedHyperparameter(0.1), "momentum": AdaptedHyperparameter(0.1, upper=1.0)}
    >>> online = OnlineAdaptation(heavy_ball, f, adapted, every=2, reparametrize=True)
    >>> run = online.run(torch.ones(2), max_steps=40)
    >>> bool(run.values[-1] < 1e-3)  # with constant hyperparameters it is 0.10
    True
    """

    def __init__(
        self,
        step_map: StepMap,
        criterion: Callable[[Tensor], Tensor],
        hyperparameters: Mapping[str, AdaptedHyperparameter],
        *,
        descent_tolerance: float | int = 0.0,
        every: int = 1,
        backward_steps: int | None = None,
        reparametrize: bool = False,
        max_relative_change: float | int | None = None,
    ) -> None:
        self.step_map = check_callable("step_map", step_map, "(k, state) -> state")
        self.criterion = check_callable("criterion", criterion, "x -> J(x)")
        self.hyperparameters = dict(hyperparameters)
        self._tensors = [self._tensor(name) for name in self.hyperparameters]
        self.descent_tolerance = check_positive("descent_tolerance", descent_tolerance, allow_zero=True)
        self.every = check_count("every", every)
        self.backward_steps = None if backward_steps is None else check_count("backward_steps", backward_steps)
        self.reparametrize = reparametrize
        if max_relative_change is not None:
            check_positive("max_relative_change", max_relative_change)
        self.max_relative_change = max_relative_change

    def run(self, x0: Float[Tensor, "d"], max_steps: int, threshold: float | int = -math.inf) -> OnlineRun:
        """Step from x0 until J ≤ threshold, J is not finite, or ``max_steps`` are taken.

        Parameters
        ----------
        x0
            Start point, shape (d,).
        max_steps
            K, at most.
        threshold
            ε.

        Raises
        ------
        ValueError
            If x0 is no such point.
        """
        check_count("max_steps", max_steps)
        if check_state("x0", x0).ndim != 1:
            raise ValueError(f"x0 must have shape (d,), got {tuple(x0.shape)}")
        recurrence = recurrence_of(self.step_map, self.criterion, x0.detach(), torch.zeros_like(x0[0]))
        step = TrackedFunction("step_map", recurrence.step)
        criterion = TrackedFunction("criterion", recurrence.criterion)
        state = recurrence.start.detach()
        values, history = [float(criterion.probe(state))], [self._values()]
        reference, vjps = values[0], 0
        update_steps: list[int] = []
        since: deque[Tensor] = deque(maxlen=self.backward_steps)
        for k in range(max_steps):
            if values[-1] <= threshold or not math.isfinite(values[-1]):
                break
            since.append(state)
            state = (step if k > 0 else step.probe)(k, state)
            values.append(float(criterion(state)))
            due = k + 1 >= (update_steps[-1] if update_steps else 0) + self.every
            fallen = reference - values[-1] > self.descent_tolerance * len(update_steps)
            if due and fallen and values[-1] < values[-2]:
                self._update(self._sensitivities(recurrence.step, criterion, k + 1, since, state, values))
                reference, vjps = values[-1], vjps + len(since)
                update_steps.append(k + 1)
                since.clear()
            history.append(self._values())
        by_name = zip(self.hyperparameters, torch.tensor(history, dtype=torch.float64).T, strict=True)
        position = getattr(self.step_map, "position", lambda state: state)(state)
        return OnlineRun(x0.new_tensor(values), dict(by_name), position, update_steps, vjps)

    def _sensitivities(
        self,
        step: Callable[[int, Tensor], Tensor],
        criterion: TrackedFunction,
        count: int,
        since: Sequence[Tensor],
        state: Tensor,
        values: list[float],
    ) -> list[float]:
        """Return S of every hyperparameter at x_N, N = ``count``, with the first state of ``since`` held fixed."""
        leaf = state.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(criterion.with_graph(leaf), leaf)
        later = _Later(step, count - len(since))
        _, sums = discrete_adjoint(later, list(since), gradient, self._tensors)
        return [-float(total) / (values[-1] - values[-2]) for total in sums]

    def _update(self, sensitivities: list[float]) -> None:
        rules = self.hyperparameters.values()
        for tensor, rule, sensitivity in zip(self._tensors, rules, sensitivities, strict=True):
            new = updated(
                tensor.item(),
                rule.rate,
                sensitivity,
                lower=rule.lower,
                upper=rule.upper,
                reparametrize=self.reparametrize,
                max_relative_change=self.max_relative_change,
            )
            if new is not None:
                with torch.no_grad():
                    tensor.fill_(new)

    def _values(self) -> list[float]:
        return [tensor.item() for tensor in self._tensors]

    def _tensor(self, name: str) -> Tensor:
        tensor = getattr(self.step_map, name, None)
        if not (isinstance(tensor, Tensor) and tensor.ndim == 0 and tensor.is_leaf and tensor.requires_grad):
            raise ValueError(
                f"hyperparameters must name attributes of step_map that are leaf tensors of shape () which require a "
                f"gradient, got {name!r}"
            )
        return tensor


class _Later:
    """A step map whose step 0 is another one's step ``first``."""

    def __init__(self, step_map: Callable[[int, Tensor], Tensor], first: int) -> None:
        self._step_map, self._first = step_map, first
        self._pull_back = own_pull_back(step_map)

    def __call__(self, k: int, state: Tensor) -> Tensor:
        return self._step_map(self._first + k, state)

    def pull_back(
        self, k: int, state: Tensor, cotangent: Tensor, parameters: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]] | None:
        """Pull a cotangent back by the other's own formula, if it has one."""
        return self._pull_back(self._first + k, state, cotangent, parameters)
