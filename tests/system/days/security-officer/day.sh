#!/usr/bin/env bash
# A security officer's day: what was different in February, who was it, and an alert that finds the next one.
# Usage: day.sh WHEELS, in a folder with export/, the files of a trail, and audit.vkey.
. "$(dirname "$0")/../timed.sh"

# Install.
time python3 -m venv venv && PATH=$PWD/venv/bin:$PATH
time pip install -q "$WHEEL[cli,explore]"

# What appeared, vanished or changed since January?
time structlog-audit diff export/audit.jsonl --month 2025-02

# Who was refused, and when? The overview, and the first and last event of each user, in a browser.
structlog-audit explore export/audit.jsonl --month 2025-02 status=FAILURE --key audit.vkey > address &
seen http address
time $CHROMIUM --screenshot=overview.png --window-size=1280,1600 "$(grep http address)" 2> /dev/null
time $CHROMIUM --dump-dom "$(grep http address)audit/users" > users.html 2> /dev/null

# Rules that would have found it, on the trail so far.
time tee rules.toml <<'END' | wc -l
[[rules]]
name = "refused exports"
operation = "customers.export"
status = "FAILURE"
more_than = 5
within = "1h"
per = "user_id"
END
time structlog-audit monitor --rules rules.toml export/audit.jsonl --since 2025-02-01 || echo "exit code $?"
