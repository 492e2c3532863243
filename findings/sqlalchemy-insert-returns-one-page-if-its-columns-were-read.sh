#!/usr/bin/env bash
# SQLAlchemy returns the rows of the last page only, of INSERT … RETURNING with many rows, if exported_columns of the statement was
#   read before returning() was called.
#
# A reader would expect: all rows; returning() makes a new statement, and reading a property of the old one changes nothing.
# Guessed before running: all 2,500 rows.
# Seen on 2026-11-28, Python 3.11.7, SQLAlchemy 2.1.9 and 2.0.20, SQLite: all 2,500 rows are stored, and 500 are returned, without
#   an error or a warning: the property is memoized without columns and copied into the new statement. If the same statement was
#   compiled before without reading the property, the cached form returns all rows.
# What follows: a listener of before_execute that looks at the columns of statements, and adds returning() to learn the keys of new
#   rows, records a fifth of them; which part depends on what ran before. Call returning() first, and look at columns afterwards.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check SQLAlchemy==2.1.9 || exit 2
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import sqlalchemy as sa

print("Python", sys.version.split()[0], "SQLAlchemy", version("SQLAlchemy"))
metadata = sa.MetaData()
users = sa.Table("users", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(20)))
names = [{"name": f"user{number}"} for number in range(2500)]
seen = []

for is_read in (False, True):
    engine = sa.create_engine("sqlite://")
    metadata.create_all(engine)
    insert = users.insert()
    if is_read:
        insert.exported_columns
    with engine.begin() as connection:
        returned = len(connection.execute(insert.returning(users.c.id), names).all())
        stored = connection.execute(sa.select(sa.func.count()).select_from(users)).scalar()
    print(f"exported_columns was read: {is_read}; stored: {stored}; returned: {returned}")
    seen.append((stored, returned))

if seen != [(2500, 2500), (2500, 500)]:
    sys.exit("changed: expected 2500 returned rows, and 500 where the columns were read before")
print("as seen before")
PY
