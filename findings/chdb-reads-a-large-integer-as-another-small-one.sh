#!/usr/bin/env bash
# chDB (ClickHouse) reads an integer of JSON lines that exceeds 64 bits as its lowest 64 bits: user 18446744073709551621 is
#   user 5.
#
# A reader would expect: the number as a float or text; or an error, as for a fraction or text in the same column.
# Guessed before running: an error, or the number as a float with lost digits.
# Seen on 2026-11-28, Python 3.11.7, chdb 4.4.0 (ClickHouse 26.9.2.1): after 25,000 lines (the default sample) with small ids,
#   2^63 + 5 is read as -9223372036854775803 and 2^64 + 5 as 5, without an error. 1.5 in the same column is an error. If the
#   large id is in the sample, the column is text, and the id is right.
# What follows: an event with a long numeric id counts as one of another, existing user. Write identities as text, or state
#   the column as String or Int256.
# Known upstream: https://github.com/ClickHouse/ClickHouse/issues/120503; #7630 declined a check of each number in 2019.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check chdb==4.4.0 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import os
import sys
from importlib.metadata import version

import chdb

print("Python", sys.version.split()[0], "chdb", version("chdb"), "ClickHouse", str(chdb.query("SELECT version()")).strip())
PATH = os.path.abspath("audit.jsonl")


def read(number, sampled=25_000, columns=""):
    """Write small ids and then *number*, and return what is read of it, and the type of the column."""
    with open(PATH, "w") as file:
        file.writelines(['{"last":false,"user_id":7}\n'] * sampled + [f'{{"last":true,"user_id":{number}}}\n'])
    source = f"file('{PATH}', 'JSONEachRow'{columns})"
    try:
        return str(chdb.query(f"SELECT user_id, toTypeName(user_id) FROM {source} WHERE last", "TSV")).split()
    except RuntimeError as error:
        print("  ", str(error).splitlines()[0][:100])
        return "error"


seen = {
    "2^63 + 5": read(2**63 + 5),
    "2^64 + 5": read(2**64 + 5),
    "1.5": read(1.5),
    "2^64 + 5 in the sample": read(2**64 + 5, sampled=24_000),
    "2^64 + 5, column stated": read(2**64 + 5, columns=", 'last Bool, user_id Int256'"),
}
for name, value in seen.items():
    print(f"{name}: {value}")

expected = {
    "2^63 + 5": ["-9223372036854775803", "Nullable(Int64)"],
    "2^64 + 5": ["5", "Nullable(Int64)"],
    "1.5": "error",
    "2^64 + 5 in the sample": [str(2**64 + 5), "Nullable(String)"],
    "2^64 + 5, column stated": [str(2**64 + 5), "Int256"],
}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
