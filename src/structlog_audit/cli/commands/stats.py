"""``stats``: the statistics of events on stdout."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from structlog_audit.cli.exit_codes import Exit
from structlog_audit.cli.options import Anchors, DocumentOption, SealKeys, TrailOptions, reads_trails
from structlog_audit.cli.terminal import clean, put, put_document
from structlog_audit.events.event import rfc3339
from structlog_audit.events.operation_classes import OperationClass, OperationClasses

if TYPE_CHECKING:
    from rich.table import Table

    from structlog_audit.cli.reading import Reading
    from structlog_audit.query.completeness import Completeness

EXAMPLES = (
    "stats logs/audit.jsonl --since 2025-01-01 --until 2025-02-01",
    "stats logs/audit.jsonl --since monday -o json",
)

_MOST = 10
"""The number of names that a table lists. The JSON lists all."""


@reads_trails()
def stats(
    options: TrailOptions,
    *,
    key: SealKeys = None,
    anchor: Anchors = None,
    output: DocumentOption = "text",
) -> Exit:
    """Count events by status, class, operation and user."""
    from structlog_audit.cli.reading import read_trails
    from structlog_audit.cli.tables import put_table

    classes = options.classes()

    def show(reading: Reading) -> Exit:
        found = reading.statistics()
        if not found["total_events"]:
            reading.explain_absence()
        found |= _counts_by_class(found["by_operation"], classes)
        verdict = reading.completeness(found["by_user"], reading.seals(key, anchor))
        code = Exit.FINDINGS if options.strict and not verdict.is_acceptable else Exit.DONE
        if output == "json":
            put_document(_members({**found, "completeness": verdict.to_dict()}))
            return code

        put_table(_overview(found, verdict, options.zone))
        for head, group in (
            ("CLASS", "by_class"),
            ("UNCLASSIFIED", "unclassified"),
            ("OPERATION", "by_operation"),
            ("USER", "by_user"),
        ):
            counted = Counter({name: count for name, count in found[group].items() if count})
            if counted:
                put("\n")
                put_table(_counts(head, counted))
        return code

    return read_trails(options, show, quietly=True, judges=True)


def _counts_by_class(by_operation: Mapping[str, int], classes: OperationClasses) -> dict[str, Any]:
    """Return the number of events ``by_class``, if only as zero, and the ``unclassified`` operations with theirs."""
    by_class = {name.value: 0 for name in OperationClass}
    unclassified = {}
    for operation, count in by_operation.items():
        found = classes.class_of(operation)
        if found is None:
            unclassified[operation] = count
        else:
            by_class[found.value] += count
    return {"by_class": by_class, "unclassified": unclassified}


def _members(found: Mapping[str, Any]) -> dict[str, Any]:
    members = dict(found)
    for name, value in found.items():
        if isinstance(value, dt.datetime):
            members[name] = rfc3339(value)
    return members


def _overview(found: Mapping[str, Any], verdict: Completeness, zone: dt.tzinfo | None) -> Table:
    from structlog_audit.cli.tables import make_table, time_text

    first = time_text(found["first_event"], zone=zone)
    last = time_text(found["last_event"], zone=zone)
    source_first = time_text(verdict.source.first_event, zone=zone)
    source_last = time_text(verdict.source.last_event, zone=zone)

    rows = [
        ("events", str(found["total_events"])),
        ("first, last", f"{first}  {last}"),
        ("succeeded", _success_text(found)),
        ("milliseconds", _durations_text(found)),
        ("without a user", str(found["without_user"])),
        ("source", clean(verdict.source.sentence())),
        ("first, last of source", f"{source_first}  {source_last}"),
        ("completeness", verdict.headline(zone)),
        *(("", clean(sentence)) for sentence in verdict.sentences(zone)),
        *_seal_rows(verdict, zone),
    ]
    if found["unknown_status"]:
        rows.insert(3, ("unknown status", str(found["unknown_status"])))
    return make_table(None, rows)


def _success_text(found: Mapping[str, Any]) -> str:
    """Return the success rate and the number of events of each status."""
    from structlog_audit.cli.tables import NOTHING

    if not found["total_events"]:
        return NOTHING

    statuses = ", ".join(f"{status} {count}" for status, count in found["by_status"].items())
    return f"{found['success_rate']:.1%}  ({statuses})"


def _durations_text(found: Mapping[str, Any]) -> str:
    """Return the average and the percentiles of the durations."""
    from structlog_audit.cli.tables import NOTHING

    # A percentile of any durations is positive.
    if not found["p50_duration_ms"]:
        return NOTHING

    durations = []
    for name in ("avg", "p50", "p95", "p99"):
        milliseconds = found[f"{name}_duration_ms"]
        durations.append(f"{name} {milliseconds:.6g}")
    return "  ".join(durations)


def _seal_rows(verdict: Completeness, zone: dt.tzinfo | None) -> list[tuple[str, str]]:
    """Return the rows about the seals: their verdicts, findings and evidence."""
    rows = [] if verdict.seals else [("seal", "not verified: no key given")]
    for seal in verdict.seals:
        rows.append(("seal", clean(seal.sentence())))
        rows += [("", clean(finding)) for finding in seal.findings[:_MOST]]
        rows += [("", clean(f"{name}: {text}")) for name, text in seal.evidence(zone)]
    return rows


def _counts(head: str, counted: Counter[str]) -> Table:
    from structlog_audit.cli.tables import make_table, quoted

    ranked = counted.most_common()
    rows = []
    for name, count in ranked[:_MOST]:
        rows.append((clean(quoted(name)), str(count)))

    rest = ranked[_MOST:]
    if rest:
        total = sum(count for _, count in rest)
        rows.append((f"… {len(rest)} more", str(total)))

    return make_table((head, "EVENTS"), rows, numbers=(1,))
