#!/usr/bin/env bash
# The bulk helpers of the clients of Elasticsearch and OpenSearch take fields named routing, version, pipeline or parent out of
#   an event: the document lacks them, and routing chooses the shard.
#
# A reader would expect: names with an underscore are taken ("_id", "_index"); the example of the documentation for actions
#   without "_source" has only these, and says "pops all metadata fields" without a list.
# Guessed before running: only names with an underscore.
# Seen on 2026-11-29, Python 3.11.7, elasticsearch 9.5.1, opensearch-py 3.2.0: of the events {**event, "_index": "audit"}, eight
#   names without an underscore are taken: if_primary_term, if_seq_no, parent, pipeline, retry_on_conflict, routing, version and
#   version_type. With routing, both clients report the event as indexed, and the document that was sent has no such field. The
#   same event in "_source" is whole. What a server does with the other names was not tried.
# What follows: an event that says to which route a payment went is stored without it. Put events into "_source".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check elasticsearch==9.5.1 opensearch-py==3.2.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import http.server
import json
import sys
import threading
from importlib.metadata import version

import elasticsearch.helpers
import opensearchpy.helpers

print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in ("elasticsearch", "opensearch-py")))
EVENT = {"operation": "payment.send", "routing": "swift", "user": "ann"}
sent = []


class Server(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        lines = self.rfile.read(int(self.headers["Content-Length"])).splitlines()
        sent.append([json.loads(line) for line in lines])
        answer = {"errors": False, "items": [{"index": {"_id": "1", "status": 201}}], "took": 1}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Type", self.headers["Accept"] or "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
clients = {
    "elasticsearch": (elasticsearch.Elasticsearch(address), elasticsearch.helpers),
    "opensearch-py": (opensearchpy.OpenSearch(address), opensearchpy.helpers),
}
NAMES = ("operation", "timestamp", "id", "index", "type", "parent", "pipeline", "require_alias", "retry_on_conflict", "routing")
NAMES += ("if_seq_no", "if_primary_term", "version", "version_type", "doc", "script", "upsert")
seen = {}
for name, (client, helpers) in clients.items():
    actions = [{"_index": "audit", **EVENT}, {"_index": "audit", "_source": EVENT}]
    counts = [helpers.bulk(client, [action])[0] for action in actions]
    taken = [field for field in NAMES if field not in helpers.expand_action({"_index": "audit", field: "x"})[1]]
    seen[name] = counts, [document for _, document in sent], sorted(taken)
    print(f"{name}: {counts} indexed, sent {sent}, taken {sorted(taken)}")
    sent.clear()
server.shutdown()

without = {"operation": "payment.send", "user": "ann"}
taken = "if_primary_term if_seq_no parent pipeline retry_on_conflict routing version version_type".split()
expected = {name: ([1, 1], [without, EVENT], taken) for name in clients}
print("as seen before" if seen == expected else "CHANGED")
sys.exit(seen != expected)
PY
