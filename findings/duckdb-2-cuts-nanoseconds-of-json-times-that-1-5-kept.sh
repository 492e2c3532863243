#!/usr/bin/env bash
# DuckDB 2.0 cuts the nanoseconds of times such as "…45.123456789Z" in JSON lines. 1.5 leaves such a field as text.
#
# A reader would expect: TIMESTAMPTZ_NS, which 2.0 has; or text, as in 1.5, and as 2.0 does for the same time without a zone.
# Guessed before running: TIMESTAMP_NS or text, in both versions.
# Seen on 2026-11-29, Python 3.11.7, duckdb 2.0.1 and 1.5.6: with "Z" or "+00:00", 2.0.1 gives the type TIMESTAMPTZ, in which
#   three events within a microsecond have one time: DISTINCT has 1, and ORDER BY has them as in the file. 1.5.6 has VARCHAR, 3
#   times, and the order of the events. Without a zone both have VARCHAR. If TIMESTAMPTZ_NS is stated, 2.0.1 reads all digits.
# What follows: after the update, logs of Go, Java or OpenTelemetry, whose times have nine digits, are sorted, joined and copied
#   to Parquet in microseconds. State the type of the column.
# 2.0 came to detect zones by https://github.com/duckdb/duckdb/pull/21660; #25857 is about the same loss for INT96 of Parquet.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 1.5.6 2.0.1; do
  "${PYTHON:-python3}" -m venv "$work/$version" || exit 2
  "$work/$version/bin/pip" install -q --disable-pip-version-check "duckdb==$version" pytz==2025.2 || exit 2
done
cat > "$work/read.py" <<'PY'
import json
import os
import sys

import duckdb

os.chdir(sys.argv[1])
EVENTS = {"close": "789", "open": "123", "archive": "999"}
connection = duckdb.connect()
seen = {}


def ask(sql, source="'audit.jsonl'"):
    return connection.execute(sql.replace("audit", source)).fetchall()


for zone in ("Z", "+00:00", ""):
    with open("audit.jsonl", "w") as file:
        for operation, digits in EVENTS.items():
            file.write(json.dumps({"time": f"2025-01-15T10:30:45.123456{digits}{zone}", "operation": operation}) + "\n")
    ((kind, text, times),) = ask("SELECT any_value(typeof(time)), min(time)::VARCHAR, count(DISTINCT time) FROM audit")
    order = [operation for (operation,) in ask("SELECT operation FROM audit ORDER BY time")]
    seen[zone] = kind, times, order
    print(f"duckdb {duckdb.__version__}, zone {zone!r}: {kind}, the first is {text}, {times} times, order {order}")
if duckdb.__version__ == "2.0.1":
    stated = "read_json('audit.jsonl', columns = {time: 'TIMESTAMPTZ_NS', operation: 'VARCHAR'})"
    ((text, times),) = ask("SELECT min(time)::VARCHAR, count(DISTINCT time) FROM audit", stated)
    seen["stated"] = times
    print(f"duckdb {duckdb.__version__}, TIMESTAMPTZ_NS is stated: the first is {text}, {times} times")

kept = "VARCHAR", 3, ["open", "close", "archive"]
cut = "TIMESTAMP WITH TIME ZONE", 1, list(EVENTS)
expected = {
    "1.5.6": {"Z": kept, "+00:00": kept, "": kept},
    "2.0.1": {"Z": cut, "+00:00": cut, "": kept, "stated": 3},
}
sys.exit(seen != expected[duckdb.__version__])
PY
if "$work/1.5.6/bin/python" "$work/read.py" "$work" && "$work/2.0.1/bin/python" "$work/read.py" "$work"; then
  echo "as seen before"
else
  echo "CHANGED"
  exit 1
fi
