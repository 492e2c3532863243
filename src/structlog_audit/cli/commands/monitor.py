"""``monitor``: the alerts that rules raise over a trail.

The rules are those of ``AuditHandler(monitor=…)``, in the same files, and are loaded before anything is read. They receive
events of every kind, and each rule selects its events. ``--follow`` starts at the beginning or at ``--since``, because an
alert depends on the events before it.
"""

from __future__ import annotations

import logging
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.choices import StreamOutput
from structlog_audit.cli.exit_codes import Exit
from structlog_audit.cli.options import Follow, StreamOption, TrailOptions, reads_trails
from structlog_audit.cli.terminal import put, put_document, put_line
from structlog_audit.events.codec import to_json

if TYPE_CHECKING:
    import datetime as dt

    from structlog_audit.cli.reading import Reading
    from structlog_audit.events.codec import StoredEvent
    from structlog_audit.monitoring.alerts import Alert
    from structlog_audit.monitoring.rules import Rule

EXAMPLES = (
    "monitor --rules rules.toml logs/audit.jsonl --since 7d",
    "monitor --rules rules.toml logs/audit.jsonl -o json",
)


@reads_trails(without=("every_kind",))
def monitor(
    options: TrailOptions,
    *,
    rules: Annotated[str, typer.Option("--rules", metavar="RULES", help="File of rules: TOML, JSON or YAML.")],
    follow: Follow = False,
    output: StreamOption = "text",
) -> Exit:
    """Show the alerts that rules raise; exit with 1 if there are any."""
    from structlog_audit.cli.reading import read_trails
    from structlog_audit.monitoring.monitor import relevant_events, replay
    from structlog_audit.monitoring.rules import load_rules

    if follow:
        options.require_endless(output)
    options = replace(options, every_kind=True)
    loaded = load_rules(rules)

    def show(reading: Reading) -> Exit:
        events: Iterable[StoredEvent]
        relevant = reading.narrowed(relevant_events(loaded))
        events = relevant.follow(since_now=False) if follow else relevant.select()
        alerts = replay(loaded, events)
        if output == "json":
            found = [alert.to_dict() for alert in alerts]
            put_document({"alerts": found, "total_alerts": len(found)})
            count = len(found)
        else:
            count = _put_alerts(alerts, output, zone=options.zone, at_once=follow)
        if not count and not follow:
            reading.explain_absence(_wanted_values(loaded))
        return Exit.NO if count else Exit.DONE

    return read_trails(options, show)


def _wanted_values(rules: Iterable[Rule]) -> dict[str, set[str]]:
    """Return the values that the filters of *rules* ask for, by member.

    That no event has the status of a rule is not a mistake, so statuses are left out.
    """
    from structlog_audit.query.absent_values import EXPLAINED

    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for rule in rules:
        for name, values in rule.conditions.names:
            if name in EXPLAINED and name != "status":
                wanted[name].update(value for value in values if value is not None)
    return wanted


def _put_alerts(alerts: Iterable[Alert], output: StreamOutput, *, zone: dt.tzinfo | None, at_once: bool) -> int:
    """Write *alerts* to stdout as they are raised, and return their number."""
    count = 0
    for alert in alerts:
        count += 1
        _put(alert, output, zone=zone)
        if at_once:
            sys.stdout.flush()
    return count


def _put(alert: Alert, output: StreamOutput, *, zone: dt.tzinfo | None) -> None:
    from structlog_audit.cli.tables import time_text

    if output == "jsonl":
        put(to_json(alert.to_dict()) + "\n")
        return
    time = time_text(alert.timestamp, zone=zone)
    level = logging.getLevelName(alert.rule.level)
    put_line(f"{time}  {level}  {alert}  [{alert.event_id}]")
