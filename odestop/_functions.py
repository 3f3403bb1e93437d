"""The user's functions as the solvers see them: counted, evaluated without a graph, and with their parameters known.

A dynamics, a criterion or a step map may be a module, a closure over tensors, a `torch.func.functional_call`, or a
function that itself calls autograd.  `TrackedFunction` gives all of them one face.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class TrackedFunction:
    """A function of tensors that counts its evaluations and knows which tensors it is differentiable in.

    Parameters
    ----------
    name
        What the user calls it; used in error messages.
    function
        Maps tensors to one tensor.

    Attributes
    ----------
    evaluations
        Calls so far that computed a value; recomputations for a gradient are not among them.
    parameters
        Tensors that require a gradient and enter the function other than through its arguments; known after `probe`
        or `learn`.
    tracks_state
        Whether autograd sees the value depend on the state, the last argument; known after `probe` or `learn`.
    """

    def __init__(self, name: str, function: Callable[..., Tensor]) -> None:
        self.name = name
        self.function = function
        self.evaluations = 0
        self.parameters: tuple[Tensor, ...] = ()
        self.tracks_state = False
        self._needs_grad_mode: bool | None = None

    def probe(self, *arguments: Any) -> Tensor:
        """Evaluate for the first time: the value without a graph, after learning the parameters from its graph."""
        self.evaluations += 1
        return self.learn(*arguments)

    def learn(self, *arguments: Any) -> Tensor:
        """Learn the parameters from an evaluation that is not counted."""
        with torch.enable_grad():
            *others, state = arguments
            state = state.detach().requires_grad_()
            output = self.function(*others, state)
        if not isinstance(output, Tensor):
            raise ValueError(f"{self.name} must return a torch.Tensor, got {type(output).__name__}")
        self.parameters = differentiable_inputs(self.name, self.function, output, exclude=state)
        leaves, _ = _walk([(output.grad_fn, 0)], stop=set())
        self.tracks_state = id(state) in leaves
        return output.detach()

    def __call__(self, *arguments: Any) -> Tensor:
        """Value without a graph."""
        self.evaluations += 1
        return self.again(*arguments)

    def again(self, *arguments: Any) -> Tensor:
        """Value without a graph, of a recomputation: not counted as an evaluation.

        Grad mode is switched on inside only for functions that need it.
        """
        if not self._needs_grad_mode:
            try:
                with torch.no_grad():
                    output = self.function(*arguments)
                self._needs_grad_mode = False
                return output
            except RuntimeError:
                # A function that calls autograd inside cannot run under no_grad; decided at the first call.
                if self._needs_grad_mode is False:
                    raise
                self._needs_grad_mode = True
        *others, state = arguments
        with torch.enable_grad():
            return self.function(*others, state.detach().requires_grad_()).detach()

    def with_graph(self, *arguments: Any) -> Tensor:
        """Value with a graph, for a gradient; not counted as an evaluation."""
        with torch.enable_grad():
            return self.function(*arguments)


class Linearized(NamedTuple):
    """A dynamics at m times and states, with its derivatives there.

    Attributes
    ----------
    slopes
        dx/dt, shape (m, *batch, n), with a graph that leads to the parameters and to t; not to the states.
    pull_back
        Maps i and a cotangent λ of slope i, shape (*batch, n), to that of state i, (∂F/∂x)ᵀ λ at (tᵢ, xᵢ); called
        without grad mode.
    """

    slopes: Tensor
    pull_back: Callable[[int, Tensor], Tensor]


class PositionMap:
    """The map from states to the positions that a criterion sees, as a part of the criterion of a state.

    It usually is a bound method, through which every parameter of a dynamics can be reached, and selects coordinates
    without any of them.  So only those tensors count that the position is computed from.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, state: Tensor) -> Tensor:
        """Position of a state."""
        return self.function(state)


