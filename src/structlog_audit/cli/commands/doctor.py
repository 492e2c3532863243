"""``doctor``: findings about trails, configurations and the machine; `structlog_audit.cli.doctor` makes them."""

from __future__ import annotations

from typing import Annotated

import typer

from structlog_audit.cli.choices import Severity
from structlog_audit.cli.exit_codes import Exit
from structlog_audit.cli.options import DocumentOption, default_trails

EXAMPLES = (
    "doctor logs/audit.jsonl --config logging.json",
    "doctor logs/audit.jsonl --fail-on error",
)


def doctor(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="TRAIL", help="Trails; by default those of the configuration.", show_default=False),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="CONFIG",
            help="A dictConfig: JSON, YAML or Python file, or module:attribute.",
            show_default=False,
        ),
    ] = None,
    output: DocumentOption = "text",
    fail_on: Annotated[
        Severity, typer.Option("--fail-on", help="Exit with 4 for findings of at least this severity.")
    ] = Severity.WARNING,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="CODE", help="Leave out findings with this code.", show_default=False),
    ] = None,
) -> Exit:
    """Find causes of suppressed, lost or delayed events, with fixes."""
    from structlog_audit.cli.doctor import run_doctor as examine

    # The trails of a configuration are examined unless others are named.
    trails = words or ([] if config else default_trails(context))
    return examine(trails, config or [], output, fail_on, ignore or [])
