"""``monitor``: the alerts that rules bring over a trail.

Rules:

* The rules are loaded before anything is read. They are those of ``AuditHandler(monitor=…)``, in the same files.
* Events of every kind are shown to the rules: each says itself which ones count.
* With ``--follow`` too the windows are filled from the beginning, or from ``--since``: an alert needs what came before.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable

from structlog_audit.cli.commands.query import wait_for_reader
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import AlertOutput
from structlog_audit.cli.output import time_text
from structlog_audit.cli.reading import Reading, Request, read
from structlog_audit.cli.terminal import put, put_line
from structlog_audit.events.codec import to_json
from structlog_audit.events.event import AuditEvent
from structlog_audit.monitoring.alerts import Alert
from structlog_audit.monitoring.monitor import replay
from structlog_audit.monitoring.rules import load_rules


def monitor(request: Request, rules: str, output: AlertOutput, *, follow: bool) -> Exit:
    """Write the alerts that the rules in the file *rules* bring over the events that *request* asks for; whether any came."""
    if follow and request.until is not None:
        raise UsageError("--until ends what --follow goes on with: leave one of them out")
    loaded = load_rules(rules)

    def act(reading: Reading) -> Exit:
        events: Iterable[AuditEvent]
        if follow:
            wait = wait_for_reader()
            coming = reading.trail.follow(since_now=False, stop=lambda: False, wait=wait, **reading.filters)
            events = filter(reading.sought.passes, coming)
        else:
            events = reading.source.iter_events(**reading.filters)
        code = Exit.DONE
        for alert in replay(loaded, events):
            _WRITTEN[output](alert, request.in_utc)
            code = Exit.NO
            if follow:
                sys.stdout.flush()
        return code

    return read(request, act)


def _put_text(alert: Alert, in_utc: bool) -> None:
    time = time_text(alert.timestamp, in_utc=in_utc)
    put_line(f"{time}  {logging.getLevelName(alert.rule.level)}  {alert}  [{alert.event_id}]")


def _put_json(alert: Alert, in_utc: bool) -> None:
    put(to_json(alert.to_dict()) + "\n")


_WRITTEN: dict[AlertOutput, Callable[[Alert, bool], None]] = {
    AlertOutput.TEXT: _put_text,
    AlertOutput.JSONL: _put_json,
}
