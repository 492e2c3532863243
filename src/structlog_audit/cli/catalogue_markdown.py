"""The catalogue of operations, and its comparison with a trail, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from structlog_audit.catalogue import Catalogue, Comparison, Declaration
from structlog_audit.cli.tables import NOTHING
from structlog_audit.reports.formatting import count, display_name, visible
from structlog_audit.reports.markdown import escape_markdown

_HEAD = ("Operation", "Location", "Function", "Entry point", "Status", "Fields")


def catalogue_lines(declared: Catalogue) -> Iterator[str]:
    """Yield the lines of the catalogue: declared operations, computed ones, and files that could not be read."""
    yield "# Operations"
    yield ""
    yield _summary(declared)

    if declared.operations:
        yield ""
        yield from _table(_HEAD, _declared_rows(declared))

    if declared.computed:
        yield from (
            "",
            "## Computed",
            "",
            "The code computes these operations, so their names are not in the source.",
            "",
        )
        yield from _table(_HEAD, ([_text(each.expression), *_details(each)] for each in declared.computed))

    if declared.unread:
        yield from ("", "## Not read", "")
        yield from _table(("File", "Reason"), ([_text(each.file), _text(each.reason)] for each in declared.unread))


def _summary(declared: Catalogue) -> str:
    operations = count(len(declared.operations), "operation")
    files = count(declared.files, "file")
    summary = f"{operations} declared in {files}"

    computed = len(declared.computed)
    if computed:
        verb = "computes" if computed == 1 else "compute"
        summary += f", and {count(computed, 'place')} that {verb} one"
    return summary + "."


def _declared_rows(declared: Catalogue) -> Iterator[list[str]]:
    for operation, declarations in declared.operations.items():
        for declaration in declarations:
            yield [escape_markdown(display_name(operation)), *_details(declaration)]


def _details(declaration: Declaration) -> list[str]:
    """Return the cells of a row after the operation."""
    entry_point = declaration.entry_point
    if declaration.intent is None:
        entry_point += ", intent computed"
    elif declaration.intent:
        entry_point += ", intent"

    return [
        _where(declaration),
        NOTHING if declaration.function is None else _text(declaration.function),
        _text(entry_point),
        declaration.status or NOTHING,
        _text(", ".join(declaration.fields)) or NOTHING,
    ]


def _where(declaration: Declaration) -> str:
    if declaration.operation is None:
        return f"{_text(declaration.file)}, computed at line {declaration.line}"
    return f"{_text(declaration.file)}:{declaration.line}"


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Yield the lines of the comparison with a trail, one section for each kind of difference."""
    yield from ("", "# Trail", "", f"{count(comparison.events, 'event')} compared.")

    undeclared = list(comparison.undeclared.items())
    if comparison.undeclared_beyond:
        undeclared.append(("further operations", comparison.undeclared_beyond))
    note = "The source does not name these operations."
    if comparison.computed:
        note += f" {count(comparison.computed, 'place')} with a computed operation may have recorded them."
    yield from _section("Recorded but not declared", note, undeclared)

    if comparison.tracked:
        note = "The source tracks models, whose changes are named by their tables."
        yield from _section("Changes of tracked models", note, comparison.tracked.items())

    note = "Dead code, an untested path, or a logger without a handler."
    yield from _section("Declared but never recorded", note, comparison.never_recorded)

    note = "Every event is a SUCCESS. Check that the failing path is audited."
    yield from _section("Never failed", note, comparison.never_failed)

    note = "These events do not identify a user."
    yield from _section("Recorded without a user", note, comparison.without_user.items())


def _section(title: str, note: str, found: Iterable[str | tuple[str, int]]) -> Iterator[str]:
    """Yield a section with an item for each operation of *found*, and the number of its events if that is given."""
    items = list(found)
    yield from ("", f"## {title}", "", note if items else "None.")
    if items:
        yield ""

    for item in items:
        if isinstance(item, tuple):
            operation, events = item
            yield f"- {escape_markdown(display_name(operation))}: {count(events, 'event')}"
        else:
            yield f"- {escape_markdown(display_name(item))}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join(['---'] * len(head))} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _text(text: str) -> str:
    return escape_markdown(visible(text))
