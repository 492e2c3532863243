"""Timers that keep no process alive."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

CallLater = Callable[[float, Callable[[], None]], None]
"""Calls a function after so many seconds, in another thread."""


def call_later(seconds: float, function: Callable[[], None]) -> None:
    """Call *function* after *seconds*, in a thread that keeps no process alive.

    Raises:
        RuntimeError: No thread can be started, as when the interpreter goes down.
    """
    if sys.is_finalizing():  # to start a thread now may wait for it for ever
        raise RuntimeError("the interpreter goes down")
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
