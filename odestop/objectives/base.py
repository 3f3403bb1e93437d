"""What every objective offers: f, its gradient and its Hessian-vector products, over any batch dimensions."""

from __future__ import annotations

import copy
import operator
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from odestop._validation import check_callable, check_positive, check_positive_tensor, check_shape

if TYPE_CHECKING:
    from odestop.objectives.module import ModuleObjective


class Objective(nn.Module):
    """An objective f: R^d -> R, evaluated over any leading batch dimensions.

    A subclass implements `value`.  It may implement ``_gradient`` and ``_hessian_vector_product`` as well,
    where it knows better than autograd.  Everything is differentiable to any order when grad mode is on.

    While grad mode is off, `gradient` remembers its last result and returns it again for the same, unchanged
    tensor x, so that a gradient flow and J = ‖∇f‖² at the same state cost one gradient.  Two views of the same
    entries of one tensor are the same x: so is the position that an optimizer's step and J each take out of
    its state.  A change in place of x, of the objective's parameters and buffers, or of its attributes is
    noticed; a change through ``Tensor.data``, which PyTorch does not count, is not.

    Parameters
    ----------
    dimension
        d, or None if any d will do.
    minimum
        The least value f*, or None if unknown.
    minimizer
        A point of shape (d,) where f* is attained, or None if unknown.
    smoothness
        L, a Lipschitz constant of ∇f, or None if there is none or it is unknown; shape (problems,) for several
        problems at once (see `problems`).
    strong_convexity
        mu >= 0 such that f - mu/2 ‖x‖² is convex, or None if there is none or it is unknown; likewise.

    Examples
    --------
    >>> class Quartic(Objective):
    ...     def value(self, x):
    ...         return (x**4).sum(-1)
    >>> quartic = Quartic(minimum=0.0)
    >>> x = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    >>> quartic(x)
    tensor([17.,  1.])
    >>> with torch.no_grad():
    ...     quartic.gradient(x)
    tensor([[ 4., 32.],
            [ 0., -4.]])
    >>> with torch.no_grad():
    ...     quartic.hessian_vector_product(x, torch.ones_like(x))
    tensor([[12., 48.],
            [ 0., 12.]])
    """

    minimizer: Tensor | None
    smoothness: float | Tensor | None
    strong_convexity: float | Tensor | None
    _remembered: _RememberedGradient | None = None
    _may_remember = True
    _several_problems = False

    def __init__(
        self,
        *,
        dimension: int | None = None,
        minimum: float | None = None,
        minimizer: Tensor | None = None,
        smoothness: float | Tensor | None = None,
        strong_convexity: float | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.dimension = dimension
        self.minimum = minimum
        for name, constant in (("smoothness", smoothness), ("strong_convexity", strong_convexity)):
            if isinstance(constant, Tensor):
                register_value(self, name, constant)
            else:
                setattr(self, name, constant)
        register_value(self, "minimizer", minimizer)

    @staticmethod
    def from_function(
        function: Callable[[Tensor], Tensor], *, dimension: int | None = None, minimum: float | None = None
    ) -> Objective:
        """Wrap a function of x of shape (*batch, d) that returns f(x) of shape (*batch,).

        Derivatives come from autograd.  Gradients are remembered only for a `torch.nn.Module`: a plain
        function may read values whose changes cannot be noticed.

        Raises
        ------
        ValueError
            If ``function`` cannot be called; at evaluation, if it does not return shape (*batch,).

        Examples
        --------
        >>> objective = Objective.from_function(lambda x: x.cosh().sum(-1), minimum=0.0)
        >>> objective.gradient(torch.zeros(3)).tolist()
        [0.0, 0.0, 0.0]
        """
        return _FunctionObjective(function, dimension=dimension, minimum=minimum)

    @staticmethod
    def from_module(
        module: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        regularization: float | int = 0.0,
    ) -> ModuleObjective:
        """Return the loss of a module on data as a function of its parameters, flattened into x.

        See `ModuleObjective`, which has ``initial_point()``, ``parameters_from(x)`` and ``minibatch(indices)``.

        Examples
        --------
        >>> inputs, labels = torch.randn(8, 3), torch.tensor([0, 1] * 4)
        >>> loss = nn.functional.cross_entropy
        >>> objective = Objective.from_module(nn.Linear(3, 2), inputs, labels, loss, regularization=0.1)
        >>> objective.gradient(objective.initial_point()).shape
        torch.Size([8])
        """
        from odestop.objectives.module import ModuleObjective

        return ModuleObjective(module, inputs, targets, loss, regularization)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        raise NotImplementedError(f"{type(self).__name__} must implement value(x)")

    def forward(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """Return f(x)."""
        return self.value(x)

    def gradient(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """Return ∇f(x); without grad mode, the same tensor again while x and the objective are unchanged."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or not self._may_remember:
            return self._gradient(x)
        remembered = self._remembered
        if remembered is None or not remembered.is_at(x) or not remembered.is_of(self._own_tensors()):
            gradient = self._gradient(x)
            try:
                remembered = _RememberedGradient(x, self._own_tensors(), gradient)
            except RuntimeError:
                # Inference tensors do not count their changes.
                return gradient
            self.__dict__["_remembered"] = remembered
        return remembered.gradient

    def value_and_gradient(
        self, x: Float[Tensor, "*batch d"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch d"]]:
        """Return f(x) and ∇f(x), for less than the two cost apart where they share work; nothing is remembered."""
        return self.value(x), self._gradient(x)

    def hessian_vector_product(
        self, x: Float[Tensor, "*batch d"], v: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """Return ∇²f(x) v."""
        return self._hessian_vector_product(x, v)

    def problems(self, index: int | slice | Tensor) -> Objective:
        """Return some of the problems of an objective that is several at once.

        Data with a leading dimension, such as features of shape (problems, n, d), make one objective of many problems
        of one size: x then has shape (*batch, problems, d), and f(x) has shape (*batch, problems), each problem at its
        own point.

        Parameters
        ----------
        index
            Which; an integer gives a single problem, on x of shape (*batch, d).

        Raises
        ------
        ValueError
                If the objective is a single problem.

        Examples
        --------
        >>> from odestop.objectives import LeastSquares
        >>> several = LeastSquares(torch.ones(2, 5, 3), torch.tensor([1.0, 2.0]).expand(5, 2).mT)
        >>> several(torch.zeros(2, 3)), several.problems(1)(torch.zeros(3))
        (tensor([0.5000, 2.0000]), tensor(2.))
        """
        if not self._several_problems:
            raise ValueError(
                f"problems must be those of an objective with data for several, this is one {type(self).__name__}"
            )
        chosen = copy.copy(self)
        chosen._modules = {
            name: module.problems(index) if isinstance(module, Objective) else module
            for name, module in self._modules.items()
        }
        tensors = {**self._parameters, **self._buffers}
        chosen._parameters = {}
        chosen._buffers = {
            name: tensor if tensor is None or tensor.ndim == 0 else tensor[index] for name, tensor in tensors.items()
        }
        chosen._several_problems = not isinstance(index, int)
        return chosen

    def _gradient(self, x: Tensor) -> Tensor:
        """Compute ∇f(x) by autograd."""
        if torch._C._are_functorch_transforms_active():
            return torch.func.grad(lambda point: self.value(point).sum())(x)
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            point = _differentiable(x)
            total = self.value(point).sum()
            return torch.autograd.grad(total, point, create_graph=create_graph, materialize_grads=True)[0]

    def _hessian_vector_product(self, x: Tensor, v: Tensor) -> Tensor:
        """Compute ∇²f(x) v by autograd through the gradient."""
        if torch._C._are_functorch_transforms_active():
            return torch.func.grad(lambda point: (self._gradient(point) * v).sum())(x)
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            point = _differentiable(x)
            gradient = self._gradient(point)
            if not gradient.requires_grad:
                # The gradient of a linear function depends on nothing.
                return torch.zeros_like(x)
            return torch.autograd.grad(gradient, point, v, create_graph=create_graph, materialize_grads=True)[0]

    def _own_tensors(self) -> list[Tensor]:
        """Parameters and buffers of this module and the modules in it."""
        return [
            tensor
            for module in self.modules()
            for group in (module._parameters, module._buffers)
            for tensor in group.values()
            if tensor is not None
        ]

    def _forget(self) -> None:
        self.__dict__["_remembered"] = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        # A copy starts without memory; weak references cannot be pickled either.
        return {**self.__dict__, "_remembered": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Objective:
        # Module.to, .double() and the like replace the data of parameters behind the version counter.
        self._forget()
        return super()._apply(fn, recurse)


class _RememberedGradient:
    """A gradient and the tensors it came from, each with the version it had; x is known weakly."""

    def __init__(self, x: Tensor, own_tensors: list[Tensor], gradient: Tensor) -> None:
        self.gradient = gradient
        source, self._layout = _source_and_layout(x)
        self._source, self._version = weakref.ref(source), source._version
        # The gradient is watched too: a caller may change what it was given.
        self._watched = [gradient, *own_tensors]
        self._versions = [tensor._version for tensor in self._watched]

    def is_at(self, x: Tensor) -> bool:
        """Whether this x is the same tensor, unchanged."""
        source, layout = _source_and_layout(x)
        return self._source() is source and source._version == self._version and layout == self._layout

    def is_of(self, own_tensors: list[Tensor]) -> bool:
        """Whether these are the same tensors, and neither they nor the gradient have changed since."""
        watched = [self.gradient, *own_tensors]
        return (
            len(watched) == len(self._watched)
            and all(map(operator.is_, watched, self._watched))
            and [tensor._version for tensor in watched] == self._versions
        )


def _source_and_layout(x: Tensor) -> tuple[Tensor, tuple | None]:
    """Return the tensor that x is a view of, whose version it shares, and which entries it shows; else x itself."""
    base = x._base
    # A dual tensor of forward mode is a view of its primal, but carries a tangent of its own.
    if base is None or forward_ad._current_level >= 0:
        return x, None
    return base, (x.storage_offset(), x.shape, x.stride(), x.dtype, x.is_neg())


class _FunctionObjective(Objective):
    """The objective behind `Objective.from_function`."""

    def __init__(self, function: Callable[[Tensor], Tensor], *, dimension: int | None, minimum: float | None) -> None:
        super().__init__(dimension=dimension, minimum=minimum)
        self.function = check_callable("function", function, "(x) -> f(x)")
        self._may_remember = isinstance(function, nn.Module)

    def value(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return check_shape("function", self.function(x), x.shape[:-1], "one value per leading index of x")


def _differentiable(x: Tensor) -> Tensor:
    """Return x, or where it does not require a gradient, x plus a zero that does."""
    # Detaching x instead would lose its forward-mode tangent.
    return x if x.requires_grad else x + torch.zeros_like(x, requires_grad=True)


def check_objective(objective: object) -> Objective:
    """Return ``objective`` if it is an `Objective`."""
    if not isinstance(objective, Objective):
        raise ValueError(
            f"objective must be an odestop.objectives.Objective, got {type(objective).__name__}; "
            "a function becomes one by Objective.from_function(function)"
        )
    return objective


def check_features(
    features: Tensor, name: str = "features", shape: str = "(n, d) with n, d >= 1", *, several: bool = False
) -> Tensor:
    """Return ``features`` if it is a finite floating-point matrix, or with ``several`` a stack of them."""
    shape = "(n, d) or (problems, n, d), all at least 1" if several else shape
    if not features.is_floating_point() or features.ndim not in (2, 2 + several) or features.numel() == 0:
        raise ValueError(
            f"{name} must be real floating-point numbers of shape {shape}, "
            f"got {features.dtype} of shape {tuple(features.shape)}"
        )
    if not bool(torch.isfinite(features).all()):
        raise ValueError(f"{name} must be finite, got non-finite entries")
    return features


def check_positive_value(name: str, value: float | int | Tensor) -> float | Tensor:
    """Return ``value`` if it is a positive number, or a tensor of positive numbers."""
    return check_positive_tensor(name, value) if isinstance(value, Tensor) else check_positive(name, value)


def register_value(module: nn.Module, name: str, value: Tensor | float | None) -> None:
    """Store ``value`` on ``module``: a parameter stays one, any other tensor becomes a buffer."""
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    elif isinstance(value, Tensor) or value is None:
        module.register_buffer(name, value)
    else:
        setattr(module, name, value)
