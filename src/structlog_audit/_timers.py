"""Timers that do not keep the process alive."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

CallLater = Callable[[float, Callable[[], None]], Any]
"""Calls a function after a delay in seconds, on another thread; raises a RuntimeError if no thread can be started.

It may return an object with a method ``cancel``, which prevents the call, as those of `threading` and `asyncio` do.
"""


def call_later(seconds: float, function: Callable[[], None]) -> threading.Timer:
    """Call *function* after *seconds*, on a daemon thread, and return the timer.

    Raises:
        RuntimeError: No thread can be started, for example while the interpreter shuts down.
    """
    # Starting a thread during finalization may block forever.
    if sys.is_finalizing():
        raise RuntimeError("the interpreter is shutting down")

    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()

    return timer


def start_thread(function: Callable[[], None], name: str) -> bool:
    """Run *function* on a daemon thread called *name*; return False if no thread can be started."""
    if sys.is_finalizing():
        return False
    try:
        threading.Thread(target=function, name=name, daemon=True).start()
    except RuntimeError:
        return False
    return True


def try_call_later(call_later: CallLater, seconds: float, function: Callable[[], None]) -> bool:
    """Schedule *function* with *call_later*; return False if no thread can be started."""
    try:
        call_later(seconds, function)
    except RuntimeError:
        return False
    return True


def cancel(timer: Any) -> None:
    """Cancel what a `CallLater` returned, if it can be cancelled."""
    method = getattr(timer, "cancel", None)
    if method is not None:
        method()
