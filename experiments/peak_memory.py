"""The most memory that tensors take at one time, over what was there before."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Count the bytes of the tensors made inside, as long as anything holds on to them: a variable or a graph.

    Every storage that an operation returns counts once, from its making to its release.  What operations use inside,
    and what Python itself takes, is not seen.

    Attributes
    ----------
    peak_bytes
        The largest count so far.

    Examples
    --------
    >>> with PeakMemory() as memory:
    ...     for _ in range(3):
    ...         x = torch.zeros(100, dtype=torch.float64)
    >>> memory.peak_bytes  # the old and the new one, while the name moves on
    1600
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._bytes = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        # Views and operations in place return storage that was there before.
        before = [storage for argument in (args, kwargs) for storage in _storages(argument)]
        known = {id(storage) for storage in before}
        for storage in _storages(result):
            if id(storage) not in known and id(storage) not in self._alive:
                self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        size = storage.nbytes()
        self._bytes += size
        self.peak_bytes = max(self.peak_bytes, self._bytes)

        def forget(_: weakref.ref[torch.UntypedStorage]) -> None:
            self._bytes -= size
            self._alive.pop(key, None)

        self._alive[key] = weakref.ref(storage, forget)


def _storages(tree: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
