"""structlog-audit: an audit trail that uses the logging an application already has.

The names below are the public ones; their modules document them. `structlog_audit.query.filters` documents the filters,
`structlog_audit.exceptions` the errors.
"""

import sys

try:
    # Several processes share a trail by the appends, renames and locks of POSIX.
    import fcntl as fcntl
except ImportError as error:
    message = f"structlog-audit: expected Linux or macOS, which have fcntl; got {sys.platform}"
    raise ImportError(message, name="fcntl") from error

from structlog_audit._version import __version__ as __version__
from structlog_audit.events.event import AuditEvent, EventStatus, OperationType
from structlog_audit.events.operation_classes import OperationClass, OperationClasses, register_operations
from structlog_audit.exceptions import (
    AuditDecodeError,
    AuditError,
    AuditReadError,
    AuditSealError,
    AuditTypeError,
    AuditValueError,
    AuditVaultError,
    AuditWriteError,
)
from structlog_audit.loggers.audit_logger import AuditLogger
from structlog_audit.loggers.bound_logger import AuditBoundLogger, get_audit_logger
from structlog_audit.loggers.instrumentation import audited, instrument
from structlog_audit.loggers.operation import OperationScope
from structlog_audit.loggers.processors import AuditProcessor
from structlog_audit.loggers.unheard import unheard_events
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import ANY, Filters
from structlog_audit.query.statistics import Statistics, UserStatistics
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.formatter import AuditJsonFormatter
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.handler_lookup import get_audit_handler
from structlog_audit.redaction.redactor import Redactor
from structlog_audit.redaction.vault import SubjectVault
from structlog_audit.trail.reading.opening import open_trail

__all__ = [
    "ANY",
    "AuditBoundLogger",
    "AuditDecodeError",
    "AuditError",
    "AuditEvent",
    "AuditFileHandler",
    "AuditHandler",
    "AuditJsonFormatter",
    "AuditLogger",
    "AuditProcessor",
    "AuditReadError",
    "AuditSealError",
    "AuditTypeError",
    "AuditValueError",
    "AuditVaultError",
    "AuditWriteError",
    "EventSource",
    "EventStatus",
    "Filters",
    "OperationClass",
    "OperationClasses",
    "OperationScope",
    "OperationType",
    "Redactor",
    "Statistics",
    "SubjectVault",
    "UserStatistics",
    "audited",
    "get_audit_handler",
    "get_audit_logger",
    "instrument",
    "open_trail",
    "register_operations",
    "unheard_events",
]
