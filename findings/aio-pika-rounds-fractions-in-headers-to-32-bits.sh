#!/usr/bin/env bash
# aio-pika writes a float in a header with 32 bits: the time 1736937045.123456 arrives as 1736937088.0, 43 seconds later.
#
# A reader would expect: the number as it is; a Python float has 64 bits, and AMQP 0-9-1 has a type for them, "d".
# Guessed before running: all clients write 64 bits.
# Seen on 2026-11-29, Python 3.11.7, aio-pika 10.2.1 (pamqp 4.0.1), amqp 5.4.2 (the one of Kombu and Celery): the header of
#   an aio-pika message is of type "f" on the wire. Each client reads it as 1736937088.0; 0.1 is 0.10000000149011612, and the id
#   16777217.0 is 16777216.0. The same headers written by amqp are of type "d" and right, also when aio-pika reads them.
# What follows: the time of an event in a header is wrong by up to 64 seconds, and events of two minutes have the same one. Write
#   times as text or as an integer of microseconds. The body of a message is not affected.
# The reason: encode_table_value() of pamqp has one type for floats. No issue was found.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check aio-pika==10.2.1 pamqp==4.0.1 amqp==5.4.2 || exit 2
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

from aio_pika import Message
from amqp.serialization import dumps, loads
from pamqp import decode, encode

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("aio-pika", "pamqp", "amqp")))
HEADERS = {"time": 1736937045.123456, "rate": 0.1, "id": 16777217.0, "ms": 1736937045123}
message = Message(b"{}", headers=HEADERS)
assert encode.field_table(message.headers) in message.properties.marshal()
written = {"aio-pika": encode.field_table(message.headers), "amqp": dumps("F", [HEADERS])}
readers = {"aio-pika": lambda table: decode.field_table(table)[1], "amqp": lambda table: loads("F", table, 0)[0][0]}
seen = {}
for writer, table in written.items():
    for reader, read in readers.items():
        seen[writer, reader] = read(table)
        print(f"written by {writer}, read by {reader}: {seen[writer, reader]}")

rounded = {"time": 1736937088.0, "rate": 0.10000000149011612, "id": 16777216.0, "ms": 1736937045123}
expected = {(writer, reader): rounded if writer == "aio-pika" else HEADERS for writer, reader in seen}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
