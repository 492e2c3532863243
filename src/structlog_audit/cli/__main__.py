"""``python -m structlog_audit.cli``: the command ``structlog-audit`` without its script."""

from structlog_audit.cli import main

main()
