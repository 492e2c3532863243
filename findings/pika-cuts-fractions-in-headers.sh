#!/usr/bin/env bash
# pika reads a float in a header of AMQP as an integer: 0.875 is 0.
#
# A reader would expect: the float, since pika knows the types "f" and "d" of the protocol.
# Guessed before running: the float.
# Seen on 2026-11-29, Python 3.11.7, pika 1.4.4, amqp 5.4.2 (the client of Kombu and Celery), pamqp 4.0.1 (the one of aio-pika):
#   headers that amqp or pamqp wrote are read by pika without their fractions: 0.875 as 0, -1.5 as -1, 42.75 as 42, also in
#   lists and tables. The others read their own and each other's. pika itself refuses to write a float.
# What follows: a consumer that uses pika sees other durations, rates and times than the producer wrote, without an error. Write
#   fractions as text or as scaled integers, or read with another client. The body of a message is not affected.
# Known upstream: https://github.com/pika/pika/issues/599 (closed); https://github.com/pika/pika/pull/1705 describes newer code
#   that reads floats, and is not in a release yet.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check pika==1.4.4 amqp==5.4.2 pamqp==4.0.1 || exit 2
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import pika.data
from amqp.serialization import dumps, loads
from pamqp import decode, encode

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("pika", "amqp", "pamqp")))
HEADERS = {"rate": 0.875, "change": -1.5, "time": {"seconds": 42.75}, "durations": [0.25, 2.5], "count": 5}
writers = {"amqp": lambda: dumps("F", [HEADERS]), "pamqp": lambda: encode.field_table(HEADERS)}
readers = {
    "pika": lambda table: pika.data.decode_table(table, 0)[0],
    "amqp": lambda table: loads("F", table, 0)[0][0],
    "pamqp": lambda table: decode.field_table(table)[1],
}
seen = {}
for writer, write in writers.items():
    for reader, read in readers.items():
        seen[writer, reader] = read(write())
        print(f"written by {writer}, read by {reader}: {seen[writer, reader]}")
try:
    pika.data.encode_table([], HEADERS)
except pika.exceptions.UnsupportedAMQPFieldException as error:
    seen["pika"] = "error"
    print("pika:", error)

cut = {"rate": 0, "change": -1, "time": {"seconds": 42}, "durations": [0, 2], "count": 5}
expected = {(writer, reader): cut if reader == "pika" else HEADERS for writer in writers for reader in readers}
expected["pika"] = "error"
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
