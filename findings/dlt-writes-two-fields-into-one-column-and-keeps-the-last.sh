#!/usr/bin/env bash
# dlt writes "userId" and "user_id" of one event into one column, and keeps the one that comes last. It gives no warning.
#
# A reader would expect: both values, or an error; that names become snake case is documented, and each value of another type is
#   kept, in a column of its own.
# Guessed before running: two columns, or an error.
# Seen on 2026-11-29, Python 3.11.7, dlt 1.31.0, duckdb 2.0.1: of {"userId": "ann", "user_id": "bob"} the column user_id has
#   bob, and with the members in the other order ann. Of "a b" and "a_b", and of "code" 5 and "Code" "E1", the last is left, too.
#   A member of an object wins over a plain one: {"user": {"id": "ann"}, "user__id": "bob"} has ann in either order. Nothing is
#   logged at the level WARNING. With the naming convention "direct" both users are there.
# What follows: events of two services, or of two versions of one, that name the actor in two styles lose one of the names, and
#   which one is left depends on the order of members in a line. Set SCHEMA__NAMING=direct, or rename before loading.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check dlt==1.31.0 duckdb==2.0.1 || exit 2
cd "$work"
export HOME=$work DLT_DATA_DIR=$work RUNTIME__DLTHUB_TELEMETRY=false RUNTIME__LOG_LEVEL=WARNING
"$work/venv/bin/python" - <<'PY' 2> errors.log || { status=$?; cat errors.log; exit "$status"; }
import os
import sys
from importlib.metadata import version

import dlt

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("dlt", "duckdb")))
EVENTS = [
    {"userId": "ann", "user_id": "bob"},
    {"user_id": "bob", "userId": "ann"},
    {"user": {"id": "ann"}, "user__id": "bob"},
    {"user__id": "bob", "user": {"id": "ann"}},
    {"a b": "ann", "a_b": "bob"},
    {"code": 5, "Code": "E1"},
]


def loaded(number, event):
    """Load the event into a table of its own, and return its columns."""
    target = dlt.destinations.duckdb(f"audit{number}.duckdb")
    pipeline = dlt.pipeline(f"audit{number}", destination=target, dataset_name="audit")
    pipeline.run([event], table_name="events")
    with pipeline.sql_client() as client, client.execute_query("SELECT * FROM events") as query:
        names = [column[0] for column in query.description]
        (row,) = query.fetchall()
    return {name: value for name, value in zip(names, row, strict=True) if not name.startswith("_dlt")}


seen = [loaded(number, event) for number, event in enumerate(EVENTS)]
for event, columns in zip(EVENTS, seen, strict=True):
    print(f"{event} is loaded as {columns}")
with open("errors.log") as file:
    logged = file.read()
print("logged:", logged or "nothing")

expected = [
    {"user_id": "bob"},
    {"user_id": "ann"},
    {"user__id": "ann"},
    {"user__id": "ann"},
    {"a_b": "bob"},
    {"code": "E1"},
]
os.environ["SCHEMA__NAMING"] = "direct"
direct = loaded("_direct", EVENTS[0])
print(f"by the convention direct, {EVENTS[0]} is loaded as {direct}")
same = seen == expected and not logged and direct == EVENTS[0]
print("as seen before" if same else "CHANGED")
sys.exit(not same)
PY
