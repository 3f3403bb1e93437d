"""The loss of any module as a function of its flattened parameters, and a small neural network."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from odestop._validation import check_callable, check_count, check_positive, check_shape
from odestop.objectives.base import Objective, check_features, register_value
from odestop.objectives.finite_sum import FiniteSum


class ModuleObjective(FiniteSum):
    """f(x) = loss(module(inputs), targets) + ½ λ ‖x‖², with the parameters of the module flattened into x.

    x holds the parameters that require a gradient, in the order of ``module.named_parameters()``; the others
    keep their values.  The module is copied, in evaluation mode, because f has to be a function: dropout is off and
    batch normalisation uses its stored statistics.  It is evaluated by `torch.func.functional_call`, through
    `torch.func.vmap` for a batch of points.  The copy's parameters are no parameters of the objective.

    Parameters
    ----------
    module
        Maps the inputs to predictions, row by row.
    inputs, targets
        The data, n rows each; floating-point data in the dtype of x.
    loss
        ``(predictions, targets) -> scalar``, a mean over the rows, such as `torch.nn.functional.cross_entropy`.
    regularization
        λ >= 0.

    Raises
    ------
    ValueError
        If the module has no parameter that requires a gradient, the data have no rows or not the same number, ``loss``
        cannot be called, or λ is negative; at evaluation, if the loss is no scalar.

    Examples
    --------
    >>> inputs, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [0.0]])
    >>> line = nn.Linear(1, 1)
    >>> objective = Objective.from_module(line, inputs, targets, functional.mse_loss)
    >>> objective(torch.tensor([[0.0, 0.0], [-1.0, 2.0]]))  # slope and intercept of two lines
    tensor([0.5000, 0.0000])
    >>> _ = line.load_state_dict(objective.parameters_from(torch.tensor([-1.0, 2.0])))
    >>> line(inputs).flatten()
    tensor([1., 0.], grad_fn=<ViewBackward0>)
    """

    inputs: Tensor
    targets: Tensor
    _start: Tensor
    _template: nn.Module
    _rows = ("inputs", "targets")

    def __init__(
        self,
        module: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        regularization: float | int = 0.0,
    ) -> None:
        check_positive("regularization", regularization, allow_zero=True)
        if inputs.ndim == 0 or targets.ndim == 0 or not len(inputs) == len(targets) > 0:
            raise ValueError(
                "inputs and targets must have the same number n >= 1 of rows, "
                f"got shapes {tuple(inputs.shape)} and {tuple(targets.shape)}"
            )
        free = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
        if not free:
            raise ValueError("module must have a parameter that requires a gradient, got none")
        super().__init__(dimension=sum(value.numel() for value in free.values()))
        self._shapes = {name: value.shape for name, value in free.items()}
        self.loss = check_callable("loss", loss, "(predictions, targets) -> scalar")
        # Any other function may read values whose changes cannot be noticed.
        self._may_remember = isinstance(loss, nn.Module) or getattr(loss, "__module__", None) == functional.__name__
        self.regularization = regularization
        register_value(self, "inputs", inputs)
        register_value(self, "targets", targets)
        register_value(self, "_start", torch.cat([value.flatten() for value in free.values()]))
        # Not a submodule: its parameters would be among those of every flow down f.
        self.__dict__["_template"] = copy.deepcopy(module).requires_grad_(False).eval()

    def initial_point(self) -> Float[Tensor, " d"]:
        """Return a copy of the parameters that the module came with, flattened."""
        return self._start.clone()

    def parameters_from(self, x: Float[Tensor, "*batch d"]) -> dict[str, Tensor]:
        """Return the parameters at x by name, each with the batch dimensions of x in front.

        At a single point they are what ``module.load_state_dict(…, strict=False)`` takes.
        """
        parts = x.split([math.prod(shape) for shape in self._shapes.values()], dim=-1)
        return {
            name: part.reshape(*x.shape[:-1], *shape)
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }

    def predictions(self, x: Float[Tensor, " d"], inputs: Tensor | None = None) -> Tensor:
        """Return what the module with the parameters x maps the inputs to; by default its own."""
        inputs = self.inputs if inputs is None else inputs
        return torch.func.functional_call(self._template, self.parameters_from(x), (inputs,))

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        if x.ndim == 1:
            return self._value_at(x)
        batch = x.shape[:-1]
        return torch.func.vmap(self._value_at)(x.reshape(-1, x.shape[-1])).unflatten(0, batch)

    def _value_at(self, x: Tensor) -> Tensor:
        loss = self.loss(self.predictions(x), self.targets)
        check_shape("loss", loss, torch.Size(()), "the mean over the rows")
        return loss + 0.5 * self.regularization * (x * x).sum()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Objective:
        self._template._apply(fn)
        return super()._apply(fn, recurse)


def multilayer_perceptron(
    features: Tensor,
    labels: Tensor,
    hidden: int = 4,
    regularization: float | int = 1e-3,
    *,
    seed: int = 0,
) -> ModuleObjective:
    """Cross-entropy of a network with one hidden layer of tanh units, plus ½ λ ‖x‖².

    Parameters
    ----------
    features
        One row per example, shape (n, inputs).
    labels
        Its class, integers from 0 on, shape (n,).
    hidden
        Number of tanh units.
    regularization
        λ >= 0.
    seed
        Of the initial parameters.

    Raises
    ------
    ValueError
        If the features are not a finite floating-point matrix, the labels are no integers from 0 on,
        there are no hidden units, or λ is negative.

    Examples
    --------
    >>> from odestop.objectives import bundled_data
    >>> digits = multilayer_perceptron(*bundled_data("digits", intercept=False), hidden=8)
    >>> x = digits.initial_point()
    >>> x.shape
    torch.Size([610])
    >>> minibatch = digits.minibatch(torch.arange(32))
    >>> minibatch.predictions(x).shape
    torch.Size([32, 10])
    """
    check_features(features)
    check_count("hidden", hidden)
    if labels.is_floating_point() or labels.ndim != 1 or labels.numel() == 0 or int(labels.min()) < 0:
        raise ValueError(
            f"labels must be integers from 0 on of shape (n,), got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(features.shape[1], hidden), nn.Tanh(), nn.Linear(hidden, int(labels.max()) + 1)
        )
    network.to(features)
    return ModuleObjective(network, features, labels.long(), functional.cross_entropy, regularization)
