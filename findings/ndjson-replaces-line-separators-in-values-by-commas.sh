#!/usr/bin/env bash
# ndjson.loads() replaces each U+2028, U+2029 and U+0085 within a JSON string by a comma, without an error.
#
# A reader would expect: the value; these characters need no escape in JSON, and json.dumps(…, ensure_ascii=False) and most
#   other writers leave them as they are.
# Guessed before running: the line is split at such a character, so a JSONDecodeError.
# Seen on 2026-11-28, Python 3.11.7, ndjson 0.3.1, jsonlines 4.0.0: "a<U+2028>b" is read as "a,b" by load() and loads(), and
#   as it was by ndjson.reader() and jsonlines. loads() joins the lines by commas into one array, and str.splitlines() also
#   splits within strings.
# What follows: names and messages that were pasted from a word processor or a chat change when the log is read, and a search,
#   a hash or a signature of the parsed value fails. Use ndjson.reader(), jsonlines, or json.loads for each line of an open
#   file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check ndjson==0.3.1 jsonlines==4.0.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import io
import json
import sys
from importlib.metadata import version

import jsonlines
import ndjson

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("ndjson", "jsonlines")))
VALUES = ["a\u2028b", "a\u2029b", "a\u0085b", "two\nlines"]
text = "".join(json.dumps({"user": value}, ensure_ascii=False) + "\n" for value in VALUES)
readers = {
    "ndjson.loads": lambda: ndjson.loads(text),
    "ndjson.load": lambda: ndjson.load(io.StringIO(text)),
    "ndjson.reader": lambda: ndjson.reader(io.StringIO(text)),
    "jsonlines": lambda: jsonlines.Reader(io.StringIO(text)),
}
seen = {name: [event["user"] for event in read()] for name, read in readers.items()}
print(f"recorded: {VALUES}")
for name, users in seen.items():
    print(f"{name}: {users}")

changed = ["a,b", "a,b", "a,b", "two\nlines"]
expected = {"ndjson.loads": changed, "ndjson.load": changed, "ndjson.reader": VALUES, "jsonlines": VALUES}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
