#!/usr/bin/env bash
# jc cuts a value of structured data in syslog at its first escaped quote, and keeps the last of several parameters of one name.
#
# A reader would expect: the value as it was before RFC 5424 required to escape quotes, and all values of a name: an example in
#   the RFC has the parameter "ip" of "origin" twice.
# Guessed before running: escapes are undone, and the last of two values, or a list, is kept.
# Seen on 2026-11-29, Python 3.11.7, jc 1.26.1, syslog-rfc5424-parser 0.3.2: jc reads q="say \"hi\" to ann" as "say ", without
#   an error or a warning, and undoes the escapes of backslash and bracket. syslog-rfc5424-parser leaves each escape in the
#   value. Both keep the second address only, and a parameter of that name in another element is not affected.
# What follows: the rest of a user's input after its first quote, and the first address of a host, are missing from what is
#   searched or exported. Put JSON into the message, and parse that.
# Escaped quotes fail elsewhere, too: https://github.com/solzimer/nsyslog-parser/issues/12; none is known for jc.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check jc==1.26.1 syslog-rfc5424-parser==0.3.2 || exit 2
"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import jc
from syslog_rfc5424_parser import SyslogMessage

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("jc", "syslog-rfc5424-parser")))
RECORDED = {
    "origin": [("ip", "192.0.2.1"), ("ip", "192.0.2.129")],
    "audit@32473": [("ip", "192.0.2.7"), ("q", 'say "hi" to ann'), ("path", "C:\\temp"), ("field", "a[1]")],
}


def escape(value):
    """Escape *value* as RFC 5424 requires, section 6.3.3."""
    for character in '\\"]':
        value = value.replace(character, "\\" + character)
    return value


def parameters(pairs):
    return "".join(f' {name}="{escape(value)}"' for name, value in pairs)


elements = "".join(f"[{element}{parameters(pairs)}]" for element, pairs in RECORDED.items())
line = f"<134>1 2025-01-15T10:30:45.123456Z host app 123 ID {elements} document.delete"
print(line)
by_jc = {element["identity"]: element["parameters"] for element in jc.parse("syslog", line)[0]["structured_data"]}
by_parser = SyslogMessage.parse(line).as_dict()["sd"]
for name, parsed in (("jc", by_jc), ("syslog-rfc5424-parser", by_parser)):
    for element, pairs in parsed.items():
        print(f"{name}, {element}: {pairs}")

audit = dict(RECORDED["audit@32473"])
origin = {"ip": "192.0.2.129"}
same = by_jc == {"origin": origin, "audit@32473": audit | {"q": "say "}} and by_parser == {
    "origin": origin,
    "audit@32473": {name: escape(value) for name, value in audit.items()},
}
print("as seen before" if same else "CHANGED")
sys.exit(not same)
PY
