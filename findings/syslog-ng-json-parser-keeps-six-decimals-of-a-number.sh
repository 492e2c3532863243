#!/usr/bin/env bash
# The json-parser of syslog-ng 3.38 keeps six decimals of a number: 0.0000004 becomes 0.000000. Integers end at 2^63 - 1.
#
# A reader would expect: the digits of the line, since the parser makes text of each value.
# Guessed before running: the digits of the line; integers beyond 64 bits are clamped, as with rsyslog.
# Seen on 2026-11-28, Debian 12, syslog-ng-core 3.38.1-5+deb12u1: json-parser and then $(format-json) give "0.000000" for 4e-7
#   and 1e-9, and "1234567.123457" for 1234567.123456789. 2^64 + 5 becomes 9223372036854775807, a list of one text the text, an
#   empty list and null the empty text, and "http.method" an object "http" with a member "method".
# What follows: small durations, rates and exact amounts are lost when a pipeline parses the trail to route or filter it, and
#   it cannot be compared with the file. Route by the parsed values, but write the line itself ($MESSAGE).
# Debian 12 has 3.38. syslog-ng 4.0 made the parser keep types, which is not tried here.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -q -o APT::Sandbox::User=root syslog-ng-core=3.38.1-5+deb12u1 \
  libivykis0 libjson-c5 libnet1 libpcre3 libglib2.0-0 > apt.log 2>&1 || { cat apt.log; exit 2; }
for package in *.deb; do
  dpkg -x "$package" root || exit 2
done
lib=$work/root/usr/lib
export LD_LIBRARY_PATH=$lib/syslog-ng:$lib/x86_64-linux-gnu:$work/root/lib/x86_64-linux-gnu
syslog_ng=(root/usr/sbin/syslog-ng --module-path="$lib/syslog-ng/3.38")
"${syslog_ng[@]}" --version | head -1 || exit 2
cat > syslog-ng.conf <<CONF
@version: 3.38
source trail { file("$work/audit.jsonl" flags(no-parse)); };
parser json { json-parser(prefix(".json.")); };
destination parsed { file("$work/parsed.jsonl" template("\$(format-json .json.* --rekey .json.* --shift 6)\n")); };
log { source(trail); parser(json); destination(parsed); };
CONF
cat > audit.jsonl <<'JSONL'
{"user_id":18446744073709551621,"ms":0.0000004,"amount":1234567.123456789,"tags":["one"]}
{"user_id":"ann","ms":1e-9,"amount":0.1,"tags":[],"error":null,"http.method":"GET"}
JSONL
"${syslog_ng[@]}" -F -f syslog-ng.conf -R "$work/persist" -c "$work/control" -p "$work/pid" --no-caps 2> syslog-ng.log &
daemon=$!
for _ in $(seq 100); do
  if [ "$(wc -l 2> /dev/null < parsed.jsonl)" = 2 ]; then
    break
  fi
  sleep 0.1
done
kill "$daemon"
wait "$daemon" || true
[ -s parsed.jsonl ] || { cat syslog-ng.log; exit 2; }
paste -d '\n' audit.jsonl parsed.jsonl
"${PYTHON:-python3}" - <<'PY'
import json
import sys

with open("parsed.jsonl") as file:
    seen = [json.loads(line) for line in file]
first = {"user_id": "9223372036854775807", "ms": "0.000000", "amount": "1234567.123457", "tags": "one"}
second = {"user_id": "ann", "ms": "0.000000", "amount": "0.100000", "tags": "", "error": "", "http": {"method": "GET"}}
print("as seen before" if seen == [first, second] else "CHANGED")
sys.exit(seen != [first, second])
PY
