#!/usr/bin/env bash
# daft gives null, not the value of ELSE, where a condition of CASE is null.
#
# A reader would expect: ELSE for each row whose condition is not true, as in standard SQL and in each other engine.
# Guessed before running: ELSE, as otherwise() in Polars and Spark.
# Seen on 2026-11-29, Python 3.11.7, daft 0.7.26, duckdb 2.0.1, polars 2.1.0: of three events, of ann, of bob and of no user,
#   "CASE WHEN usr = 'ann' THEN 'person' ELSE 'system' END" is null for the last, and a sum of "… THEN 0 ELSE 1" counts one
#   event that is not ann's; the others count two. A WHEN that follows is not tried, either: "WHEN usr = 'ann' … WHEN usr IS
#   NULL" is null. when().otherwise() of a DataFrame does the same. If the test for null is the first WHEN, all is right.
# What follows: events without a user, or without any field that CASE compares, belong to no class and are missing from each
#   sum. Test for null first, or compare coalesce(usr, '').
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check daft==0.7.26 duckdb==2.0.1 polars==2.1.0 pyarrow==25.0.1 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import daft
import duckdb
import polars
import pyarrow
from daft.functions import when

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("daft", "duckdb", "polars")))
USERS = {"n": [1, 2, 3], "usr": ["ann", "bob", None]}
table, frame, lazy = pyarrow.table(USERS), daft.from_pydict(USERS), polars.LazyFrame(USERS)
database = duckdb.connect().register("events", table)
engines = {
    "daft": lambda query: daft.sql(query, events=frame).to_pydict()["v"],
    "duckdb": lambda query: [row[0] for row in database.execute(query).fetchall()],
    "polars": lambda query: polars.SQLContext(events=lazy).execute(query).collect()["v"].to_list(),
}
ANN = "WHEN usr = 'ann' THEN 'person'"
QUERIES = {
    "else": f"SELECT CASE {ANN} ELSE 'system' END v FROM events ORDER BY n",
    "sum": "SELECT sum(CASE WHEN usr = 'ann' THEN 0 ELSE 1 END) v FROM events",
    "null last": f"SELECT CASE {ANN} WHEN usr IS NULL THEN 'none' ELSE 'system' END v FROM events ORDER BY n",
    "null first": f"SELECT CASE WHEN usr IS NULL THEN 'none' {ANN} ELSE 'system' END v FROM events ORDER BY n",
}
seen = {}
for name, query in QUERIES.items():
    for engine, run in engines.items():
        seen[name, engine] = run(query)
        print(f"{name}: {engine} {seen[name, engine]}")
seen["DataFrame"] = frame.select(when(frame["usr"] == "ann", "person").otherwise("system").alias("v")).to_pydict()["v"]
print("DataFrame:", seen["DataFrame"])

with_none, lost = ["person", "system", "none"], ["person", "system", None]
right = {"else": ["person", "system", "system"], "sum": [2], "null last": with_none, "null first": with_none}
expected = {(name, engine): rows for name, rows in right.items() for engine in engines}
expected |= {("else", "daft"): lost, ("sum", "daft"): [1], ("null last", "daft"): lost, "DataFrame": lost}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
