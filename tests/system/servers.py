"""Servers and workers in processes of their own: to start, to ask and to stop, and to read the trail that they left."""

from __future__ import annotations

import json
import signal
import socket
import time
import urllib.request


def wait_until(there, process, what, seconds=60.0):
    """Wait until *there* returns something, for at most *seconds*; that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        found = there()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


def free_port():
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def get(port, path, **headers):
    """What the server answers; None if it doesn't."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return None


def trail(folder):
    """Every line of the trail, in whatever segment."""
    segments = sorted(folder.glob("audit.jsonl*"))
    return [json.loads(line) for segment in segments for line in segment.read_bytes().splitlines() if line]


def stop(process):
    """Have *process* end as an operator would."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) is not None
