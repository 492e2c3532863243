#!/usr/bin/env bash
# Polars drops a field of JSON lines that the first 100 lines of the first file lack. For Parquet it reports such a column.
#
# A reader would expect: the error that scan_parquet gives for a column that only a later file has, and that scan_ndjson gives
#   for a value of another type.
# Guessed before running: an error for a later file; the field is dropped within one file.
# Seen on 2026-11-28, Python 3.11.7, polars 2.1.0: with the events of two days in two files, "error" of the second day is
#   missing from the result of scan_ndjson, without a warning, also with infer_schema_length=None, which reads all lines of the
#   first file. The same events as Parquet give a SchemaError: "extra column in file outside of expected schema". In one file
#   the field is lost from line 101 on.
# What follows: rare fields, such as the reason for a failure, vanish when rolled segments are read by a pattern, and which
#   ones depends on what the oldest file has. State the schema.
# Known for one file: https://github.com/pola-rs/polars/issues/29330
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check polars==2.1.0 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import json
import sys
from importlib.metadata import version

import polars

print("Python", sys.version.split()[0], "polars", version("polars"))


def write(name, events):
    with open(f"{name}.jsonl", "w") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    polars.DataFrame(events, infer_schema_length=None).write_parquet(f"{name}.parquet")


quiet = {"user": "ann", "operation": "document.read"}
failed = {**quiet, "error": "denied"}
write("day-1", [quiet])
write("day-2", [failed])
write("long-99", [quiet] * 99 + [failed])
write("long-100", [quiet] * 100 + [failed])

seen = {}
scans = {
    "day-*.jsonl": polars.scan_ndjson("day-*.jsonl"),
    "day-*.jsonl, all lines": polars.scan_ndjson("day-*.jsonl", infer_schema_length=None),
    "day-*.parquet": polars.scan_parquet("day-*.parquet"),
    "long-99.jsonl": polars.scan_ndjson("long-99.jsonl"),
    "long-100.jsonl": polars.scan_ndjson("long-100.jsonl"),
}
for name, scan in scans.items():
    try:
        seen[name] = scan.collect().columns
    except polars.exceptions.SchemaError as error:
        seen[name] = "error"
        print("  ", str(error).splitlines()[0][:100])
    print(f"{name}: {seen[name]}")

without, with_error = ["user", "operation"], ["user", "operation", "error"]
expected = dict(zip(scans, (without, without, "error", with_error, without), strict=True))
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
