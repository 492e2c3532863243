#!/usr/bin/env bash
# fluent-logger sends a traceback instead of the whole event if one value is a datetime, a Decimal, a UUID or beyond 64 bits,
#   and emit() returns True.
#
# A reader would expect: an error from emit(), or False, which it returns when it cannot send; or the other fields of the event.
# Guessed before running: an OverflowError for the large integer, or False.
# Seen on 2026-11-29, Python 3.11.7, fluent-logger 0.11.1, msgpack 1.1.2: the receiver gets level CRITICAL, "Can't output to
#   log" and the traceback, under the tag of the event; user, operation and the rest are gone. emit() returns True; only the
#   attribute last_error has the error. FluentHandler does the same for dicts that are logged. 2^64 - 1 is sent.
# What follows: which events are lost depends on the type of one value, and the return value does not tell. Pass
#   msgpack_kwargs={"default": str}, which makes text of all four.
# Known for datetime, closed: https://github.com/fluent/fluent-logger-python/issues/71
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check fluent-logger==0.11.1 msgpack==1.1.2 || exit 2
"$work/venv/bin/python" - <<'PY'
import datetime
import decimal
import logging
import socket
import sys
import threading
import uuid
from importlib.metadata import version

import msgpack
from fluent.handler import FluentHandler, FluentRecordFormatter
from fluent.sender import FluentSender

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("fluent-logger", "msgpack")))
VALUES = {
    "text": "17",
    "datetime": datetime.datetime(2025, 1, 15),
    "Decimal": decimal.Decimal("1.50"),
    "UUID": uuid.UUID(int=5),
    "2^64 - 1": 2**64 - 1,
    "2^64": 2**64,
}


def receive(server, received):
    """Append the records of one connection to *received*."""
    connection, _ = server.accept()
    unpacker = msgpack.Unpacker()
    with connection:
        while data := connection.recv(65536):
            unpacker.feed(data)
            received.extend(record for _, _, record in unpacker)


def send(emit, **options):
    """Return what arrives when *emit* has sent an event with each value to a sender with *options*."""
    received = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        thread = threading.Thread(target=receive, args=(server, received))
        thread.start()
        results = emit({"host": "127.0.0.1", "port": server.getsockname()[1], **options})
        thread.join()
    return received, results


def by_sender(options):
    sender = FluentSender("audit", **options)
    results = [sender.emit("update", {"user": "ann", "value": value}) for value in VALUES.values()]
    sender.close()
    return results


def by_handler(options):
    handler = FluentHandler("audit", **options)
    handler.setFormatter(FluentRecordFormatter({"level": "%(levelname)s"}))
    logger = logging.Logger("audit")
    logger.addHandler(handler)
    for value in VALUES.values():
        logger.info({"user": "ann", "value": value})
    handler.close()


seen = {}
for name, (emit, options) in {
    "sender": (by_sender, {}),
    "handler": (by_handler, {}),
    "sender, default=str": (by_sender, {"msgpack_kwargs": {"default": str}}),
}.items():
    received, results = send(emit, **options)
    seen[name] = [kind for kind, record in zip(VALUES, received, strict=True) if record.get("user") == "ann"]
    for number, (kind, record) in enumerate(zip(VALUES, received, strict=True)):
        print(f"{name}, {kind}: emit {results and results[number]},", str(record).replace("\n", " ")[:80])
    if results:
        seen[f"{name}, results"] = all(results)

expected = {
    "sender": ["text", "2^64 - 1"],
    "sender, results": True,
    "handler": ["text", "2^64 - 1"],
    "sender, default=str": list(VALUES),
    "sender, default=str, results": True,
}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
