#!/usr/bin/env bash
# A platform engineer's day with one host: another user seals the trail, it is watched, and rsyslog ships it.
# Usage: day.sh WHEELS, in a folder with web1/, the trail of an application that answers at $SHOP and has metrics at $METRICS,
# and rsyslog.conf, which includes audit.conf.
. "$(dirname "$0")/../timed.sh"

# Install.
time python3 -m venv venv && PATH=$PWD/venv/bin:$PATH
time pip install -q "$WHEEL[cli,signing]"

# Seal the trail, with a key that the application cannot read.
time structlog-audit keygen audit.pem --origin audit.example/shop/web1 > audit.vkey
structlog-audit seal "$PWD/web1/audit.jsonl" --watch --key audit.pem --origin audit.example/shop/web1 &

# Ship it.
time structlog-audit shipper rsyslog --trail "$PWD/web1/audit.jsonl" --to "$PWD/shipped.jsonl" > audit.conf
rsyslogd -n -f "$PWD/rsyslog.conf" -i "$PWD/rsyslog.pid" &

# Three pages are read. Is the application well, and is everything recorded?
time curl -s -w '\n' "http://$SHOP/{page/1,page/2,page/3,health}" "http://$METRICS/metrics" | grep -E '^[{]|_(recorded|lost|pending)_events(_total)?[{]'

# Is the trail intact, also by a checkpoint that left the host? The sealer, which has sealed the start and the three pages,
# records one each minute, and one at its end.
seen '^4$' web1/audit.jsonl.seal/checkpoint
time kill %1
seen '"kind":"checkpoint"' shipped.jsonl
time structlog-audit verify web1/audit.jsonl --key audit.vkey --anchor shipped.jsonl
