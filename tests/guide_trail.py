"""The trail that the shell commands of the guide use: two rolled segments, one of them compressed, and the active segment."""

from __future__ import annotations

import datetime as dt
import gzip
from pathlib import Path

from structlog_audit.events.codec import encode_event
from structlog_audit.events.event import AuditEvent, EventStatus, operation_of

WEB = {"source": "web", "ip": "10.0.0.7"}
ON_REQUEST = {"source": "web", "reason": "asked"}

EVENTS = [
    ("2025-01-14T09:12:01.104000Z", "login", "ann", "s1", [], WEB, {}),
    ("2025-01-14T09:12:09.480000Z", "STORE", "ann", "s1", ["entry_1", "entry_2"], WEB, {"duration_ms": 12.5}),
    ("2025-01-14T09:15:30.000000Z", "RECALL", "bob", "s2", ["entry_1"], {"source": "api"}, {"duration_ms": 3.25}),
    ("2025-01-15T08:00:00.000000Z", "FORGET", "ann", "s3", ["entry_2"], ON_REQUEST, {"duration_ms": 8.0}),
    ("2025-01-15T08:03:11.700000Z", "EXPORT", "bob", "s2", [], {"source": "api"},
     {"status": EventStatus.FAILURE, "error_message": "PermissionError: bob may not export", "duration_ms": 0.5}),
    ("2025-01-15T10:30:45.123456Z", "RECALL", "ann", "s3", ["entry_1"], WEB, {"duration_ms": 2.75}),
    ("2025-01-15T10:31:02.000000Z", "IMPORT", "bob", "s4", ["entry_3", "entry_4"], {"source": "api", "attempt": 2},
     {"status": EventStatus.PARTIAL, "error_message": "one of three entries was no JSON", "duration_ms": 2500.75}),
    ("2025-01-15T10:40:00.000000Z", "closed", None, None, [], {"pid": 4711, "recorded": 7}, {"kind": "trail"}),
]  # fmt: skip


def write_trail(folder: Path) -> None:
    """Write the trail to ``logs/audit.jsonl`` in *folder*."""
    lines = []
    for number, (time, operation, user, session, entries, metadata, more) in enumerate(EVENTS):
        timestamp = dt.datetime.fromisoformat(time)
        milliseconds = int(timestamp.timestamp() * 1_000)
        event = AuditEvent(
            event_id=f"evt_{milliseconds:012x}70008000{number:012x}",
            timestamp=timestamp,
            operation=operation_of(operation),
            user_id=user,
            session_id=session,
            entry_ids=entries,
            metadata=metadata,
            **more,
        )
        lines.append(encode_event(event) + b"\n")

    logs = folder / "logs"
    logs.mkdir(mode=0o700)
    compressed = gzip.compress(b"".join(lines[:3]), mtime=0)
    (logs / "audit.jsonl.20250114T235959.000000Z.gz").write_bytes(compressed)
    (logs / "audit.jsonl.20250115T090000.000000Z").write_bytes(b"".join(lines[3:5]))
    (logs / "audit.jsonl").write_bytes(b"".join(lines[5:]))
    for path in logs.iterdir():
        path.chmod(0o600)
