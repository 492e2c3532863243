#!/usr/bin/env bash
# The stores of stix2 compare times of custom objects as text: half a second after 10:30:45 is before it, and get() returns an
#   older version as the latest.
#
# A reader would expect: times are compared, as for the object types of the standard, whose times may have any number of digits,
#   too.
# Guessed before running: times are compared.
# Seen on 2026-11-29, Python 3.11.7, stix2 3.0.2: of four objects, the filter "observed_at > 10:30:45Z" finds one of the two
#   that are later, and "<" finds the other with the one that is earlier. Of two versions of an object, modified at …45.123Z and
#   …45.123456Z, MemoryStore and FileSystemStore return the first as the latest. The same with objects of the type "identity", and
#   of a class that was made with CustomObject, is right; the documented allow_custom=True has no class, and keeps dicts.
# What follows: a search of audit events that were exported as x-… objects for a period misses some at its border, and the state
#   of an object is an outdated one. Declare a class for the type, or write all times with six digits.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check stix2==3.0.2 || exit 2
mkdir "$work/store"
cd "$work/store"
"$work/venv/bin/python" - <<'PY'
import os
import sys
from importlib.metadata import version

import stix2

print("Python", sys.version.split()[0], "stix2", version("stix2"))
DAY = "2025-01-15T"
PROPERTIES = [("name", stix2.properties.StringProperty()), ("observed_at", stix2.properties.TimestampProperty())]


@stix2.v21.CustomObject("x-declared", PROPERTIES)
class Declared:
    pass


def objects(kind, times, field):
    """Return an object for each time; if the field is "modified", they are versions of one object."""
    for number, time in enumerate(times):
        identity = 0 if field == "modified" else number
        base = {"type": kind, "spec_version": "2.1", "id": f"{kind}--00000000-0000-4000-8000-00000000000{identity}"}
        dates = {"created": f"{DAY}00:00:00.000Z", "modified": f"{DAY}00:00:00.000Z", field: DAY + time}
        yield {**base, **dates, "name": time}


def later(kind):
    """Return the names of the objects before and after 10:30:45Z."""
    times = ["10:30:44.9Z", "10:30:45Z", "10:30:45.5Z", "10:30:46Z"]
    store = stix2.MemoryStore(list(objects(kind, times, "observed_at")), allow_custom=True)
    found = {}
    for operator in "<>":
        filters = [stix2.Filter("observed_at", operator, f"{DAY}10:30:45Z")]
        found[operator] = sorted(item["name"] for item in store.query(filters))
    return found


def latest(kind, store):
    """Add two versions of an object, and return the name of the one that the store calls the latest."""
    versions = list(objects(kind, ["10:30:45.123Z", "10:30:45.123456Z"], "modified"))
    for item in versions:
        store.add(item)
    return store.get(versions[0]["id"])["name"]


def folder(name):
    os.mkdir(name)
    return stix2.FileSystemStore(name, allow_custom=True)


seen = {}
for kind in ("x-audit-event", "x-declared", "identity"):
    in_memory, in_files = latest(kind, stix2.MemoryStore(allow_custom=True)), latest(kind, folder(f"store-{kind}"))
    seen[kind] = in_memory, in_files
    print(f"{kind}: the latest version is {in_memory} in memory and {in_files} in files")
for kind in ("x-audit-event", "x-declared"):
    seen["later", kind] = later(kind)
    print(f"{kind}: before and after 10:30:45Z are {later(kind)}")

new = ("10:30:45.123456Z",) * 2
expected = {
    "x-audit-event": ("10:30:45.123Z",) * 2,
    "x-declared": new,
    "identity": new,
    ("later", "x-audit-event"): {"<": ["10:30:44.9Z", "10:30:45.5Z"], ">": ["10:30:46Z"]},
    ("later", "x-declared"): {"<": ["10:30:44.9Z"], ">": ["10:30:45.5Z", "10:30:46Z"]},
}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
