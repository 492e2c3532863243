#!/usr/bin/env bash
# python-logstash-async sends the events of a millisecond in the alphabetical order of their JSON text, not as they happened.
#
# A reader would expect: the order of the calls, as from a queue; the timestamp has milliseconds, so nothing else states the
#   order.
# Guessed before running: the order of the calls.
# Seen on 2026-11-28, Python 3.11.7, python-logstash-async 4.1.0: of 300 sessions of open, edit, close, most arrive as close,
#   edit, open. Events wait in a PriorityQueue as formatted texts, which begin with the timestamp and the host, then the level
#   and the message decide. With the queue in memory or in SQLite it is the same.
# What follows: the receiver shows a document closed before it was opened, and "ERROR" before the "INFO" that led to it,
#   within one millisecond, and sorting by @timestamp does not help. Add a number or a time in microseconds to each event.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check python-logstash-async==4.1.0 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import json
import logging
import socket
import sys
import threading
from importlib.metadata import version

from logstash_async.handler import AsynchronousLogstashHandler

print("Python", sys.version.split()[0], "python-logstash-async", version("python-logstash-async"))
SESSIONS = 300


def receive(server, lines):
    """Append to *lines* what each connection sends, one connection after another, until all events are there."""
    while len(lines) < 3 * SESSIONS:
        connection, _ = server.accept()
        with connection, connection.makefile() as file:
            lines.extend(file)


def send(database_path):
    """Return the events of all sessions in the order in which they arrive."""
    lines = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        thread = threading.Thread(target=receive, args=(server, lines))
        thread.start()
        handler = AsynchronousLogstashHandler("127.0.0.1", server.getsockname()[1], database_path=database_path)
        logger = logging.Logger("audit")
        logger.addHandler(handler)
        for session in range(SESSIONS):
            for operation in ("open", "edit", "close"):
                logger.info(operation, extra={"session": session})
        handler.flush()
        handler.close()
        thread.join()
    return [json.loads(line) for line in lines]


turned = {}
for name, database_path in (("memory", None), ("SQLite", "queue.db")):
    events = send(database_path)
    orders = {session: [] for session in range(SESSIONS)}
    for event in events:
        orders[event["extra"]["session"]].append(event["message"])
    turned[name] = sum(order != ["open", "edit", "close"] for order in orders.values())
    times = len({event["@timestamp"] for event in events})
    print(f"{name}: {len(events)} events arrive with {times} timestamps, {turned[name]} of {SESSIONS} sessions in another order,",
          f"the first: {next((order for order in orders.values() if order[0] != 'open'), 'none')}")

same = all(turned.values())
print("as seen before" if same else "CHANGED")
sys.exit(not same)
PY
