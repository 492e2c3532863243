#!/usr/bin/env bash
# A structlog processor that changes a nested value in the formatter of one handler changes the event for the next handler,
#   too.
#
# A reader would expect: what one formatter does stays its own matter, since ProcessorFormatter copies the event before it
#   runs the processors, and members that it adds or removes do stay apart.
# Guessed before running: neither nested nor top-level values are shared.
# Seen on 2026-11-28, Python 3.11.7, structlog 26.1.0: a processor in the console's formatter that masks password and
#   metadata["email"] leaves the password of the file's line as it was, and masks the email there as well. With the handlers in
#   the other order the file has both. The copy is one level deep.
# What follows: whether the record on disk is complete depends on the order of the handlers, and on how deep a value lies.
#   Write processors that return new dicts instead of changing them, or copy the event deeply in the first one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check structlog==26.1.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import io
import json
import logging
import sys
from importlib.metadata import version

import structlog
from structlog.stdlib import BoundLogger, LoggerFactory, ProcessorFormatter

print("Python", sys.version.split()[0], "structlog", version("structlog"))


def mask(logger, method_name, event):
    event["password"] = event["metadata"]["email"] = "***"
    return event


structlog.configure(
    processors=[ProcessorFormatter.wrap_for_formatter], logger_factory=LoggerFactory(), wrapper_class=BoundLogger
)
LAST = [ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()]
FORMATTERS = {"console": ProcessorFormatter(processors=[mask, *LAST]), "file": ProcessorFormatter(processors=LAST)}


def lines_of(*names):
    """Log an event to handlers with these names in this order, and return the line of the file."""
    logger = logging.getLogger("-".join(names))
    logger.setLevel("INFO")
    logger.propagate = False
    streams = {name: io.StringIO() for name in names}
    for name, stream in streams.items():
        handler = logging.StreamHandler(stream)
        handler.setFormatter(FORMATTERS[name])
        logger.addHandler(handler)
    structlog.get_logger(logger.name).info("login", password="secret", metadata={"email": "ann@example.com"})
    for name, stream in streams.items():
        print(f"{' before '.join(names)}: {name}: {stream.getvalue().strip()}")
    line = json.loads(streams["file"].getvalue())
    return line["password"], line["metadata"]["email"]


seen = lines_of("console", "file"), lines_of("file", "console")
expected = ("secret", "***"), ("secret", "ann@example.com")
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
