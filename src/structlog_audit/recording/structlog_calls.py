"""Recognition of records whose event a processor has recorded in the same call of a structlog logger.

A chain may render an event to anything, and the output of the application must not change. So no value can carry a mark to
the handler. The mark is kept here, by the identity of the frame that runs the chain and then calls the wrapped logger.

**Guarantees.** Only the record of the call itself is recognized. Any other one that is made meanwhile, by a processor, a
filter or a handler, has an event of its own. The mark of a call that is over is never taken for that of a later one with the
same identity: a processor that is in the chain of a call has replaced or removed the mark before there is a record. If in
doubt, an event is recorded twice, and never lost.

**Performance.** No frame is kept, and no variables are read unless a mark is found. Without a mark, a record costs one test.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from types import CodeType, FrameType
from typing import Any

_PROCESS = "_process_event"
"""The method of structlog's bound loggers that runs the processors. Custom bound loggers may call and override it."""

_PROXY = "_proxy_to_logger"
"""The method of structlog's bound loggers that processes one event and passes it to the wrapped logger."""

_HANDLE = logging.Logger.handle.__code__
_LOG = logging.Logger._log.__code__

_MAX_MARKS = 10_000
"""Far more than there are calls at a time. Marks of calls that are over stay, until another call has their identity."""

_MAX_DEPTH = 20
"""The largest number of frames between a handler and the call: seven, and those of tools that patch `logging`."""


Mark = tuple[CodeType, Callable[..., Any], Collection[logging.Handler]]
"""The note of a processor about the event of a call: the code of the call, the processor, and the handlers that recorded."""

marks: dict[int, Mark] = {}
"""The marks of calls, by the identity of their frames."""

_NO_MARK = (None, None, ())


def calling_frame() -> FrameType | None:
    """Return the frame of the structlog call that runs the processor which calls this; None if another one runs it."""
    # Nearly always the processor is called by `_process_event`, and that by the method of structlog.
    try:
        frame = sys._getframe(3)
    except ValueError:
        return None
    return frame if frame.f_code.co_name == _PROXY else _search_call(sys._getframe(2))


def _search_call(frame: FrameType | None) -> FrameType | None:
    while frame is not None and frame.f_code.co_name != _PROCESS:
        # A formatter that runs processors does so for a record, not for the call that made it.
        if frame.f_code is _HANDLE:
            return None
        frame = frame.f_back

    while frame is not None and frame.f_code.co_name == _PROCESS:
        frame = frame.f_back
    return frame


def mark_call(call: FrameType, processor: Callable[..., Any], handlers: Collection[logging.Handler]) -> None:
    """Note that *handlers* have recorded the event of *call*, in whose chain *processor* is."""
    if len(marks) > _MAX_MARKS:
        marks.clear()
    marks[id(call)] = call.f_code, processor, handlers


def recorded_before(call: FrameType, processor: Callable[..., Any]) -> Collection[logging.Handler]:
    """Return the handlers for which processors before *processor* have recorded the event of *call*.

    Any other mark is that of an event before: it is removed.
    """
    mark = marks.get(id(call))
    if mark is None:
        return ()

    code, earlier, handlers = mark
    if code is call.f_code and earlier is not processor:
        for step in _chain_of(call):
            if step is processor:
                break
            if step is earlier:
                return handlers

    marks.pop(id(call), None)
    return ()


def handlers_that_recorded() -> Collection[logging.Handler]:
    """Return the handlers that have recorded the event of the record that this thread is handling."""
    handled = logged = 0
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_MAX_DEPTH):
        if frame is None:
            break
        code = frame.f_code
        handled += code is _HANDLE
        logged += code is _LOG

        # A record that is made while another one is handled, or by a processor, has an event of its own.
        if handled > 1 or logged > 1 or code.co_name == _PROCESS:
            break

        marked, processor, handlers = marks.get(id(frame), _NO_MARK)
        if marked is code and any(step is processor for step in _chain_of(frame)):
            return handlers
        frame = frame.f_back
    return ()


def _chain_of(call: FrameType) -> Collection[Any]:
    """Return the processors of the bound logger that the method *call* belongs to."""
    chain: Collection[Any] = getattr(call.f_locals.get("self"), "_processors", ())
    return chain
