#!/usr/bin/env bash
# pygtail follows one rollover between two reads. If there are two, it loses every unread line of the rolled files, and goes on.
#
# A reader would expect: it finds the file that it had read by its inode, and reads on through both rolled files.
# Guessed before running: one rollover is followed; with two, the unread lines of both files are lost, with a warning.
# Seen on 2026-11-28, Python 3.11.7, pygtail 0.14.0: with one rollover all lines come. With two, only those of the new file: of
#   the matching names only the newest is compared by inode. One line on stderr: "log file was rotated to unknown location".
# What follows: a shipper that runs by cron loses audit events when more than one segment fills up between two runs, and nothing
#   fails. Read more often than the file rolls over, or use a shipper that keeps track of each file.
# Names with a time are not known by default: they need log_patterns (https://github.com/bgreenlee/pygtail/issues/35).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check pygtail==0.14.0 || exit 2
cd "$work"
"$work/venv/bin/python" - <<'PY'
import os
import sys
from importlib.metadata import version

from pygtail import Pygtail

print("Python", sys.version.split()[0], "pygtail", version("pygtail"))


def append(path, number):
    with open(path, "a") as file:
        file.write(f"event {number}\n")


def read(path):
    return [line.strip() for line in Pygtail(path, log_patterns=["%s.2*Z"])]


seen = {}
for rollovers in (1, 2):
    os.mkdir(str(rollovers))
    path = f"{rollovers}/audit.jsonl"
    append(path, 1)
    assert read(path) == ["event 1"]
    for number in range(rollovers):
        append(path, 2 + number)
        os.rename(path, f"{path}.20250115T10304{number}.123456Z")
    append(path, 2 + rollovers)
    seen[rollovers] = read(path)
    print(f"{rollovers} rollovers: written since the last read: events 2 to {2 + rollovers}; read: {seen[rollovers]}")

expected = {1: ["event 2", "event 3"], 2: ["event 4"]}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
