"""``person``: everything that trails have by and about one person."""

from __future__ import annotations

import dataclasses
import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit._validation import MOST
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import (
    Anchors,
    Force,
    HtmlFile,
    JsonFile,
    MarkdownFile,
    ReportOption,
    SealKeys,
    TrailOptions,
    reads_trails,
)

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading
    from structlog_audit.redaction.redactor import Redactor

EXAMPLES = ("person ann logs/audit.jsonl --member customer_id",)

_Words = Annotated[
    list[str],
    typer.Argument(
        metavar="USER TRAIL",
        help="Identity of the person, as in user_id, or token (- reads it from stdin); then trails.",
        show_default=False,
    ),
]


@reads_trails(words=_Words, without=("every_kind",))
def person(
    options: TrailOptions,
    *,
    member: Annotated[
        list[str] | None,
        typer.Option("--member", metavar="KEY", help="Member of the metadata that may hold the identity."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="VERSION=FILE", help="Key of pseudonyms, of each key version in the trail."),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, metavar="N", help="Newest events in each list.")] = 200,
    key: SealKeys = None,
    anchor: Anchors = None,
    html: HtmlFile = None,
    markdown: MarkdownFile = None,
    json: JsonFile = None,
    force: Force = False,
    output: ReportOption = "text",
) -> Exit:
    """Show everything by and about one person, and what an erasure would remove.

    The text is Markdown, for an access request (GDPR art. 15) or an erasure (art. 17).
    """
    from structlog_audit.cli.documents import documents
    from structlog_audit.cli.reading import read_trails
    from structlog_audit.reports import person_report

    identity, options = _take_person(options.for_document())
    classes = options.classes()
    if not all(member or ()):
        raise UsageError("--member: expected a member of the metadata, such as customer_id, got an empty text")
    targets = documents({"html": html, "markdown": markdown, "json": json}, output, force=force)
    redactors = [_redactor(given) for given in secret or ()]
    pseudonyms = [redactor.pseudonym(identity) for redactor in redactors]
    options = dataclasses.replace(options, person=identity, pseudonyms=pseudonyms)

    def write(reading: Reading) -> Exit:
        conditions = reading.selection.conditions
        made = person_report(
            reading.trail,
            identity,
            start_time=conditions.start_time,
            end_time=conditions.end_time,
            tz=options.zone,
            members=member or (),
            redactors=redactors,
            vault=options.vault,
            newest=min(lines, MOST),
            operations=classes,
            seals=reading.seals(key, anchor),
        )
        targets.write(made)
        return Exit.FINDINGS if options.strict and not made.completeness.is_acceptable else Exit.DONE

    return read_trails(options, write, quietly=True, judges=True, whole="person covers all events of its time range")


def _take_person(options: TrailOptions) -> tuple[str, TrailOptions]:
    """Return the identity, and the options without it."""
    if not options.words:
        raise UsageError("expected a person and trails, as in person USER TRAIL")

    given, *trails = options.words
    if _is_trail_first(given, trails, options.default_trails):
        raise UsageError(f"expected a trail after the person, as in person USER TRAIL, got the file {given!r} first")

    identity = sys.stdin.readline().rstrip("\n") if given == "-" else given
    if not identity:
        raise UsageError("USER: expected an identity, got an empty text")
    if given == "-" and "-" in trails:
        raise UsageError("-: expected the identity or a trail on stdin, got both")
    return identity, dataclasses.replace(options, words=trails)


def _is_trail_first(given: str, trails: Sequence[str], default_trails: Sequence[str]) -> bool:
    """Return whether the first word, *given*, is a file, and no trail follows or is a default."""
    named = trails or default_trails

    return os.path.isfile(given) and not any(word == "-" or "://" in word or glob.glob(word) for word in named)


def _redactor(given: str) -> Redactor:
    """Return a redactor with the key in the file that *given* names, without line breaks at its end."""
    from structlog_audit.exceptions import AuditError
    from structlog_audit.redaction.redactor import Redactor

    version, _, path = given.partition("=")
    if not path:
        raise UsageError(f"--secret {given!r}: expected VERSION=FILE, such as 2025=pseudonyms.key")
    data = Path(path).read_bytes().rstrip(b"\r\n")
    try:
        return Redactor(secret=data, key_version=version)
    except AuditError as error:
        raise UsageError(f"--secret {version}={path}: {error}") from None
