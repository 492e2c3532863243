#!/usr/bin/env bash
# deltalake and fastparquet append a fraction to an integer column by cutting it. deltalake also turns seconds into
#   microseconds.
#
# A reader would expect: an error, as both give for text in such a column, and pyarrow for the same cast.
# Guessed before running: an error that says that the schemas differ.
# Seen on 2026-11-28, Python 3.11.7, deltalake 1.6.6, fastparquet 2026.9.0, pyarrow 26.0.1: 1.7 becomes 1, and with deltalake
#   -0.9 becomes 0, without an error, also with schema_mode="merge". In a column of timestamps deltalake takes the integer
#   1736937045 (a time in January 2025) for microseconds: 28 minutes after the start of 1970. A list in a text column becomes
#   "[b]".
# What follows: the first file that is written decides the type, so one early batch of whole numbers cuts each later duration
#   or amount. Cast to the schema of the table with pyarrow's cast(), which refuses to lose data, before you append.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check deltalake==1.6.6 fastparquet==2026.9.0 pyarrow==26.0.1 pandas==3.1.1 \
  || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import datetime
import sys
import warnings
from importlib.metadata import version

import fastparquet
import pandas
import pyarrow
from deltalake import DeltaTable, write_deltalake

warnings.simplefilter("ignore")
names = ("deltalake", "fastparquet", "pyarrow")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
UTC = datetime.UTC
folders = iter(range(100))


def append(first, second, **options):
    """Write a Delta table of *first*, append *second*, and return what is read of it."""
    folder = f"delta-{next(folders)}"
    write_deltalake(folder, pyarrow.table({"value": [first]}))
    write_deltalake(folder, pyarrow.table({"value": [second]}), mode="append", **options)
    values = DeltaTable(folder).to_pyarrow_table()["value"].to_pylist()
    values.remove(first)
    return values[0]


def append_by_fastparquet(first, second):
    folder = f"fastparquet-{next(folders)}"
    for value in (first, second):
        frame = pandas.DataFrame({"value": [value]})
        fastparquet.write(folder, frame, file_scheme="hive", append=value == second)
    return fastparquet.ParquetFile(folder).to_pandas()["value"].tolist()[1]


def cast_by_pyarrow(first, second):
    return pyarrow.array([second]).cast(pyarrow.array([first]).type)[0].as_py()


def tried(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except Exception as error:
        return type(error).__name__


midnight = datetime.datetime(2025, 1, 1, tzinfo=UTC)
seen = {
    "deltalake, 1.7 after 5": tried(append, 5, 1.7),
    "deltalake, -0.9 after 5": tried(append, 5, -0.9),
    "deltalake, 1.7 after 5, schema_mode=merge": tried(append, 5, 1.7, schema_mode="merge"),
    "deltalake, 1736937045 after a time": str(tried(append, midnight, 1736937045)),
    "deltalake, ['b'] after 'a'": tried(append, "a", ["b"]),
    "deltalake, 'soon' after 5": tried(append, 5, "soon"),
    "fastparquet, 1.7 after 5": tried(append_by_fastparquet, 5, 1.7),
    "cast() of pyarrow, 1.7 to int64": tried(cast_by_pyarrow, 5, 1.7),
}
for name, value in seen.items():
    print(f"{name}: {value!r}")

expected = dict(
    zip(seen, (1, 0, 1, "1970-01-01 00:28:56.937045+00:00", "[b]", "Exception", 1, "ArrowInvalid"), strict=True)
)
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
