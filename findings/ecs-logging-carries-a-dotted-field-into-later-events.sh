#!/usr/bin/env bash
# ecs_logging's formatter for structlog writes a dotted field into the bound object of its first name, so that the next events
#   state it as well, and one with another value raises TypeError.
#
# A reader would expect: fields that are passed to one call are in that event only, as with the processors of structlog itself.
# Guessed before running: nothing of later events; it was met while names that collide were tried.
# Seen on 2026-11-29, Python 3.11.7, ecs-logging 2.3.0, structlog 26.1.0: with user={"roles": ["admin"]} bound to the logger or
#   in the context variables, an event with "user.name" ann is right, the next one, without a name, has the user ann too, and the
#   one after it, of bob, raises TypeError in the application. If the name comes with user={…} in the same call, a dict of the
#   caller changes. ecs_logging.StdlibFormatter, with the same fields in extra=, keeps the events apart.
# What follows: events of a loop, or of all requests if the logger of a module is bound, name the user of the first one, and
#   others end in an error. Bind objects by dotted names alone, or copy the event deeply in a processor before the formatter.
# The reason: merge_dicts() writes into the nested object of the event, which all events of a bound logger share.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check ecs-logging==2.3.0 structlog==26.1.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import io
import json
import logging
import sys
from importlib.metadata import version

import ecs_logging
import structlog

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("ecs-logging", "structlog")))
EVENTS = ["delete", {"user.name": "ann"}], ["nightly job", {}], ["login", {"user.name": "bob"}]


def users(write, out):
    """Write the events, and return the user of each line, or the error."""
    found = []
    for message, fields in EVENTS:
        out.seek(0)
        out.truncate()
        try:
            write(message, fields)
        except TypeError as error:
            found.append("TypeError")
            print("  ", error)
        else:
            found.append(json.loads(out.getvalue())["user"].get("name"))
    return found


out = io.StringIO()
structlog.configure(
    processors=[structlog.contextvars.merge_contextvars, ecs_logging.StructlogFormatter()],
    logger_factory=structlog.PrintLoggerFactory(out),
)
seen = {}
bound = structlog.get_logger().bind(user={"roles": ["admin"]})
seen["bound logger"] = users(lambda message, fields: bound.info(message, **fields), out)
with structlog.contextvars.bound_contextvars(user={"roles": ["admin"]}):
    log = structlog.get_logger()
    seen["context variables"] = users(lambda message, fields: log.info(message, **fields), out)

handler = logging.StreamHandler(out)
handler.setFormatter(ecs_logging.StdlibFormatter())
plain = logging.getLogger("audit")
plain.setLevel("INFO")
plain.addHandler(handler)
shared = {"roles": ["admin"]}
seen["logging"] = users(lambda message, fields: plain.info(message, extra={"user": shared, **fields}), out)
for name, found in seen.items():
    print(f"{name}: the events of ann, of nobody and of bob have the users {found}")

carried = ["ann", "ann", "TypeError"]
expected = {"bound logger": carried, "context variables": carried, "logging": ["ann", None, "bob"]}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
