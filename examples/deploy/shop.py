"""A web application with an audit trail and a health endpoint, for every server that runs WSGI applications."""

import json
import logging.config
import os

from structlog_audit import get_audit_handler, get_audit_logger

TRAIL = os.environ.get("AUDIT_TRAIL", "/var/log/shop/audit.jsonl")

TARGET = {"class": "structlog_audit.AuditFileHandler", "filename": TRAIL, "retention": {"max_age_days": 400}}
if origin := os.environ.get("AUDIT_ORIGIN"):
    # Lines are linked; another user seals them.
    TARGET["integrity"] = {"origin": origin}

# Findings that mean that events are lost, or will be: restart, or take the instance out of the load balancer.
URGENT = frozenset({"lost", "raised", "pending", "descriptor", "disabled", "folder", "permissions", "rollover"})

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "trail": TARGET,
            "audit": {"class": "structlog_audit.AuditHandler", "target": "trail"},
        },
        "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
    }
)
log = get_audit_logger()


def application(environ, start_response):
    """Answer a request, and record it unless it asks for the health."""
    if environ["PATH_INFO"] == "/health":
        status, body = health()
    else:
        with log.operation("page.read", entry_ids=[environ["PATH_INFO"]]):
            status, body = "200 OK", {"page": environ["PATH_INFO"]}
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]


def health():
    """Return the status line and the urgent findings of the handler of this process."""
    findings = {finding.code: finding.message for finding in get_audit_handler().check() if finding.code in URGENT}
    return ("503 Service Unavailable" if findings else "200 OK"), findings
