#!/usr/bin/env bash
# With python-json-logger, a field in extra= replaces the level, the logger name and static fields of the line, without an error.
#
# A reader would expect: the record's own level stays, since logging refuses extra={"levelname": ...} with a KeyError.
# Guessed before running: the value in extra= replaces the level and the static fields.
# Seen on 2026-11-28, Python 3.11.7, python-json-logger 4.2.0: with the usual rename_fields={"levelname": "level", ...} the value
#   in extra= replaces the record's level and logger name, and one in static_fields. Only the timestamp stays.
# What follows: an audit event of severity ERROR can appear as "low", or as another service's, if field names come from data.
#   Rename to names that callers do not use ("log.level"), or nest the fields of callers.
# An open question upstream: https://github.com/nhairs/python-json-logger/issues/36
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check python-json-logger==4.2.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import io
import json
import logging
import sys
from importlib.metadata import version

from pythonjsonlogger.json import JsonFormatter

print("Python", sys.version.split()[0], "python-json-logger", version("python-json-logger"))
out = io.StringIO()
handler = logging.StreamHandler(out)
handler.setFormatter(
    JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        static_fields={"service": "billing"},
        timestamp=True,
    )
)
log = logging.getLogger("audit")
log.addHandler(handler)
log.error("document.delete", extra={"level": "low", "logger": "other", "service": "shop", "timestamp": "1970-01-01"})
line = json.loads(out.getvalue())
print(out.getvalue().strip())

seen = {name: line[name] for name in ("level", "logger", "service")}
expected = {"level": "low", "logger": "other", "service": "shop"}
same = seen == expected and line["timestamp"] != "1970-01-01"
print("as seen before" if same else "CHANGED")
sys.exit(not same)
PY
