"""Which of the computations that are under way nobody waits for any more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Event, Lock

MOST_CHANNELS = 1000


class Jobs:
    """Cancellations, by channel: a page numbers what it asks for on a channel, and cancels up to a number.

    Examples
    --------
    >>> jobs = Jobs()
    >>> is_cancelled = jobs.watch("page/curves", 2)
    >>> is_cancelled()
    False
    >>> jobs.cancel("page/curves", 2)
    >>> is_cancelled(), jobs.watch("page/curves", 3)()
    (True, False)
    """

    def __init__(self) -> None:
        self._cancelled: OrderedDict[str, int] = OrderedDict()
        self._lock = Lock()
        self._closed = Event()

    def cancel(self, channel: str, serial: int) -> None:
        """Nobody waits for this job, nor for earlier ones of the channel."""
        with self._lock:
            self._cancelled[channel] = max(serial, self._cancelled.pop(channel, 0))
            while len(self._cancelled) > MOST_CHANNELS:
                self._cancelled.popitem(last=False)

    def watch(self, channel: str, serial: int) -> Callable[[], bool]:
        """Return a function that says whether a job was cancelled."""
        return lambda: self._closed.is_set() or self._cancelled.get(channel, 0) >= serial

    def close(self) -> None:
        """Nobody waits for anything any more: the server ends."""
        self._closed.set()
