#!/usr/bin/env bash
# DuckDB 2.0 reads every value of a JSON field as NULL if the field is null in the sampled lines. DuckDB 1.5 reads the values.
#
# A reader would expect: the text; or an error, as for any other value that does not fit the type of the sample.
# Guessed before running: an error that names the line and suggests a larger sample.
# Seen on 2026-11-28, Python 3.11.7, duckdb 2.0.0 and 1.5.0: with 20,480 lines (the default sample) of "error": null, 2.0.0
#   gives the column the type "NULL", and the text in the next line becomes NULL without an error: in queries, in nested objects
#   and in Parquet files that COPY writes. 1.5.0 gives the column the type VARCHAR, and the text. With 20,479 lines both give
#   the text. duckdb/duckdb#17126 says in 2025 that the reader never detects this type, since later values would be lost. #25826
#   and #25786, both open, have other fields and numbers that are lost past the sample, but not this.
# What follows: loggers that write each field, also if it is null, fill a sample of 20,480 lines in an uneventful hour. A
#   query for failures then finds none, and the Parquet copy of the log has none either. State the columns, or sample_size = -1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 1.5.0 2.0.0; do
  "${PYTHON:-python3}" -m venv "$work/$version" || exit 2
  "$work/$version/bin/pip" install -q --disable-pip-version-check "duckdb==$version" || exit 2
done
cat > "$work/read.py" <<'PY'
import json
import os
import sys

import duckdb

os.chdir(sys.argv[1])
failed = {"id": 0, "error": "denied", "detail": {"reason": "locked"}}
seen = []
for number in (20_479, 20_480):
    quiet = json.dumps({"id": number, "error": None, "detail": {"reason": None}})
    with open("audit.jsonl", "w") as file:
        file.writelines([quiet + "\n"] * number + [json.dumps(failed) + "\n"])
    duckdb.execute("COPY (FROM read_json('audit.jsonl')) TO 'audit.parquet'")
    row = duckdb.execute("SELECT error, detail.reason, typeof(error) FROM read_json('audit.jsonl') WHERE id = 0").fetchone()
    (found,) = duckdb.execute("SELECT count(*) FROM read_json('audit.jsonl') WHERE error IS NOT NULL").fetchone()
    copied = duckdb.execute("SELECT error FROM 'audit.parquet' WHERE id = 0").fetchone()
    given = duckdb.execute("SELECT error FROM read_json('audit.jsonl', sample_size = -1) WHERE id = 0").fetchone()
    print(f"duckdb {duckdb.__version__}: {number} lines of nulls, one failure: read {row}, {found} found,",
          f"in the copy {copied}, with sample_size = -1 {given}")
    seen.append((row[:2], found, copied, given))

read, lost = (("denied", "locked"), 1, ("denied",), ("denied",)), ((None, None), 0, (None,), ("denied",))
sys.exit(seen != [read, lost if duckdb.__version__ == "2.0.0" else read])
PY
if "$work/1.5.0/bin/python" "$work/read.py" "$work" && "$work/2.0.0/bin/python" "$work/read.py" "$work"; then
  echo "as seen before"
else
  echo "CHANGED"
  exit 1
fi
