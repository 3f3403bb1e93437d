"""A step map, and with it its vector-Jacobian product, compiled by `torch.compile`."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

BACKEND = "inductor"
"""The backend of `torch.compile`."""

RECOMPILE_LIMIT = 64
"""Compiled steps that are kept at a time, two for each step map."""


class CompiledStep:
    """A step map that is compiled at its first use: once without a graph, and once with the graph of its VJP.

    k stays symbolic, so that the code is the same for every step; the steps 0 and 1, which the compiler would treat as
    constants, are taken as they are.  Where compilation fails, so are all steps, after one warning.

    Parameters
    ----------
    step
        ``(k, state) -> state``.
    """

    def __init__(self, step: Callable[[int, Tensor], Tensor]) -> None:
        # The first step tells the parameters; nothing but the step map may be found in here by then.
        self.step = step
        self._compiled: Callable[[int, Tensor], Tensor] | None = None
        self._warm: set[bool] = set()
        self._failed = False

    def __call__(self, k: int, state: Tensor) -> Tensor:
        """Return the state after step ``k``."""
        if k < 2 or self._failed:
            return self.step(k, state)
        mode = torch.is_grad_enabled()
        if self._compiled is not None and mode in self._warm:
            return self._compiled(k, state)
        try:
            proposed = self._compile(k, state)
        except Exception as failure:
            # An error of the step map itself is raised here again, by the step map.
            proposed = self.step(k, state)
            self._failed = True
            warnings.warn(
                f"compile=True had no effect, because torch.compile failed: {type(failure).__name__}: "
                f"{' '.join(str(failure).split())[:200]}",
                RuntimeWarning,
                stacklevel=2,
            )
        self._warm.add(mode)
        return proposed

    def _compile(self, k: int, state: Tensor) -> Tensor:
        step = self.step
        if self._compiled is None:
            # In the function that is compiled the index has a name of ours.
            self._compiled = torch.compile(lambda k, state: step(k, state), backend=BACKEND)
        # All step maps share one cache, whose limit of 8 entries would switch compilation off in silence.
        settings = {"dynamic_sources": "L['k']", "recompile_limit": RECOMPILE_LIMIT}
        with torch.compiler.config.patch(settings):  # type: ignore[attr-defined]
            return self._compiled(k, state)
