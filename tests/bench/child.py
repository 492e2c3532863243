"""A process that measures cases when it is told to: for pairs that share the weather, and for several writers of one trail.

The parent writes a request as one line of JSON to its stdin, and reads the answer, a line too, from its stdout:

* ``{"make": NAME, "of": FUNCTION, "with": [ARGUMENTS]}``: call that function of `cases`, and keep what it returns as NAME.
* ``{"time": NAME, "calls": N}``: CPU seconds that N calls take.
* ``{"each": NAME, "calls": N}``: CPU nanoseconds that each of N calls takes.
* ``{"share": NAME, "calls": N, "threads": COUNT}``: the throughput of COUNT threads together, in that of one, by the clock.
* ``{"collect": ROUNDS}``: CPU seconds that each of so many full garbage collections takes.
* ``{"package": true}``: the file that `structlog_audit` is imported from.

What is timed here, but for shares, runs in one thread and waits for nothing. So its CPU time, user and kernel, is its time on
an idle machine. Seconds of the clock would mostly say what else is running.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve()
CHECKOUT = HERE.parent.parent.parent


class ChildError(RuntimeError):
    """What the child could not do, in its words."""


class Child:
    """A child process that imports the package of *checkout*; to be used in a ``with``."""

    def __init__(self, checkout: Path = CHECKOUT) -> None:
        source = (checkout / "src").resolve()
        if not (source / "structlog_audit" / "__init__.py").is_file():
            raise SystemExit(f"{checkout}: no checkout of this repository (no src/structlog_audit in it)")
        # hashing is seeded alike, so that two processes do not differ by the luck of their dictionaries
        environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        found = self.ask(package=True)
        if not Path(found).is_relative_to(source):
            raise SystemExit(f"{checkout}: its child imports {found}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def send(self, **request: Any) -> None:
        """Have it begin; `answer` waits until it is done."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """What the request came to.

        Raises:
            ChildError: An exception there, or its end.
        """
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(f"the child ended with {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer["value"]

    def ask(self, **request: Any) -> Any:
        self.send(**request)
        return self.answer()


def timed(call: Any, calls: int) -> float:
    """CPU seconds of so many calls, after a collection of the garbage of others."""
    gc.collect()
    start = time.process_time()
    for _ in range(calls):
        call()
    return time.process_time() - start


def each_timed(call: Any, calls: int) -> list[int]:
    now, taken = time.thread_time_ns, [0] * calls
    for number in range(calls):
        start = now()
        call()
        taken[number] = now() - start
    return taken


def share(call: Any, calls: int, count: int) -> float:
    def spend(times: int) -> None:
        for _ in range(times):
            call()

    gc.collect()
    start = time.perf_counter()
    spend(calls)
    alone = time.perf_counter()
    workers = [threading.Thread(target=spend, args=(-(-calls // count),)) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (alone - start) / (time.perf_counter() - alone)


def answered(request: dict[str, Any], made: dict[str, Any]) -> Any:
    import cases

    match request:
        case {"make": name, "of": function, "with": arguments}:
            made[name] = getattr(cases, function)(*arguments)
            return None
        case {"time": name, "calls": calls}:
            return timed(made[name], calls)
        case {"each": name, "calls": calls}:
            return each_timed(made[name], calls)
        case {"share": name, "calls": calls, "threads": count}:
            return share(made[name], calls, count)
        case {"collect": rounds}:
            return [timed(gc.collect, 1) for _ in range(rounds)]
        case {"package": True}:
            import structlog_audit

            return structlog_audit.__file__
        case _:
            raise ValueError(f"unknown request {request}")


def serve() -> None:
    made: dict[str, Any] = {}
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is no answer
    for line in sys.stdin:
        try:
            answer = {"value": answered(json.loads(line), made)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
