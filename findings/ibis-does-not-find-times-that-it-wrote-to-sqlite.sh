#!/usr/bin/env bash
# Ibis writes times to SQLite with a "T" and compares them, as text, with a space: after 12:00 are all events of the day.
#
# A reader would expect: what create_table() wrote is found by the same filters as in another backend.
# Guessed before running: SQLite compares text, and Ibis writes one form of it, so that the result is right.
# Seen on 2026-11-29, Python 3.11.7, ibis-framework 12.0.0, sqlglot 27.29.0, polars 2.1.0: of four events of a day and one of the
#   next day, "time > 12:00" finds also the two of the morning, "time < 12:00" none, and "==" with the time of an event none; the
#   backend of Polars is right. The table has "2025-01-15T09:00:00.500000", the query '2025-01-15 12:00:00'. It is the same for
#   insert(). A table with the space, as Django and SQLAlchemy write it, is right.
# What follows: events that were copied to SQLite for an analysis are filtered by the day, not by the time. Compare
#   time.epoch_seconds(), or store numbers.
# No issue was found. (With sqlglot 30.30.0, which these versions allow, create_table() of SQLite is an error.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check \
  "ibis-framework[polars,sqlite]==12.0.0" sqlglot==27.29.0 polars==2.1.0 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import sqlite3
import sys
from datetime import datetime
from importlib.metadata import version

import ibis
import pyarrow

names = ("ibis-framework", "sqlglot", "polars")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
TIMES = [datetime(2025, 1, 15, hour, 0, 0, 500_000) for hour in (9, 10, 14, 20)] + [datetime(2025, 1, 16, 9)]
NOON = datetime(2025, 1, 15, 12)
events = pyarrow.table({"n": range(5), "time": TIMES})
django = sqlite3.connect("django.db")
django.execute("CREATE TABLE events (n integer, time timestamp)")
django.executemany("INSERT INTO events VALUES (?, ?)", [(n, time.isoformat(" ")) for n, time in enumerate(TIMES)])
django.commit()
connections = {
    "sqlite": ibis.sqlite.connect("ibis.db"),
    "sqlite, insert": ibis.sqlite.connect("insert.db"),
    "sqlite, space": ibis.sqlite.connect("django.db"),
    "polars": ibis.polars.connect(),
}
for name in ("sqlite", "polars"):
    connections[name].create_table("events", events)
connections["sqlite, insert"].create_table("events", schema=ibis.schema({"n": "int64", "time": "timestamp"}))
connections["sqlite, insert"].insert("events", events)

seen = {}
for name, connection in connections.items():
    table = connection.table("events")
    conditions = table.time > NOON, table.time < NOON, table.time == TIMES[0], table.time.epoch_seconds() > 1736942400
    seen[name] = [table.filter(condition).n.execute().tolist() for condition in conditions]
    print(f"{name}: after, before, equal, by epoch_seconds(): {seen[name]}")
print(sqlite3.connect("ibis.db").execute("SELECT time FROM events").fetchone())

wrong, right = [[0, 1, 2, 3, 4], [], [], [2, 3, 4]], [[2, 3, 4], [0, 1], [0], [2, 3, 4]]
expected = {"sqlite": wrong, "sqlite, insert": wrong, "sqlite, space": right, "polars": right}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
