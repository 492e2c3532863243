#!/usr/bin/env bash
# A column that is dropped from an Iceberg table and later added with the same name has its old values again in files that came
#   by pyiceberg's add_files().
#
# A reader would expect: null; Iceberg promises that an added column never reads the values of another one, since each has its
#   own id.
# Guessed before running: null, as in files that pyiceberg wrote itself.
# Seen on 2026-11-29, Python 3.11.7, pyiceberg 0.12.0, pyarrow 26.0.1, polars 2.1.0: the e-mail addresses of the added file are
#   back in the new column "email", in scan() of pyiceberg and in scan_iceberg() of Polars; those of the appended file are null.
#   The files have no ids, and the name mapping of the table gives the name to the new column.
# What follows: dropping a column of personal data hides it until somebody adds a column of that name. Rewrite the added files
#   before: read the table and overwrite it.
# Known for Java, where the mapping does the same: https://github.com/apache/iceberg/issues/4930
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check "pyiceberg[sql-sqlite]==0.12.0" pyarrow==26.0.1 polars==2.1.0 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import os
import sys
import warnings
from importlib.metadata import version

import polars
import pyarrow
import pyarrow.parquet
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.types import StringType

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("pyiceberg", "pyarrow", "polars")))
warnings.simplefilter("ignore")
folder = f"file://{os.getcwd()}"
catalog = SqlCatalog("audit", uri="sqlite:///catalog.db", warehouse=folder)
catalog.create_namespace("audit")
added = pyarrow.table({"user": ["ann"], "email": ["ann@example.com"]})
appended = pyarrow.table({"user": ["bob"], "email": ["bob@example.com"]})
pyarrow.parquet.write_table(added, "added.parquet")
table = catalog.create_table("audit.events", added.schema)
table.add_files([f"{folder}/added.parquet"])
table.append(appended)

seen = {}


def read(step):
    by_pyiceberg = {row["user"]: row.get("email") for row in table.scan().to_arrow().to_pylist()}
    by_polars = {row["user"]: row.get("email") for row in polars.scan_iceberg(table).collect().to_dicts()}
    seen[step] = by_pyiceberg, by_polars
    print(f"{step}: pyiceberg {by_pyiceberg}, polars {by_polars}")


read("at first")
with table.update_schema(allow_incompatible_changes=True) as update:
    update.delete_column("email")
read("dropped")
with table.update_schema() as update:
    update.add_column("email", StringType())
read("added again")
print("name mapping:", table.properties["schema.name-mapping.default"])

first = {"ann": "ann@example.com", "bob": "bob@example.com"}
again = {"ann": "ann@example.com", "bob": None}
dropped = {"ann": None, "bob": None}
expected = {"at first": (first, first), "dropped": (dropped, dropped), "added again": (again, again)}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
