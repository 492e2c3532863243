#!/usr/bin/env bash
# deltalake's pyarrow data set hides every row of a filter on a column without statistics, if another column has some.
#
# A reader would expect: statistics are optional for each column (Delta protocol, "Per-file Statistics"), and a file is skipped only
#   if its statistics exclude a match.
# Guessed before running: a filter on a column without statistics reads the file.
# Seen on 2026-11-28, Python 3.11.7, deltalake 1.6.6, pyarrow 26.0.1: with statistics of the column "id" alone, the fragment claims
#   user >= null, and a filter on "user" gives 0 of 2 rows, without a warning. Without any statistics, with the number of records
#   alone, or with statistics of both columns it gives 2, and so does the QueryBuilder of the same package in each case.
#   delta-io/delta-rs#3173 has the same for structs, closed as fixed in 2025.
# What follows: writers that keep statistics of a few columns, to keep the log small, lose events for people who read an archive of
#   audit events with to_pyarrow_dataset(), to_pandas(filters=…) and the like: "no events of ann" is then wrong. Write statistics of
#   every column, or the number of records only; and count with a second reader before nothing is reported as nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check deltalake==1.6.6 pyarrow==26.0.1 || exit 2
WORK=$work "$work/venv/bin/python" - <<'PY'
import json
import os
import pathlib
import sys
from importlib.metadata import version

import pyarrow
import pyarrow.dataset
import pyarrow.parquet
from deltalake import DeltaTable, QueryBuilder

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("deltalake", "pyarrow")))

FIELDS = [("id", "long"), ("user", "string")]
STATISTICS = {
    "none": None,
    "number of records": {"numRecords": 3},
    "column id": {"numRecords": 3, "minValues": {"id": 1}, "maxValues": {"id": 3}, "nullCount": {"id": 0}},
    "both columns": {
        "numRecords": 3,
        "minValues": {"id": 1, "user": "ann"},
        "maxValues": {"id": 3, "user": "bob"},
        "nullCount": {"id": 0, "user": 0},
    },
}
EXPECTED = {"none": (2, 2), "number of records": (2, 2), "column id": (0, 2), "both columns": (2, 2)}


def make_table(folder, statistics):
    """Write a table of one file with a log as the protocol describes it, and open it."""
    (folder / "_delta_log").mkdir(parents=True)
    data = folder / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2, 3], "user": ["ann", "bob", "ann"]}), data)
    fields = [{"name": name, "type": kind, "nullable": True, "metadata": {}} for name, kind in FIELDS]
    add = {"path": data.name, "partitionValues": {}, "size": data.stat().st_size, "modificationTime": 0, "dataChange": True}
    if statistics is not None:
        add["stats"] = json.dumps(statistics)
    actions = [
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {
            "metaData": {
                "id": "6d1b9f6e-3f2a-4c55-9d0a-0d6b8f0f7a11",
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": fields}),
                "partitionColumns": [],
                "configuration": {},
                "createdTime": 0,
            }
        },
        {"add": add},
    ]
    (folder / "_delta_log" / f"{0:020}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
    return DeltaTable(str(folder))


seen = {}
for number, (name, statistics) in enumerate(STATISTICS.items()):
    table = make_table(pathlib.Path(os.environ["WORK"]) / str(number), statistics)
    dataset = table.to_pyarrow_dataset()
    found = dataset.to_table(filter=pyarrow.dataset.field("user") == "ann").num_rows
    query = QueryBuilder().register("t", table).execute("SELECT count(*) AS c FROM t WHERE user = 'ann'")
    (counted,) = pyarrow.table(query.read_all())["c"].to_pylist()
    seen[name] = (found, counted)
    print(f"statistics: {name}: {found} rows by the data set, {counted} by the QueryBuilder")

print("as seen before" if seen == EXPECTED else "CHANGED")
sys.exit(seen != EXPECTED)
PY
