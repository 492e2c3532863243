"""The command ``catalogue``: declared operations and their recorded events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from structlog_audit.catalogue import Catalogue, Comparison, Declaration, catalogue, compare
from structlog_audit.cli.conditions import sorted_words
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Listing
from structlog_audit.cli.reading import Reading, Request, read
from structlog_audit.cli.terminal import put, say
from structlog_audit.reports.formatting import count, display_name, visible
from structlog_audit.reports.markdown import escape

_NOTHING = "–"


def list_operations(request: Request, output: Listing) -> Exit:
    """Write the requested catalogue, with a comparison if there are trails.

    Raises:
        UsageError: The request has no package, or filters without a trail.
    """
    packages, found = sorted_words(request.words)
    if not packages:
        raise UsageError("expected a package: its name, or the path of its source")
    if not request.trails and (found or request.since or request.until or request.record):
        raise UsageError("conditions, times and --record apply to a trail: name it with --trail")
    declared = catalogue(*packages)
    is_lacking = request.strict and declared.unread
    if not request.trails:
        _put(declared, None, output)
        return Exit.FINDINGS if is_lacking else Exit.DONE

    def act(reading: Reading) -> Exit:
        comparison = compare(declared, reading.source, **reading.filters)
        _put(declared, comparison, output)
        return Exit.FINDINGS if is_lacking else Exit.DONE if comparison.is_declared else Exit.NO

    return read(request, act, quietly=True)


def _put(declared: Catalogue, comparison: Comparison | None, output: Listing) -> None:
    if output == Listing.JSON:
        document = declared.to_dict() | ({} if comparison is None else {"trail": comparison.to_dict()})
        put(json.dumps(document, indent=2) + "\n")
    else:
        put("\n".join([*_catalogue(declared), *([] if comparison is None else _comparison(comparison))]) + "\n")
    if declared.unread:
        examples = "; ".join(f"{unread.file}: {unread.reason}" for unread in declared.unread[:3])
        say(f"{count(len(declared.unread), 'file')} could not be read: {examples}")


def _catalogue(declared: Catalogue) -> Iterator[str]:
    computed = declared.computed
    yield "# Operations"
    yield ""
    yield f"{count(len(declared.operations), 'operation')} declared in {count(declared.files, 'file')}" + (
        f", and {count(len(computed), 'place')} that {'computes' if len(computed) == 1 else 'compute'} one."
        if computed
        else "."
    )
    if declared.operations:
        rows = [
            (escape(display_name(operation)), each)
            for operation, those in declared.operations.items()
            for each in those
        ]
        yield ""
        yield from _table(
            ("Operation", "Location", "Function", "Entry point", "Status", "Fields"),
            ([operation, _where(each), *_details(each)] for operation, each in rows),
        )
    if computed:
        yield from (
            "",
            "## Computed",
            "",
            "The code computes these operations, so their names are not in the source.",
            "",
        )
        yield from _table(
            ("Operation", "Location", "Function", "Entry point", "Status", "Fields"),
            ([_text(each.expression), _where(each), *_details(each)] for each in computed),
        )
    if declared.unread:
        yield from ("", "## Not read", "")
        yield from _table(("File", "Reason"), ([_text(each.file), _text(each.reason)] for each in declared.unread))


def _where(declaration: Declaration) -> str:
    if declaration.operation is None:
        return f"{_text(declaration.file)}, computed at line {declaration.line}"
    return f"{_text(declaration.file)}:{declaration.line}"


def _details(declaration: Declaration) -> list[str]:
    entry_point = declaration.entry_point
    if declaration.intent or declaration.intent is None:
        entry_point += ", intent" if declaration.intent else ", intent computed"
    return [
        _NOTHING if declaration.function is None else _text(declaration.function),
        _text(entry_point),
        declaration.status or _NOTHING,
        _text(", ".join(declaration.fields)) or _NOTHING,
    ]


def _comparison(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the comparison, one section per difference."""
    computed = comparison.computed
    hint = ""
    if computed and comparison.undeclared:
        hint = f" {count(computed, 'place')} with a computed operation may have recorded them."
    beyond = [("further operations", comparison.undeclared_beyond)] if comparison.undeclared_beyond else []
    yield from ("", "# Trail", "", f"{count(comparison.events, 'event')} compared.")
    yield from _section(
        "Recorded but not declared",
        "The source does not name these operations." + hint,
        [*comparison.undeclared.items(), *beyond],
    )
    yield from _section(
        "Declared but never recorded",
        "Dead code, an untested path, or a logger without a handler.",
        comparison.never_recorded,
    )
    yield from _section(
        "Never failed",
        "Every event is a SUCCESS. Check that the failing path is audited.",
        comparison.never_failed,
    )
    yield from _section(
        "Recorded without a user", "These events do not identify a user.", comparison.without_user.items()
    )


def _section(title: str, note: str, found: Iterable[str | tuple[str, int]]) -> Iterator[str]:
    items = [item if isinstance(item, tuple) else (item, None) for item in found]
    yield from ("", f"## {title}", "", note if items else "None.")
    if items:
        yield ""
    for operation, events in items:
        yield f"- {escape(display_name(operation))}" + ("" if events is None else f": {count(events, 'event')}")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join(['---'] * len(head))} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _text(text: str) -> str:
    return escape(visible(text))
