#!/usr/bin/env bash
# pycef splits CEF lines correctly at escaped characters, but leaves the escapes in the values.
#
# A reader would expect: the value as it was before "=", the backslash and line breaks were escaped, as CEF requires.
# Guessed before running: the backslash stays in the value.
# Seen on 2026-11-28, Python 3.11.7, pycef 1.11: the backslash before "=" stays, two backslashes stay two, and a line break stays
#   the two characters backslash and n.
# What follows: a value that is read from CEF with pycef does not equal the one that was recorded, so a comparison or a search for
#   a user name or path with such a character finds nothing. Unescape values after parsing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check pycef==1.11 || exit 2
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import pycef

print("Python", sys.version.split()[0], "pycef", version("pycef"))
values = {"suser": "CORP\\ann", "request": "http://h/?a=1", "msg": "two\nlines", "fname": "a|b.txt"}


def escape(value):
    """Escape *value* as the extension of a CEF line requires."""
    return value.replace("\\", "\\\\").replace("=", "\\=").replace("\n", "\\n")


extension = " ".join(f"{name}={escape(value)}" for name, value in values.items())
line = f"CEF:0|Vendor|Product|1.0|100|document.delete|5|{extension}"
print(line)
parsed = pycef.parse(line)
seen = {name: parsed.get(name) for name in values}
for name, value in values.items():
    print(f"{name}: recorded {value!r}, parsed {seen[name]!r}")

expected = {name: escape(value) for name, value in values.items()}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
