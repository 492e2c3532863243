#!/usr/bin/env bash
# DataFusion writes events without a user, partitioned by user, as those of the user "", and reads those of other writers as the
#   user "__HIVE_DEFAULT_PARTITION__".
#
# A reader would expect: null, as DuckDB, Polars and pyarrow read from each other's folders.
# Guessed before running: values survive within each engine, and null differs between engines.
# Seen on 2026-11-29, Python 3.11.7, datafusion 55.0.0, duckdb 2.0.1, polars 2.1.0, pyarrow 26.0.1: the other three write the
#   folder user=__HIVE_DEFAULT_PARTITION__ and read it as null. DataFusion takes its name for the value, writes "user=" itself,
#   and reads that as "", as the others do. "WHERE user IS NULL" in DataFusion finds nothing in any of the folders.
# What follows: a search for events without a user misses all of them, a count of users has one too many, and what DataFusion
#   wrote no longer tells null from empty. Keep the column in the files as well, or partition by a column that is never null.
# Known for reading: https://github.com/apache/datafusion/issues/18083
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check datafusion==55.0.0 duckdb==2.0.1 polars==2.1.0 pyarrow==26.0.1 \
  || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import datafusion
import duckdb
import polars
import pyarrow
import pyarrow.dataset

names = ("datafusion", "duckdb", "polars", "pyarrow")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
events = pyarrow.table({"id": [1, 2], "user": ["ann", None]})
connection = duckdb.connect()
context = datafusion.SessionContext()
context.register_record_batches("events", [events.to_batches()])


def table_of(writer):
    context.sql(
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {writer} (id BIGINT, user VARCHAR) STORED AS PARQUET PARTITIONED BY (user)"
        f" LOCATION '{writer}/'"
    )
    return writer


writers = {
    "datafusion": lambda: context.sql("COPY events TO 'datafusion/' STORED AS PARQUET PARTITIONED BY (user)").collect(),
    "duckdb": lambda: connection.execute("COPY events TO 'duckdb' (FORMAT parquet, PARTITION_BY (user))"),
    "polars": lambda: polars.from_arrow(events).lazy().sink_parquet(
        polars.PartitionBy("polars", key="user", include_key=False), mkdir=True
    ),
    "pyarrow": lambda: pyarrow.dataset.write_dataset(
        events, "pyarrow", format="parquet", partitioning=["user"], partitioning_flavor="hive"
    ),
}
readers = {
    "datafusion": lambda path: context.sql(f"SELECT user FROM {table_of(path)} WHERE id = 2").to_pylist()[0]["user"],
    "duckdb": lambda path: connection.execute(f"SELECT user FROM '{path}/*/*.parquet' WHERE id = 2").fetchone()[0],
    "polars": lambda path: polars.scan_parquet(f"{path}/").filter(id=2).collect()["user"][0],
    "pyarrow": lambda path: pyarrow.dataset.dataset(path, partitioning="hive").to_table().filter(
        pyarrow.dataset.field("id") == 2
    )["user"][0].as_py(),
}
seen = {}
for writer, write in writers.items():
    write()
    for reader, read in readers.items():
        seen[writer, reader] = read(writer)
    nulls = context.sql(f"SELECT id FROM {table_of(writer)} WHERE user IS NULL").count()
    seen[writer, "nulls"] = nulls
    values = ", ".join(f"{reader} {seen[writer, reader]!r}" for reader in readers)
    print(f"null written by {writer}, read by {values}; found as null by datafusion: {nulls}")

expected = {
    (writer, reader): "" if writer == "datafusion" else "__HIVE_DEFAULT_PARTITION__" if reader == "datafusion" else None
    for writer in writers
    for reader in readers
} | {(writer, "nulls"): 0 for writer in writers}
print("as seen before" if seen == expected else f"CHANGED: {seen}")
sys.exit(seen != expected)
PY
