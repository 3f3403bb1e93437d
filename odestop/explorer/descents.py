"""Descents that are under way: the page asks for one step at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event, Lock

from odestop.explorer.descent import Frame, descend
from odestop.explorer.scene import Scene
from odestop.explorer.solving import CancelledError

MOST_DESCENTS = 16


@dataclass
class _Descent:
    frames: Iterator[Frame]
    stopped: Event
    lock: Lock = field(default_factory=Lock)


class Descents:
    """Descents by a name that the page gives them; the oldest are forgotten when there are many.

    Examples
    --------
    >>> from odestop.explorer.scene import Scene
    >>> descents = Descents()
    >>> descents.begin("mine", Scene(dynamics_values={"theta": 0.5}), "T", "theta")
    >>> descents.step("mine").value > descents.step("mine").value
    True
    """

    def __init__(self) -> None:
        self._descents: OrderedDict[str, _Descent] = OrderedDict()
        self._lock = Lock()

    def begin(self, name: str, scene: Scene, quantity: str, of: str) -> None:
        """Start a descent: see `odestop.explorer.descent.descend`."""
        stopped = Event()
        with self._lock:
            self._descents[name] = _Descent(descend(scene, quantity, of, cancelled=stopped.is_set), stopped)
            while len(self._descents) > MOST_DESCENTS:
                self._descents.popitem(last=False)[1].stopped.set()

    def step(self, name: str) -> Frame | None:
        """Return the next frame; None after the last one, or when the descent was stopped or is unknown."""
        descent = self._descents.get(name)
        if descent is None:
            return None
        with descent.lock:
            try:
                frame = next(descent.frames, None)
            except CancelledError:
                frame = None
        if frame is None or frame.is_last:
            self.stop(name)
        return frame

    def stop(self, name: str) -> None:
        """End a descent, even in the middle of a step."""
        with self._lock:
            descent = self._descents.pop(name, None)
        if descent is not None:
            descent.stopped.set()
