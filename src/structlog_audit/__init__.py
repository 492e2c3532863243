"""structlog-audit: an audit trail that goes through the logging an application already has.

The names below are the public ones; the modules they come from say what they mean. `structlog_audit.query` explains the
filters, `structlog_audit.exceptions` the errors.
"""

from structlog_audit.audit_logger import AuditLogger
from structlog_audit.audited import audited, instrument
from structlog_audit.event import AuditEvent, EventStatus, OperationType
from structlog_audit.exceptions import (
    AuditDecodeError,
    AuditError,
    AuditReadError,
    AuditTypeError,
    AuditValueError,
    AuditWriteError,
)
from structlog_audit.files import AuditFileHandler
from structlog_audit.formatter import AuditJsonFormatter
from structlog_audit.handler import AuditHandler
from structlog_audit.loggers import AuditBoundLogger, get_audit_logger
from structlog_audit.lookup import get_audit_handler
from structlog_audit.opening import open_trail
from structlog_audit.processors import AuditProcessor
from structlog_audit.redaction import Redactor
from structlog_audit.unheard import unheard_events
from structlog_audit.version import __version__ as __version__

__all__ = [
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
    "AuditTypeError",
    "AuditValueError",
    "AuditWriteError",
    "EventStatus",
    "OperationType",
    "Redactor",
    "audited",
    "get_audit_handler",
    "get_audit_logger",
    "instrument",
    "open_trail",
    "unheard_events",
]
