"""Work in a forked child with the result sent back through a pipe; for the checks of targets.

**Guarantees.** The child runs no ``atexit`` function and no finalizer of the parent. It is gone when the call returns or
raises.

**Failure handling.** A child that raises, dies or hangs is a `ChildFailed`. It hangs if it sends nothing for
`PATIENCE_SECONDS` after the parent has done its part.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

PATIENCE_SECONDS = 30.0
"""Seconds after which a child that has sent nothing counts as hanging."""

Send = Callable[[Any], None]
"""Sends the result to the parent, once: a value that can be pickled."""


class ChildFailed(Exception):  # noqa: N818 (a result more than an error)
    """The child hung, died before it sent a result, or raised; the text states which."""


def run_in_forked_child(work: Callable[[Send], None], *, in_parent: Callable[[], object] = lambda: None) -> Any:
    """Fork, and return the result that *work* sends from the child.

    *in_parent* runs in this process at the same time.

    Raises:
        ChildFailed: The child hung, died, or raised.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(work, sender))

    with warnings.catch_warnings():
        # Python 3.12 warns about forking beside threads. The child runs a single thread.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()

    # The pipe ends when the child ends only if this process does not hold the other side open.
    sender.close()
    try:
        in_parent()
        failure, result = _receive(receiver)
    finally:
        receiver.close()
        # The child has sent its result, or hangs.
        child.kill()
        child.join()
        child.close()

    if failure is not None:
        raise ChildFailed(failure)
    return result


def _run(work: Callable[[Send], None], sender: Connection) -> None:  # in a forked child
    try:
        work(lambda result: sender.send((None, result)))
    except BaseException as error:
        sender.send((f"in another process: {error!r}", None))
    finally:
        sys.stderr.flush()
        # Leave without the exit functions that the parent has registered for its own end.
        os._exit(0)


def _receive(receiver: Connection) -> tuple[str | None, Any]:
    """Return the failure of the child, or None, and the result that it sent."""
    if not receiver.poll(PATIENCE_SECONDS):
        return f"another process sent nothing for {PATIENCE_SECONDS:.0f} seconds: it hangs", None

    try:
        failure, result = receiver.recv()
    except (EOFError, OSError):
        return "a process died before it was done", None
    return failure, result
