#!/usr/bin/env bash
# sqlite-utils' upsert_all() sets a column to NULL if the record omits it and another one, earlier or in the same batch, has
#   it.
#
# A reader would expect: columns that a record omits keep their values ("Upserting data" in the documentation, since version
#   2.0).
# Guessed before running: omitted columns keep their values, as with upsert() of each record.
# Seen on 2026-11-28, Python 3.11.7, sqlite-utils 4.2.1: {"id": 1, "status": "FAILURE"} clears the user of event 1 if the next
#   record names a user. With batch_size=1 it stays, but the next record, which omits the status, still loses that: the columns
#   of earlier batches count, too. upsert() of one record keeps everything. The command "sqlite-utils upsert" is like
#   upsert_all().
# What follows: events have different members, so a second import of a few of them into an exported database removes what they
#   omit, and which values are lost depends on the neighbours in the file. Call upsert() for each, or insert with ignore=True.
# Known for a batch: https://github.com/simonw/sqlite-utils/issues/873
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check sqlite-utils==4.2.1 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import json
import subprocess
import sys
from importlib.metadata import version

import sqlite_utils

print("Python", sys.version.split()[0], "sqlite-utils", version("sqlite-utils"))
EVENTS = [{"id": 1, "user": "ann", "status": "SUCCESS"}, {"id": 2, "user": "bob", "status": "SUCCESS"}]
CHANGES = [{"id": 1, "status": "FAILURE"}, {"id": 2, "user": "carl"}]


def one_by_one(table):
    for change in CHANGES:
        table.upsert(change, pk="id")


def by_command(table):
    with open("changes.jsonl", "w") as file:
        file.writelines(json.dumps(change) + "\n" for change in CHANGES)
    command = [sys.executable, "-m", "sqlite_utils", "upsert", "events.db", "events", "changes.jsonl", "--nl", "--pk", "id"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


ways = {
    "upsert, one by one": one_by_one,
    "upsert_all, batch_size=1": lambda table: table.upsert_all(CHANGES, pk="id", batch_size=1),
    "upsert_all": lambda table: table.upsert_all(CHANGES, pk="id"),
    "sqlite-utils upsert": by_command,
}
seen = {}
for name, change in ways.items():
    database = sqlite_utils.Database("events.db", recreate=True)
    database["events"].insert_all(EVENTS, pk="id")
    change(database["events"])
    seen[name] = [tuple(row.values()) for row in database["events"].rows]
    database.close()
    print(f"{name}: {seen[name]}")

kept = [(1, "ann", "FAILURE"), (2, "carl", "SUCCESS")]
second_cleared = [(1, "ann", "FAILURE"), (2, "carl", None)]
both_cleared = [(1, None, "FAILURE"), (2, "carl", None)]
expected = dict(zip(ways, (kept, second_cleared, both_cleared, both_cleared), strict=True))
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
