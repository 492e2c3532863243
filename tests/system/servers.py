"""Helpers that request, await and stop server and worker processes, and read the trail they wrote."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.request


def wait_until(condition, process, what, seconds=60.0):
    """Wait until *condition* returns a true value and return it; fail after *seconds* seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


def free_port():
    """Return a free TCP port on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def get(port, path, **headers):
    """Return the body of the response, or None if the request failed."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return None


def trail(folder):
    """Return the decoded lines of all segments of the trail in *folder*."""
    segments = sorted(folder.glob("audit.jsonl*"))
    return [json.loads(line) for segment in segments for line in segment.read_bytes().splitlines() if line]


def stop(process):
    """Stop *process* with SIGTERM, as an operator would, and wait for its end."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) is not None
