"""Audit events in the formats of other systems: pure functions of an `AuditEvent`, one module and one table per format.

========  ==========================================================  ========================================
format    specification                                               one event is
========  ==========================================================  ========================================
``ecs``   Elastic Common Schema 8.11                                  a JSON document
``ocsf``  Open Cybersecurity Schema Framework, API Activity (6003)    a JSON object
``cadf``  Cloud Auditing Data Federation (DMTF DSP0262)               a JSON object
``cef``   ArcSight Common Event Format 0                              a line of text
``otlp``  OpenTelemetry log data model, OTLP in JSON                  a ``LogsData`` with one log record
========  ==========================================================  ========================================

Each gives one line per event: as ``format=`` of an export, and as ``schema=`` of an `AuditJsonFormatter`.
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
"""The converters by format: each returns a dictionary of plain JSON values, or a string for ``cef``."""

_ECS_ROOTS = frozenset(path.partition(".")[0] for path in ECS)

OPEN = {"ecs": _ECS_ROOTS}
"""The formats that allow members beyond their table, each with the names its table uses. The other formats are closed."""


def to_line(event: AuditEvent, format: str) -> str:
    """Return *event* as a line of *format*, without the LF. Its values are plain JSON, as in events read from a trail."""
    record = FORMATS[format](event)
    if isinstance(record, str):
        return record
    return escape(encode(record)).decode()
