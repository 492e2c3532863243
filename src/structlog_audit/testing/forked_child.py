"""Work in a forked child, and what it has to say."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 30.0
"""After which a child that says nothing is taken to hang."""

Say = Callable[[Any], None]
"""Tells the parent a JSON value, once."""


class ChildFailed(Exception):  # noqa: N818 (an answer more than an error)
    """The child hung, died before it said anything, or failed; the text says which."""


def in_child(work: Callable[[Say], None], *, meanwhile: Callable[[], object] = lambda: None) -> Any:
    """Fork, do *work* in the child and *meanwhile* here; what the work said, once the child is gone.

    Raises:
        ChildFailed: It hung, died, or raised.
    """
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads: the child runs one thread only
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _run(work, theirs)  # in a forked child
    os.close(theirs)
    try:
        meanwhile()
        said = _heard(ours)
    finally:
        os.close(ours)
        os.kill(child, signal.SIGKILL)  # it has said all it had to say, or hangs
        os.waitpid(child, 0)
    if "said" not in said:
        raise ChildFailed(said.get("failed", "a process died before it was done"))
    return said["said"]


def _run(work: Callable[[Say], None], pipe: int) -> None:  # in a forked child
    """Do *work* in the child, and leave without anything that the parent has registered for its own end."""

    def tell(what: dict[str, Any]) -> None:
        data = json.dumps(what).encode()
        while data:
            data = data[os.write(pipe, data) :]

    try:
        work(lambda value: tell({"said": value}))
    except BaseException as error:
        tell({"failed": f"in another process: {error!r}"})
    finally:
        os.close(pipe)
        sys.stderr.flush()
        os._exit(0)


def _heard(pipe: int) -> dict[str, Any]:
    """All that comes through *pipe* until the child has closed it."""
    data = b""
    while True:
        if not select.select([pipe], [], [], PATIENCE_SECONDS)[0]:
            return {"failed": f"another process said nothing for {PATIENCE_SECONDS:.0f} seconds: it hangs"}
        more = os.read(pipe, 65_536)
        if not more:
            heard: dict[str, Any] = json.loads(data) if data else {}
            return heard
        data += more
