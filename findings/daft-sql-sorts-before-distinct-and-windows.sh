#!/usr/bin/env bash
# daft's SQL sorts before DISTINCT and before window functions, so that the result is in no order, and LIMIT takes any rows.
#
# A reader would expect: ORDER BY and LIMIT are for the result, as in standard SQL and in each other engine.
# Guessed before running: rows in the order of ORDER BY; a test of nulls by 100 queries in seven engines showed it.
# Seen on 2026-11-29, Python 3.11.7, daft 0.7.26: of 1,000 events of 7 users, "SELECT DISTINCT n, usr … ORDER BY n DESC" is not
#   sorted, and the same with count(n) OVER (PARTITION BY usr) is not, either. With "LIMIT 3" the rows are not the latest three.
#   Without DISTINCT and OVER the order is right, and so it is if the query is an inner one and the outer one sorts.
#   DataFrame.distinct().sort() is right. The plan of the query (explain) has the Sort below the Distinct.
# What follows: "the latest logins, each with the count of its user" shows arbitrary events. Sort in an outer query.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check daft==0.7.26 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import daft

print("Python", sys.version.split()[0], "daft", version("daft"))
events = daft.from_pydict({"n": list(range(1000)), "usr": [f"user_{n % 7}" for n in range(1000)]})
DISTINCT, WINDOW = "SELECT DISTINCT n, usr FROM events", "SELECT n, count(n) OVER (PARTITION BY usr) c FROM events"
QUERIES = {
    "plain": "SELECT n, usr FROM events",
    "distinct": DISTINCT,
    "window": WINDOW,
    "distinct, inner": f"SELECT * FROM ({DISTINCT}) t",
    "window, inner": f"SELECT * FROM ({WINDOW}) t",
}
latest = list(range(999, -1, -1))
seen = {}
for name, query in QUERIES.items():
    rows = daft.sql(f"{query} ORDER BY n DESC", events=events).to_pydict()["n"]
    first = daft.sql(f"{query} ORDER BY n DESC LIMIT 3", events=events).to_pydict()["n"]
    seen[name] = rows == latest, first == latest[:3]
    print(f"{name}: {len(rows)} rows, first {rows[:3]}, with LIMIT 3 {first}")
seen["DataFrame"] = events.distinct().sort("n", desc=True).to_pydict()["n"] == latest

right, wrong = (True, True), (False, False)
expected = {
    "plain": right,
    "distinct": wrong,
    "window": wrong,
    "distinct, inner": right,
    "window, inner": right,
    "DataFrame": True,
}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