def differentiable_inputs(
    name: str, function: Callable[..., Any], output: Tensor, exclude: Tensor
) -> tuple[Tensor, ...]:
    """Tensors requiring a gradient through which ``function`` depends on anything but its arguments.

    Modules, closures, globals and partials are searched; a walk over the graph of ``output`` adds the leaves that
    the search could not see.  Of the tensors behind a `PositionMap` only those count that are in the graph.

    Raises
    ------
    ValueError
        If the function uses both a tensor and a leaf that this tensor was computed from: the gradient of the leaf
        would be counted twice.
    """
    found, candidates = _tensors_requiring_grad(function, exclude)
    used_leaves, used_nodes = _walk([(output.grad_fn, 0)], stop=_nodes([*found.values(), *candidates.values()]))
    found |= {key: tensor for key, tensor in candidates.items() if (tensor.grad_fn, tensor.output_nr) in used_nodes}
    hidden_leaves, _ = _walk(list(_nodes(found.values())), stop=set())
    for key in hidden_leaves:
        if key in used_leaves:
            raise ValueError(
                f"{name} uses a leaf tensor of shape {tuple(hidden_leaves[key].shape)} both directly and through a "
                "tensor computed from it outside; compute that tensor inside the function, or pass only one of the two"
            )
        found.pop(key, None)
    found.update(used_leaves)
    found.pop(id(exclude), None)
    return tuple(found.values())


def first_order_only(
    gradients: Sequence[Tensor | None], inputs: Sequence[Tensor], advice: str
) -> tuple[Tensor | None, ...]:
    """Return gradients through which a second derivative is an error, where it would otherwise miss a part in silence.

    Call it at the end of a backward that computed ``gradients`` without a graph; ``inputs`` are what they belong to.
    """
    if not torch.is_grad_enabled():
        return tuple(gradients)
    return _FirstOrderOnly.apply(advice, len(gradients), *gradients, *inputs)


class _FirstOrderOnly(torch.autograd.Function):
    """The identity on gradients, connected to what a second derivative would be taken in."""

    @staticmethod
    def forward(ctx: Any, advice: str, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.advice = advice
        return tuple(None if tensor is None else tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> None:
        raise RuntimeError(f"this gradient of a stopping time has first derivatives only; {ctx.advice}")


def _tensors_requiring_grad(
    function: Callable[..., Any], exclude: Tensor
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Tensors inside a function by their identities, and apart from them those behind its position maps."""
    parts = list(_tensors_inside(function, visited=set()))
    behind = [
        tensor for part in parts if isinstance(part, PositionMap) for tensor in _tensors_inside(part.function, set())
    ]
    found, candidates = (
        {id(part): part for part in some if isinstance(part, Tensor) and part.requires_grad and part is not exclude}
        for some in (parts, behind)
    )
    return found, candidates


def _tensors_inside(thing: object, visited: set[int]) -> Iterator[Tensor | PositionMap]:
    """Yield the tensors and position maps reachable from a callable or container by attributes and closures."""
    if id(thing) in visited:
        return
    visited.add(id(thing))
    if isinstance(thing, (Tensor, PositionMap)):
        yield thing
        return
    for part in _parts(thing):
        yield from _tensors_inside(part, visited)


def _parts(thing: object) -> Sequence[object]:
    """Return what a callable or container is made of, as far as tensors may hide in it."""
    if isinstance(thing, (types.ModuleType, type, str, bytes)):
        return ()
    if isinstance(thing, nn.Module):
        return tuple(vars(thing).values())
    if isinstance(thing, functools.partial):
        return (thing.func, *thing.args, *thing.keywords.values())
    if isinstance(thing, types.MethodType):
        return (thing.__self__, thing.__func__)
    if isinstance(thing, types.FunctionType):
        variables = inspect.getclosurevars(thing)
        defaults = (*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values())
        return (*variables.nonlocals.values(), *variables.globals.values(), *defaults)
    if isinstance(thing, Mapping):
        return tuple(thing.values())
    if isinstance(thing, (list, tuple, set, frozenset)):
        return tuple(thing)
    if callable(thing) and hasattr(thing, "__dict__"):
        return tuple(vars(thing).values())
    return ()


Edge = tuple[Any, int]


def _nodes(tensors: Iterable[Tensor]) -> set[Edge]:
    """Where the tensors that are no leaves stand in their graphs."""
    return {(tensor.grad_fn, tensor.output_nr) for tensor in tensors if tensor.grad_fn is not None}


def _walk(edges: list[Edge], stop: set[Edge]) -> tuple[dict[int, Tensor], set[Edge]]:
    """Leaf tensors in the graph behind ``edges``, and those edges of ``stop`` that it met and did not pass."""
    leaves: dict[int, Tensor] = {}
    pending = [edge for edge in edges if edge[0] is not None]
    seen = set(pending)
    while pending:
        edge = pending.pop()
        if edge in stop:
            continue
        node, _ = edge
        if hasattr(node, "variable"):
            leaves[id(node.variable)] = node.variable
        for following in node.next_functions:
            if following[0] is not None and following not in seen:
                seen.add(following)
                pending.append(following)
    return leaves, seen & stop
