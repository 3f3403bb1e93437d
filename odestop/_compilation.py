"""Pure functions of tensors, compiled by `torch.compile` where that works."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

BACKEND = "inductor"
"""The backend of `torch.compile`."""

RECOMPILE_LIMIT = 64
"""Compiled codes that are kept at a time of one function, and of those that differ from it in their closures only."""


class CompiledFunction:
    """A function that is compiled at its first use: once without a graph, and once with the graph of its VJP.

    With grad mode on, the value has a graph whose backward is compiled as well.  A pull-back of a Runge-Kutta step
    (x, t, h, λ, θ) -> (x̄, t̄, θ̄) is therefore ::

        end = CompiledFunction("the step", lambda x, t, h: solver.advance(problem.field_with_graph, t, x, h)[0])
        with torch.enable_grad():
            value = end(x, t, h)
        torch.autograd.grad(value, (x, t, *problem.dynamics.parameters), cotangent)

    One code serves all values of the tensors, in the closure of the function too: t and h have to be tensors, and
    parameters may change.  Instances of one class share it, and so do functions made by one ``def``.  Other shapes and
    dtypes, another ``requires_grad`` of any tensor, two arguments that are one tensor, and other plain numbers in the
    closure are cases of their own.  Integers among the arguments, such as a step index, stay symbolic; with 0 and 1,
    which the compiler would treat as constants, the function is evaluated as it is.

    The function is compiled as a whole or not at all.  Printing, reading a number off a tensor, calling autograd and
    creating dataclasses inside make compilation fail.

    Parameters
    ----------
    name
        What is compiled, as the warning says it where compilation fails.
    function
        Maps tensors and integers to a tensor or a tuple of tensors, without side effects.

    Attributes
    ----------
    failed
        Whether compilation failed; from then on the function is evaluated as it is.

    Examples
    --------
    >>> import torch
    >>> decay = CompiledFunction("the decay", lambda t, x: x * torch.exp(-t))
    >>> decay.failed  # nothing happened so far
    False
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        # The parameters of a function are looked for in here; nothing but the function may be found by then.
        self.name, self.function = name, function
        self.failed = False
        self._compiled: Callable[..., Any] | None = None
        self._warm: set[bool] = set()

    def __call__(self, *arguments: Any) -> Any:
        """Return the value of the function."""
        if self.failed or any(isinstance(argument, int) and argument < 2 for argument in arguments):
            return self.function(*arguments)
        mode = torch.is_grad_enabled()
        try:
            if mode in self._warm and self._compiled is not None:
                return self._compiled(*arguments)
            value = self._compile(*arguments)
        except Exception as failure:
            # An error of the function itself is raised here again, by the function.
            value = self.function(*arguments)
            self.failed = True
            warnings.warn(
                f"compile=True had no effect on {self.name}, because torch.compile failed: {type(failure).__name__}: "
                f"{' '.join(str(failure).split())[:200]}",
                RuntimeWarning,
                stacklevel=2,
            )
        self._warm.add(mode)
        return value

    def _compile(self, *arguments: Any) -> Any:
        function = self.function
        if self._compiled is None:
            # In the function that is compiled the arguments have a name of ours.
            self._compiled = torch.compile(lambda *arguments: function(*arguments), backend=BACKEND, fullgraph=True)
        integers = [f"L['arguments'][{i}]" for i, argument in enumerate(arguments) if isinstance(argument, int)]
        # All functions share one cache, whose limit of 8 entries would switch compilation off in silence.
        settings = {"dynamic_sources": ",".join(integers), "recompile_limit": RECOMPILE_LIMIT}
        with torch.compiler.config.patch(settings):  # type: ignore[attr-defined]
            return self._compiled(*arguments)
