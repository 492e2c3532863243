#!/usr/bin/env bash
# concurrent-log-handler empties the log at maxBytes if backupCount is 0, its default. logging's RotatingFileHandler keeps the
#   log.
#
# A reader would expect: no rollover, as with the handler of logging that it replaces ("if either of maxBytes or backupCount
#   is zero, rollover never occurs"); its own docstring says so for maxBytes, and nothing of backupCount=0.
# Guessed before running: as with logging: one file that grows.
# Seen on 2026-11-28, Python 3.11.7, concurrent-log-handler 0.9.31: of 100 events the last 25 are left; RotatingFileHandler
#   with the same arguments keeps 100 events. Nothing is printed.
# What follows: replacing the class in a configuration with maxBytes alone deletes the whole log each time that it is full.
#   Set backupCount, large enough for what must be kept.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check concurrent-log-handler==0.9.31 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import logging
import sys
from importlib.metadata import version
from logging.handlers import RotatingFileHandler
from pathlib import Path

from concurrent_log_handler import ConcurrentRotatingFileHandler

print("Python", sys.version.split()[0], "concurrent-log-handler", version("concurrent-log-handler"))
seen = {}
for handler_class in (RotatingFileHandler, ConcurrentRotatingFileHandler):
    name = handler_class.__name__
    handler = handler_class(f"{name}.log", maxBytes=1000)
    logger = logging.Logger("audit")
    logger.addHandler(handler)
    for number in range(100):
        logger.info("event %d: %s", number, "x" * 30)
    handler.close()
    seen[name] = sum(len(path.read_text().splitlines()) for path in Path().glob(f"{name}.log*"))
    print(f"{name}: {seen[name]} of 100 events are left, in {len(list(Path().glob(f'{name}.log*')))} file")

same = seen["RotatingFileHandler"] == 100 and seen["ConcurrentRotatingFileHandler"] < 50
print("as seen before" if same else "CHANGED")
sys.exit(not same)
PY
