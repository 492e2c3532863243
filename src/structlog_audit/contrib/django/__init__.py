"""Django 4.2 or newer: `AuditContextMiddleware` names the actor of a request, `track` records changes of models."""

from structlog_audit._version import check_versions

try:
    check_versions("django")

    # Django depends on this package.
    import asgiref.sync  # noqa: F401
except ModuleNotFoundError as error:
    message = "structlog_audit.contrib.django needs Django: pip install 'structlog-audit[django]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from structlog_audit.contrib.django.middleware import AuditContextMiddleware, session_of_request, user_of_request
from structlog_audit.contrib.django.tracking import track

__all__ = ["AuditContextMiddleware", "session_of_request", "track", "user_of_request"]
