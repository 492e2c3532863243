#!/usr/bin/env bash
# An auditor's day: the files of a trail and a verifier key, without the application, and a month to examine.
# Usage: day.sh WHEELS, in a folder with export/ and audit.vkey, which came from another source.
. "$(dirname "$0")/../timed.sh"

# Install.
time python3 -m venv venv && PATH=$PWD/venv/bin:$PATH
time pip install -q "$WHEEL[cli,reports]"

# Is the trail as it was sealed, and is January complete?
time structlog-audit verify export/audit.jsonl --key audit.vkey --max-age none

# Who exported what in January? The ids of the events are for the proof.
time structlog-audit query export/audit.jsonl --month 2025-01 operation~export --columns timestamp,user_id,entry_ids,event_id | tee exports

# The report, which has the verdict on completeness, as a page and on paper.
time structlog-audit report export/audit.jsonl --month 2025-01 --key audit.vkey --html january.html
time $CHROMIUM --print-to-pdf=january.pdf january.html 2>/dev/null

# One event for somebody who gets neither the trail nor this library: a proof, verified by Python alone.
time structlog-audit prove export/audit.jsonl "$(grep -om 1 'evt_[0-9a-f]*' exports)" --line event.json > event.tlog-proof
time python3 -IS export/verify_trail.py event.json --proof event.tlog-proof --key audit.vkey

# Who signed? OpenSSL verifies the checkpoint.
time sh export/check_checkpoint.sh export/audit.jsonl.seal/checkpoint "$(cat audit.vkey)"
