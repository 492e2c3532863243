"""``monitor``: the alerts that rules raise over a trail.

The rules are those of ``AuditHandler(monitor=…)``, in the same files, and are loaded before anything is read. They receive
events of every kind, and each rule selects its events. ``--follow`` starts at the beginning or at ``--since``, because an
alert depends on the events before it. Values before ``--since`` are not new, for rules with ``first_seen``. The time without
events is known up to ``--until``, and with ``--follow`` up to now.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.choices import StreamOutput
from structlog_audit.cli.exit_codes import Exit
from structlog_audit.cli.options import Follow, StreamOption, TrailOptions, reads_trails
from structlog_audit.cli.terminal import put, put_document, put_error, put_line
from structlog_audit.events.codec import to_json

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading
    from structlog_audit.events.codec import StoredEvent
    from structlog_audit.monitoring.alerts import Alert
    from structlog_audit.monitoring.monitor import Monitor
    from structlog_audit.monitoring.rules import Rule

EXAMPLES = (
    "monitor --rules rules.toml logs/audit.jsonl --since 7d",
    "monitor --rules rules.toml logs/audit.jsonl --since yesterday --until now -o json",
)


@reads_trails(without=("every_kind",))
def monitor(
    options: TrailOptions,
    *,
    rules: Annotated[str, typer.Option("--rules", metavar="RULES", help="File of rules: TOML, JSON or YAML.")],
    follow: Follow = False,
    output: StreamOption = "text",
) -> Exit:
    """Show the alerts that rules raise; exit with 1 if there are any.

    A rule has a name, one bound (more_than, success_rate_below, avg_duration_ms_above, p95_duration_ms_above, first_seen or
    no_event_for), and the events that count, such as operation_class = "delete" outside of working hours.
    """
    from structlog_audit.cli.reading import read_trails
    from structlog_audit.monitoring.monitor import Monitor
    from structlog_audit.monitoring.rules import load_rules

    if follow:
        options.require_endless(output)

    options = replace(options, every_kind=True)
    watch = Monitor(load_rules(rules), operations=options.classes())

    def show(reading: Reading) -> Exit:
        zone = options.zone
        if output == "json":
            found = [alert.to_dict() for alert in _alerts(watch, reading)]
            put_document({"alerts": found, "total_alerts": len(found)})
        elif follow:
            _follow(watch, reading, lambda alerts: _put_alerts(alerts, output, zone=zone, at_once=True))
        else:
            _put_alerts(_alerts(watch, reading), output, zone=zone)

        has_alerts = any(watch.alerts.values())
        if not has_alerts and not follow:
            reading.explain_absence(_wanted_values(watch.rules))

        for name, count in watch.forgotten.items():
            if count:
                put_error(f"rule {name!r}: {count} values dropped or not watched: expected a greater max_subjects")

        return Exit.NO if has_alerts else Exit.DONE

    return read_trails(options, show)


def _alerts(watch: Monitor, reading: Reading) -> Iterator[Alert]:
    """Yield the alerts that the events of *reading* cause."""
    conditions = reading.selection.conditions
    events = _relevant(watch, reading).select()
    yield from _alerts_of(watch, conditions.start_time, events)

    # After the last event, nothing is known unless the time range has an end.
    if conditions.end_time is not None:
        yield from watch.advance(min(conditions.end_time, reading.now))


def _follow(watch: Monitor, reading: Reading, put_alerts: Callable[[Iterable[Alert]], None]) -> None:
    """Write the alerts of the events of *reading*, and of those that follow, and look for silence in between."""
    events = _relevant(watch, reading).follow(
        since_now=False, idle=lambda: put_alerts(watch.advance(dt.datetime.now(dt.UTC)))
    )
    put_alerts(_alerts_of(watch, reading.selection.conditions.start_time, events))


def _relevant(watch: Monitor, reading: Reading) -> Reading:
    """Return a reading of the events that the rules need: with ``first_seen``, also those before the time range."""
    from structlog_audit.monitoring.monitor import relevant_events

    needs_earlier = any(rule.bound == "first_seen" for rule in watch.rules)

    return (reading.from_beginning() if needs_earlier else reading).narrowed(relevant_events(watch.rules))


def _alerts_of(watch: Monitor, start: dt.datetime | None, events: Iterable[StoredEvent]) -> Iterator[Alert]:
    if start is not None:
        watch.begin(start)
    for event in events:
        if start is not None and event.timestamp < start:
            watch.learn(event)
        else:
            yield from watch.see(event)


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


def _put_alerts(
    alerts: Iterable[Alert], output: StreamOutput, *, zone: dt.tzinfo | None, at_once: bool = False
) -> None:
    """Write *alerts* to stdout as they are raised."""
    for alert in alerts:
        _put(alert, output, zone=zone)
        if at_once:
            sys.stdout.flush()


def _put(alert: Alert, output: StreamOutput, *, zone: dt.tzinfo | None) -> None:
    from structlog_audit.cli.tables import time_text

    if output == "jsonl":
        put(to_json(alert.to_dict()) + "\n")
        return

    time = time_text(alert.timestamp, zone=zone)
    level = logging.getLevelName(alert.rule.level)
    event = "" if alert.event_id is None else f"  [{alert.event_id}]"
    put_line(f"{time}  {level}  {alert}{event}")
