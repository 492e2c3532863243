#!/usr/bin/env bash
# msgspec rounds a time with more than six decimals: 23:59:59.9999996 on 15 January is 16 January. datetime.fromisoformat() and
#   pydantic cut it, and say 15 January.
#
# A reader would expect: the digits past the sixth are cut, as by Python; RFC 3339 text of Go, Java or OpenTelemetry has nine.
# Guessed before running: the digits past the sixth are cut.
# Seen on 2026-11-29, Python 3.11.7, msgspec 0.22.0, pydantic 2.14.4: msgspec.json.decode() and convert() to datetime give
#   midnight of the next day, and at the end of a year the next year; a time of day of 23:59:59.9999996 becomes 00:00:00 of the
#   same day, 24 hours earlier. Of 1,000 times with nine random decimals, msgspec and Python differ in about half, by a
#   microsecond.
# What follows: an event is in the file of one day and in the report of the next, or in another month of a bill, and events that
#   one program read by msgspec and another by pydantic do not join by time. Cut the text to six decimals before it is decoded.
# Rounding of datetimes is meant: https://github.com/msgspec/msgspec/pull/201; the time of day that wraps round is not known
#   there.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check msgspec==0.22.0 pydantic==2.14.4 || exit 2
"$work/venv/bin/python" - <<'PY'
import datetime as dt
import json
import random
import sys
from importlib.metadata import version

import msgspec
import pydantic

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("msgspec", "pydantic")))
PARSERS = {
    "msgspec.json.decode": lambda text, kind: msgspec.json.decode(json.dumps(text), type=kind),
    "msgspec.convert": msgspec.convert,
    "pydantic": lambda text, kind: pydantic.TypeAdapter(kind).validate_python(text),
    "fromisoformat": lambda text, kind: kind.fromisoformat(text),
}
TIMES = {"2025-01-15T23:59:59.9999996Z": dt.datetime, "2025-12-31T23:59:59.999999999Z": dt.datetime, "23:59:59.9999996": dt.time}
seen = {}
for text, kind in TIMES.items():
    for name, parse in PARSERS.items():
        seen[text, name] = parse(text, kind).isoformat()
        print(f"{text} by {name}: {seen[text, name]}")

digits = random.Random(7)
texts = [f"2025-01-15T10:30:45.{digits.randrange(10**9):09}Z" for _ in range(1000)]
differ = sum(msgspec.convert(text, dt.datetime) != dt.datetime.fromisoformat(text) for text in texts)
print(f"msgspec and Python differ in {differ} of 1000 times")

rounded = "2025-01-16T00:00:00+00:00", "2026-01-01T00:00:00+00:00", "00:00:00"
cut = "2025-01-15T23:59:59.999999+00:00", "2025-12-31T23:59:59.999999+00:00", "23:59:59.999999"
results = {name: tuple(seen[text, name].replace("Z", "+00:00") for text in TIMES) for name in PARSERS}
expected = {"msgspec.json.decode": rounded, "msgspec.convert": rounded, "pydantic": cut, "fromisoformat": cut}
same = results == expected and 400 < differ < 600
print("as seen before" if same else f"CHANGED: {results}")
sys.exit(not same)
PY
