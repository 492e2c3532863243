"""``monitor``: the alerts that rules raise over a trail.

The rules are those of ``AuditHandler(monitor=…)``, in the same files, and are loaded before anything is read. They are
given events of every kind: each rule states itself which ones count. ``--follow`` too reads from the beginning, or from
``--since``: an alert needs the events before it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import AlertOutput
from structlog_audit.cli.terminal import put, put_line, wait_for_reader
from structlog_audit.cli.trail_options import Follow, Record, Since, Strict, Until, Utc, Words, request_of
from structlog_audit.events.codec import to_json
from structlog_audit.events.event import AuditEvent

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading
    from structlog_audit.monitoring.alerts import Alert

EXAMPLE = "monitor --rules rules.toml logs/audit.jsonl --since 7d"


def monitor(
    rules: Annotated[str, typer.Option("--rules", metavar="RULES", help="A file of rules: TOML, JSON or YAML.")],
    words: Words = None,
    since: Since = None,
    until: Until = None,
    follow: Follow = False,
    output: Annotated[AlertOutput, typer.Option("--output", "-o", help="How to write it.")] = AlertOutput.TEXT,
    utc: Utc = False,
    record: Record = False,
    strict: Strict = False,
) -> int:
    """Show the alerts of rules; exit with 1 if there is one."""
    from structlog_audit.cli.reading import read
    from structlog_audit.monitoring.monitor import replay
    from structlog_audit.monitoring.rules import load_rules

    request = request_of(
        "monitor", words, since=since, until=until, in_utc=utc, every_kind=True, record=record, strict=strict
    )
    if follow and request.until is not None:
        raise UsageError("--until ends what --follow goes on with: leave one of them out")
    loaded = load_rules(rules)

    def show(reading: Reading) -> Exit:
        events: Iterable[AuditEvent]
        if follow:
            wait = wait_for_reader()
            coming = reading.trail.follow(since_now=False, stop=lambda: False, wait=wait, **reading.filters)
            events = filter(reading.sought.passes, coming)
        else:
            events = reading.source.iter_events(**reading.filters)

        code = Exit.DONE
        for alert in replay(loaded, events):
            _put(alert, output, in_utc=request.in_utc)
            code = Exit.NO
            if follow:
                sys.stdout.flush()
        return code

    return read(request, show)


def _put(alert: Alert, output: AlertOutput, *, in_utc: bool) -> None:
    from structlog_audit.cli.tables import time_text

    if output == AlertOutput.JSONL:
        put(to_json(alert.to_dict()) + "\n")
        return
    time = time_text(alert.timestamp, in_utc=in_utc)
    level = logging.getLevelName(alert.rule.level)
    put_line(f"{time}  {level}  {alert}  [{alert.event_id}]")
