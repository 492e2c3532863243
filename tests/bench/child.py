"""A process that measures cases on request, for comparisons of checkouts and for several writers of one trail.

The parent writes a request as one line of JSON to the child's stdin, and reads the answer, also a line, from its stdout:

* ``{"make": NAME, "of": FUNCTION, "with": [ARGUMENTS]}``: call that function of `cases`, and keep its result as NAME.
* ``{"time": NAME, "calls": N}``: the CPU seconds of N calls.
* ``{"each": NAME, "calls": N}``: the CPU nanoseconds of each of N calls.
* ``{"share": NAME, "calls": N, "threads": COUNT}``: the wall-clock throughput of COUNT threads, relative to one thread.
* ``{"collect": ROUNDS}``: the CPU seconds of each of so many full garbage collections.
* ``{"package": true}``: the file that `structlog_audit` is imported from.

Except for shares, the measured code runs in one thread and does not wait. Its CPU time, user and kernel, is therefore its
duration on an idle machine; wall-clock time would mostly show the other load.
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
    """A request failed in the child; the message is the child's."""


class Child:
    """A child process that imports the package of *checkout*, as a context manager."""

    def __init__(self, checkout: Path = CHECKOUT) -> None:
        source = (checkout / "src").resolve()
        if not (source / "structlog_audit" / "__init__.py").is_file():
            raise SystemExit(f"{checkout}: not a checkout of this repository (src/structlog_audit is missing)")

        # With equal hash seeds, two processes do not differ by the order of their sets.
        environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        package = self.request(package=True)
        if not Path(package).is_relative_to(source):
            raise SystemExit(f"{checkout}: its child process imports {package}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def send(self, **request: Any) -> None:
        """Send a request without waiting; `answer` waits until it is done."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """Return the answer to the oldest request that was sent.

        Raises:
            ChildError: The request raised an exception, or the child has exited.
        """
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(f"the child process exited with code {self._process.wait()}")

        answer = json.loads(line)
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer["value"]

    def request(self, **request: Any) -> Any:
        """Send a request, and return its answer."""
        self.send(**request)
        return self.answer()


def cpu_seconds_of(call: Any, calls: int) -> float:
    """Return the CPU seconds of so many calls.

    Garbage of earlier work is collected before.
    """
    gc.collect()

    start = time.process_time()
    for _ in range(calls):
        call()
    return time.process_time() - start


def nanoseconds_of_each(call: Any, calls: int) -> list[int]:
    """Return the CPU nanoseconds of each call."""
    now = time.thread_time_ns
    times = [0] * calls

    for number in range(calls):
        start = now()
        call()
        times[number] = now() - start

    return times


def throughput_share(call: Any, calls: int, count: int) -> float:
    """Return the throughput of *count* threads divided by that of one thread."""

    def run(times: int) -> None:
        for _ in range(times):
            call()

    gc.collect()

    start = time.perf_counter()
    run(calls)
    alone = time.perf_counter() - start

    calls_each = -(-calls // count)
    start = time.perf_counter()
    workers = [threading.Thread(target=run, args=(calls_each,)) for _ in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    together = time.perf_counter() - start

    return alone / together


def handle(request: dict[str, Any], calls_by_name: dict[str, Any]) -> Any:
    """Execute a request of the parent, and return the answer.

    Raises:
        ValueError: The request is unknown.
        Exception: The case raised it.
    """
    import cases

    match request:
        case {"make": name, "of": function, "with": arguments}:
            calls_by_name[name] = getattr(cases, function)(*arguments)
            return None

        case {"time": name, "calls": calls}:
            return cpu_seconds_of(calls_by_name[name], calls)

        case {"each": name, "calls": calls}:
            return nanoseconds_of_each(calls_by_name[name], calls)

        case {"share": name, "calls": calls, "threads": count}:
            return throughput_share(calls_by_name[name], calls, count)

        case {"collect": rounds}:
            return [cpu_seconds_of(gc.collect, 1) for _ in range(rounds)]

        case {"package": True}:
            import structlog_audit

            return structlog_audit.__file__

        case _:
            raise ValueError(f"unknown request {request}")


def serve() -> None:
    """Answer requests until stdin ends."""
    calls_by_name: dict[str, Any] = {}

    # Peers print to stdout. Answers keep the descriptor; their prints go to stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    for line in sys.stdin:
        try:
            answer = {"value": handle(json.loads(line), calls_by_name)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
