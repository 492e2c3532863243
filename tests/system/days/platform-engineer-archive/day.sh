#!/usr/bin/env bash
# A platform engineer's day with two hosts: their trails go to an object store, are queried, pruned and given back.
# Usage: day.sh WHEELS, in a folder with logs/web1 and logs/web2, trails of the last months. AWS_ENDPOINT_URL and its key name
# an S3 server with a bucket "audit".
. "$(dirname "$0")/../timed.sh"

# Install.
time python3 -m venv venv && PATH=$PWD/venv/bin:$PATH
time pip install -q "$WHEEL[cli,archive]" s3fs

# On each host: archive what is closed, and delete it if it was closed a day ago or earlier.
time for host in web1 web2; do structlog-audit compact logs/$host/audit.jsonl --host $host --to s3://audit/shop --delete-after 1d; done

# One question to all hosts, archived and live: who was refused, and how often?
time structlog-audit users s3://audit/shop logs/web*/audit.jsonl status=FAILURE

# Does the archive give back every byte? It does, to files of another folder.
time structlog-audit archive verify s3://audit/shop
time structlog-audit archive restore s3://audit/shop --to restored

# Keep 45 days.
time structlog-audit archive prune s3://audit/shop --older-than 45d
time structlog-audit archive show s3://audit/shop
