"""The catalogue of operations, and its comparison with a trail, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from structlog_audit.catalogue import Catalogue, Comparison, Declaration
from structlog_audit.reports.formatting import count, name, visible
from structlog_audit.reports.markdown import escape

_NOTHING = "–"


def catalogue_lines(declared: Catalogue) -> Iterator[str]:
    """Yield the lines of the catalogue: what is declared, computed, and could not be read."""
    computed = declared.computed
    yield "# Operations"
    yield ""
    yield f"{count(len(declared.operations), 'operation')} declared in {count(declared.files, 'file')}" + (
        f", and {count(len(computed), 'place')} that {'computes' if len(computed) == 1 else 'compute'} one."
        if computed
        else "."
    )
    if declared.operations:
        rows = [(escape(name(operation)), each) for operation, those in declared.operations.items() for each in those]
        yield ""
        yield from _table(
            ("Operation", "Where", "Function", "With", "Outcome", "Fields"),
            ([operation, _where(each), *_details(each)] for operation, each in rows),
        )
    if computed:
        yield from ("", "## Computed", "", "The code computes these operations: their names are not in the source.", "")
        yield from _table(
            ("Operation", "Where", "Function", "With", "Outcome", "Fields"),
            ([_text(each.expression), _where(each), *_details(each)] for each in computed),
        )
    if declared.unread:
        yield from ("", "## Not read", "")
        yield from _table(("File", "Why"), ([_text(each.file), _text(each.reason)] for each in declared.unread))


def _where(declaration: Declaration) -> str:
    if declaration.operation is None:
        return f"{_text(declaration.file)}, computed at line {declaration.line}"
    return f"{_text(declaration.file)}:{declaration.line}"


def _details(declaration: Declaration) -> list[str]:
    door = declaration.door
    if declaration.intent or declaration.intent is None:
        door += ", intent" if declaration.intent else ", intent computed"
    return [
        _NOTHING if declaration.function is None else _text(declaration.function),
        _text(door),
        declaration.status or _NOTHING,
        _text(", ".join(declaration.fields)) or _NOTHING,
    ]


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """What the trail says, in sections; one that has nothing to say says so."""
    computed = comparison.computed
    hint = f" {count(computed, 'place')} computed may have recorded them." if computed and comparison.undeclared else ""
    beyond = [("further operations", comparison.undeclared_beyond)] if comparison.undeclared_beyond else []
    yield from ("", "# Trail", "", f"{count(comparison.events, 'event')} compared.")
    yield from _section(
        "Recorded, declared nowhere",
        "Nobody reading the code knows of these." + hint,
        [*comparison.undeclared.items(), *beyond],
    )
    yield from _section(
        "Declared, never recorded",
        "Dead code, an untested path, or a logger that nobody hears.",
        comparison.never_recorded,
    )
    yield from _section(
        "Only ever SUCCESS", "No failure was ever recorded: is the failing path audited?", comparison.never_failed
    )
    yield from _section("Recorded without a user", "Events that do not say who acted.", comparison.without_user.items())


def _section(title: str, note: str, found: Iterable[str | tuple[str, int]]) -> Iterator[str]:
    items = [item if isinstance(item, tuple) else (item, None) for item in found]
    yield from ("", f"## {title}", "", note if items else "None.")
    if items:
        yield ""
    for operation, events in items:
        yield f"- {escape(name(operation))}" + ("" if events is None else f": {count(events, 'event')}")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join(['---'] * len(head))} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _text(text: str) -> str:
    return escape(visible(text))
