"""``python -m structlog_audit.cli``: the command by another way."""

from structlog_audit.cli import main

main()
