#!/usr/bin/env bash
# A data-protection officer's day: a customer asks what is known about her, and then to be erased.
# Usage: day.sh WHEELS, in a folder with logs/, where the trail and its vault are, and audit.vkey.
. "$(dirname "$0")/../timed.sh"

# Install.
time python3 -m venv venv && PATH=$PWD/venv/bin:$PATH
time pip install -q "$WHEEL[cli,signing]"

# The answer to the access request (GDPR, article 15), with what an erasure would remove; and her data in clear.
time structlog-audit person ottilie logs/audit.jsonl --vault logs/audit.vault --member customer | tee ottilie.md
time structlog-audit query logs/audit.jsonl user_id=ottilie --vault logs/audit.vault --reveal --columns timestamp,operation,user_id,metadata.email

# The erasure (article 17). The shell history does not get the name.
time structlog-audit erase - --vault logs/audit.vault logs/audit.jsonl <<< ottilie

# Is she gone, everywhere, and is the trail as it was sealed?
time structlog-audit query logs/audit.jsonl user_id=ottilie --vault logs/audit.vault --reveal || echo "exit code $?"
time grep -rac 'ottilie' logs || echo "exit code $?"
time structlog-audit verify logs/audit.jsonl --key audit.vkey --max-age none
