#!/usr/bin/env bash
# google-cloud-logging sends integers as floats: the user 1149876543210987654 arrives as 1149876543210987648.
#
# A reader would expect: the number, since Python's integers and JSON keep all digits; or an error.
# Guessed before running: the number is rounded to a float.
# Seen on 2026-11-29, Python 3.11.7, google-cloud-logging 3.17.0, protobuf 7.36.2, a gRPC server on this machine: log_struct()
#   and CloudLoggingHandler send such an id as the nearest float, so that two users have the same id. Nothing is reported.
#   StructuredLogHandler, which writes JSON lines to stdout, keeps all digits.
# What follows: ids of 64 bits, such as those of chats and of distributed databases, are another user's after the round trip,
#   and a search by the right id finds nothing. Write identities as text.
# Known for Go: https://github.com/googleapis/google-cloud-go/issues/1150
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check google-cloud-logging==3.17.0 protobuf==7.36.2 || exit 2
"$work/venv/bin/python" - <<'PY'
import io
import json
import logging
import sys
from concurrent import futures
from importlib.metadata import version

import grpc
from google.auth.credentials import AnonymousCredentials
from google.cloud.logging import Client, Resource
from google.cloud.logging_v2._gapic import _LoggingAPI
from google.cloud.logging_v2.handlers import CloudLoggingHandler, StructuredLogHandler
from google.cloud.logging_v2.handlers.transports import SyncTransport
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client
from google.cloud.logging_v2.services.logging_service_v2.transports import LoggingServiceV2GrpcTransport
from google.cloud.logging_v2.types import WriteLogEntriesRequest, WriteLogEntriesResponse

names = ("google-cloud-logging", "protobuf", "grpcio")
print("Python", sys.version.split()[0], *(f"{name} {version(name)}" for name in names))
USERS = [1149876543210987654, 1149876543210987655]
received = []


def write(request, context):
    # The first request also has an entry about the library itself.
    received.extend(int(entry.json_payload["user_id"]) for entry in request.entries if "user_id" in entry.json_payload)
    return WriteLogEntriesResponse()


method = grpc.unary_unary_rpc_method_handler(
    write, request_deserializer=WriteLogEntriesRequest.deserialize, response_serializer=WriteLogEntriesResponse.serialize
)
server = grpc.server(futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers(
    [grpc.method_handlers_generic_handler("google.logging.v2.LoggingServiceV2", {"WriteLogEntries": method})]
)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
transport = LoggingServiceV2GrpcTransport(channel=grpc.insecure_channel(f"127.0.0.1:{port}"))
client = Client(project="test", credentials=AnonymousCredentials())
client._logging_api = _LoggingAPI(LoggingServiceV2Client(transport=transport), client)
log = client.logger("audit")
RESOURCE = Resource(type="global", labels={})
seen = {}


def sent(name):
    seen[name] = received[:]
    received.clear()
    print(f"{name}: sent {USERS}, received {seen[name]}")


for user in USERS:
    log.log_struct({"user_id": user}, resource=RESOURCE)
sent("log_struct")
logger = logging.Logger("audit")
logger.addHandler(CloudLoggingHandler(client, transport=SyncTransport, resource=RESOURCE))
for user in USERS:
    logger.info({"user_id": user})
sent("CloudLoggingHandler")
stream = io.StringIO()
logger = logging.Logger("audit")
logger.addHandler(StructuredLogHandler(stream=stream, project_id="test"))
for user in USERS:
    logger.info({"user_id": user})
received.extend(json.loads(line)["user_id"] for line in stream.getvalue().splitlines())
sent("StructuredLogHandler")
server.stop(None)

rounded = [int(float(user)) for user in USERS]
expected = {"log_struct": rounded, "CloudLoggingHandler": rounded, "StructuredLogHandler": USERS}
print("as seen before" if seen == expected and rounded[0] == rounded[1] else "CHANGED")
sys.exit(seen != expected)
PY
