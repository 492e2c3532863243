"""Audit events in the formats of other systems. Pure functions of an `AuditEvent`; each module says its rules and its table.

========  ==========================================================  ========================================
format    what it is                                                  one event is
========  ==========================================================  ========================================
``ecs``   Elastic Common Schema 8.11                                  a JSON document
``ocsf``  Open Cybersecurity Schema Framework, API Activity (6003)    a JSON object
``cadf``  Cloud Auditing Data Federation (DMTF DSP0262)               a JSON object
``cef``   ArcSight Common Event Format 0                              a line of text
``otlp``  OpenTelemetry log data model, OTLP in JSON                  a ``LogsData`` with one log record
========  ==========================================================  ========================================

All are lines: as ``format=`` of an export, and as ``schema=`` of an `AuditJsonFormatter`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog_audit.events.codec import escape
from structlog_audit.events.event import AuditEvent
from structlog_audit.events.truncation import encode
from structlog_audit.formats.cadf import to_cadf
from structlog_audit.formats.cef import to_cef
from structlog_audit.formats.ecs import ECS, to_ecs
from structlog_audit.formats.ocsf import to_ocsf
from structlog_audit.formats.otlp import to_otlp

__all__ = ["FORMATS", "OPEN", "to_cadf", "to_cef", "to_ecs", "to_line", "to_ocsf", "to_otlp"]

FORMATS: dict[str, Callable[[AuditEvent], Any]] = {
    "ecs": to_ecs,
    "ocsf": to_ocsf,
    "cadf": to_cadf,
    "cef": to_cef,
    "otlp": to_otlp,
}
"""The formats by name: each makes of an event a dictionary of plain JSON values, or, of ``cef``, a text."""

OPEN = {"ecs": frozenset(path.partition(".")[0] for path in ECS)}
"""The formats that bear members besides those of their table, with the names that are taken. The others are closed."""


def to_line(event: AuditEvent, format: str) -> str:
    """*event* as a line of the *format*, without the LF. The values of *event* are plain, as those of events that were read."""
    record = FORMATS[format](event)
    return record if isinstance(record, str) else escape(encode(record)).decode()
