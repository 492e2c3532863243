"""The report of the doctor, as text for people and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from structlog_audit.cli.choices import Severity
from structlog_audit.cli.doctor.diagnosis import Diagnosis
from structlog_audit.cli.terminal import clean, has_colours, width
from structlog_audit.query.plurals import counted

_COLOURS = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.NOTE: "36"}


def json_report(diagnoses: Sequence[Diagnosis], examined: Sequence[str]) -> str:
    """Return the report as a JSON document.

    Args:
        diagnoses: The results.
        examined: The configurations and trails that were examined.
    """
    document = {"findings": [diagnosis.to_dict() for diagnosis in diagnoses], "looked_at": list(examined)}
    return json.dumps(document, indent=2)


def text_report(diagnoses: Sequence[Diagnosis], examined: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the report, wrapped to the width of the terminal; parameters as for `json_report`."""
    columns = width()
    for diagnosis in diagnoses:
        yield from _paragraph(diagnosis, columns)

    places = clean(", ".join(examined)) or "only this machine; name a trail, or a configuration with --config"
    yield from _wrapped(f"{_summary(diagnoses)}; examined {places}", columns)


def _paragraph(diagnosis: Diagnosis, columns: int | None) -> Iterator[str]:
    finding = diagnosis.finding
    label = f"{diagnosis.severity.value}:"
    first, *rest = _wrapped(f"{label} {finding.message} [{finding.code}]", columns)

    # Colours are added after wrapping, which would count their characters.
    if has_colours():
        colour = _COLOURS[diagnosis.severity]
        first = first.replace(label, f"\x1b[{colour}m{label}\x1b[0m", 1)

    yield first
    yield from rest
    yield from _wrapped(f"  in {diagnosis.where}", columns)
    yield from _wrapped(f"  fix: {finding.fix}", columns)


def _summary(diagnoses: Sequence[Diagnosis]) -> str:
    if not diagnoses:
        return "no findings"

    counts = Counter(diagnosis.severity for diagnosis in diagnoses)
    return ", ".join(counted(counts[severity], severity.value) for severity in Severity)


def _wrapped(text: str, columns: int | None) -> list[str]:
    text = clean(text)
    if columns is None:
        return [text]

    indent = "    " if text.startswith("  ") else "  "
    return textwrap.wrap(text, columns, subsequent_indent=indent, break_on_hyphens=False) or [text]
