#!/usr/bin/env bash
# rsyslog's mmjsonparse turns integers beyond 2^63 - 1 into that number, and cuts a text at its first \u0000.
#
# A reader would expect: the numbers as they were, since mmjsonparse keeps 1.50, 1e400 and 9007199254740993 digit by digit.
# Guessed before running: integers beyond 2^63 - 1 are clamped; \u0000 stays.
# Seen on 2026-11-28, Debian 12, rsyslog 8.2302.0-1+deb12u2 with libfastjson4 1.2304.0-1: 12345678901234567890 and 2^64 + 5
#   both become 9223372036854775807, "first\u0000second" becomes "first", and imfile adds a member "metadata" (file name and
#   offset) to each object that has none of its own, also without a wildcard.
# What follows: two users with long numeric ids become the same one, a part of a text is missing, and signatures of the line
#   fail. Ship the line as it is (%msg%), or write identities as text, and set addMetadata="off".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -q -o APT::Sandbox::User=root \
  rsyslog=8.2302.0-1+deb12u2 libfastjson4=1.2304.0-1 libestr0=0.1.11-1 liblognorm5=2.0.6-4 > apt.log 2>&1 || { cat apt.log; exit 2; }
for package in *.deb; do
  dpkg -x "$package" root || exit 2
done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
modules=$work/root/usr/lib/x86_64-linux-gnu/rsyslog
root/usr/sbin/rsyslogd -M "$modules" -v | head -1 || exit 2
cat > rsyslog.conf <<CONF
module(load="imfile")
module(load="mmjsonparse")
global(workDirectory="$work")
template(name="parsed" type="string" string="%\$!all-json%\\n")
input(type="imfile" file="$work/audit.jsonl" tag="audit")
action(type="mmjsonparse" cookie="")
action(type="omfile" file="$work/parsed.jsonl" template="parsed")
CONF
cat > audit.jsonl <<'JSONL'
{"user_id":12345678901234567890}
{"user_id":18446744073709551621}
{"user_id":"ann","note":"first\u0000second"}
{"ms":1.50,"big":1e400,"id":9007199254740993,"metadata":{"plan":"pro"}}
JSONL
root/usr/sbin/rsyslogd -n -M "$modules" -f rsyslog.conf -i "$work/pid" 2> rsyslog.log &
daemon=$!
for _ in $(seq 100); do
  if [ "$(wc -l 2> /dev/null < parsed.jsonl)" = 4 ]; then
    break
  fi
  sleep 0.1
done
kill "$daemon"
wait "$daemon" || true
[ -s parsed.jsonl ] || { cat rsyslog.log; exit 2; }
paste -d '\n' audit.jsonl parsed.jsonl
"${PYTHON:-python3}" - <<'PY'
import json
import sys

with open("parsed.jsonl") as file:
    lines = [line.strip() for line in file]
seen = [json.loads(line) for line in lines[:3]]
users = [event["user_id"] for event in seen]
added = [sorted(event["metadata"]) for event in seen]
kept = '"ms": 1.50, "big": 1e400, "id": 9007199254740993' in lines[3] and '"metadata": { "plan": "pro" }' in lines[3]
same = users == [2**63 - 1, 2**63 - 1, "ann"] and seen[2]["note"] == "first" and added == [["filename", "fileoffset"]] * 3 and kept
print("as seen before" if same else "CHANGED")
sys.exit(not same)
PY
