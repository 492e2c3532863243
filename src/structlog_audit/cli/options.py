"""The options that commands share: those of every command that reads trails as one value, the others one by one.

A command that reads trails takes a `TrailOptions` as its first parameter and is decorated with `reads_trails`, which adds the
shared options to its command line. Options of its own stand between them in the help.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import inspect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from structlog_audit.cli.choices import DocumentOutput, Output, ReportOutput, StreamOutput
from structlog_audit.cli.completion import complete_columns, complete_words
from structlog_audit.cli.exit_codes import UsageError

if TYPE_CHECKING:
    from structlog_audit.events.operation_classes import OperationClasses

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TRAIL|FIELD=value",
        help="Trails (paths, or - for stdin) and conditions.",
        show_default=False,
        autocompletion=complete_words,
    ),
]
TrailWords = Annotated[
    list[str] | None, typer.Argument(metavar="TRAIL", help="Trails (paths, or - for stdin).", show_default=False)
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since",
        "-S",
        metavar="TIME",
        help="Start of the time range: 7d, 1h30m, a date, RFC 3339, yesterday, 'monday 9:00', 'last week'.",
    ),
]
Month = Annotated[str | None, typer.Option("--month", metavar="MONTH", help="The time range: YYYY-MM, this or last.")]
Until = Annotated[str | None, typer.Option("--until", "-U", metavar="TIME", help="End of the time range (exclusive).")]
Vault = Annotated[
    str | None,
    typer.Option("--vault", metavar="FILE", help="File with the keys of persons: conditions match their tokens, too."),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="The reader of an archive: duckdb (default), or Spark as sc://host:15002, spark://host:7077 or local[2].",
    ),
]
Tz = Annotated[
    str | None,
    typer.Option("--tz", metavar="ZONE", help="Read and show times in this zone, such as Europe/Berlin."),
]
Utc = Annotated[
    bool,
    typer.Option("--utc", help="Read and show times in UTC; report, person, diff and explore do so without it."),
]
All = Annotated[bool, typer.Option("--all", "-a", help="Include the events of the library (opened, gap, intent ...).")]
Record = Annotated[bool, typer.Option("--record", help="Record this reading in the trail, with user and conditions.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 4 if anything could not be read, or is missing.")]

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Continue with new events, across rollovers.")]
Operations = Annotated[
    str | None,
    typer.Option("--operations", metavar="FILE", help="File with classes of operations: TOML, JSON or YAML."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
TrailPath = Annotated[str, typer.Argument(metavar="TRAIL", help="Active file of the trail.")]
SealedPath = Annotated[str, typer.Argument(metavar="TRAIL|ARCHIVE", help="Active file of the trail, or an archive.")]
Origin = Annotated[
    str,
    typer.Option("--origin", metavar="NAME", help="Name of the trail in checkpoints, such as audit.example/shop/web1."),
]
PreviousKey = Annotated[
    str | None,
    typer.Option("--previous-key", metavar="FILE", help="The key that --key replaces: both sign, for an overlap."),
]
VerifierKeys = Annotated[
    list[str], typer.Option("--key", metavar="VKEY|FILE", help="Verifier key, or a file with one or with a policy.")
]
SealKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--key", metavar="VKEY|FILE", help="Verify the seal with a verifier key, or a file with keys or a policy."
    ),
]
Verified = Annotated[
    bool,
    typer.Option(
        "--verified", help="Only events that the seal proves, with --key; exit with 4 if others were left out."
    ),
]
Anchors = Annotated[
    list[str] | None,
    typer.Option("--anchor", metavar="FILE", help="With --key: file from outside of the host with checkpoints."),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="A,B,…",
        help="Columns of text and csv: members of an event, or metadata.KEY.",
        autocompletion=complete_columns,
    ),
]

_OUTPUT = typer.Option("--output", "-o", help="Output format.")
OutputOption = Annotated[Output, _OUTPUT]
StreamOption = Annotated[StreamOutput, _OUTPUT]
DocumentOption = Annotated[DocumentOutput, _OUTPUT]
ReportOption = Annotated[
    ReportOutput, typer.Option("--output", "-o", help="Output format on stdout, if no file is given; text is Markdown.")
]
HtmlFile = Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write HTML to FILE; - is stdout.")]
MarkdownFile = Annotated[str | None, typer.Option("--markdown", metavar="FILE", help="Write Markdown to FILE.")]
JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE.")]


def proving_keys(keys: list[str] | None, *, verified: bool) -> list[str] | None:
    """Return the keys with which only proved lines are read; None if all lines are read.

    Raises:
        UsageError: There are keys without ``--verified``.
    """
    if keys and not verified:
        raise UsageError("--key: expected --verified as well")
    return list(keys or ()) if verified else None


@dataclass(frozen=True, slots=True)
class TrailOptions:
    """The options that every command that reads trails has, as they were given.

    Attributes:
        command: The name of the command.
        words: Trails and conditions.
        since: The start of the time range, as text.
        until: The end of the time range, as text.
        month: The month that is the time range, as text.
        vault: The file with the keys of persons.
        engine: The reader of the data files of an archive.
        operations: The file with classes of operations.
        tz: The name of the zone in which times are read and shown.
        utc: Whether that zone is UTC.
        every_kind: Whether the events of the library are included.
        record: Whether to record the reading in the trail.
        strict: Whether problems in the read data determine the exit code.
        trails: Trails named by an option of the command. If there are any, no word names a trail.
        default_trails: Trails of the settings, for a command line that names none.
        others: Further trails that the command opens itself. Reading them is recorded, too.
        person: The person that the command asks for, beside the conditions, as far as the record names them.
        pseudonyms: The names of that person under the keys that are given: the record has these in place of the identity.
        described: Further members of the record of the reading.
    """

    command: str
    words: Sequence[str] = ()
    since: str | None = None
    until: str | None = None
    month: str | None = None
    vault: str | None = None
    engine: str | None = None
    operations: str | None = None
    tz: str | None = None
    utc: bool = False
    every_kind: bool = False
    record: bool = False
    strict: bool = False
    trails: Sequence[str] = ()
    default_trails: Sequence[str] = ()
    others: Sequence[str] = ()
    person: str | None = None
    pseudonyms: Sequence[str] = ()
    described: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def zone(self) -> dt.tzinfo | None:
        """The zone in which times are read and shown; None is local time.

        Raises:
            UsageError: There is no such zone, or two zones are given.
        """
        # Imported by the commands that need it: --help must be quick.
        from structlog_audit.cli.times import zone_of

        return zone_of(self.tz, utc=self.utc)

    def classes(self) -> OperationClasses:
        """Return the classes of operations: those of this process, and those of the file.

        Raises:
            AuditTypeError, AuditValueError: The file cannot be read, or is invalid.
        """
        from structlog_audit.cli.operation_files import load_operations

        return load_operations(self.operations)

    def for_document(self) -> TrailOptions:
        """Return the options of a command that writes a document, whose times are in UTC unless ``--tz`` names a zone."""
        return dataclasses.replace(self, utc=self.utc or self.tz is None)

    def require_endless(self, output: Output) -> None:
        """Raise `UsageError` if *output*, or the time range, has an end, after which nothing can be followed."""
        if output == "json":
            raise UsageError("--follow cannot write a document, which has an end: use --output jsonl")
        for name, value in (("--until", self.until), ("--month", self.month)):
            if value is not None:
                raise UsageError(f"--follow cannot be combined with {name}")


Command = Callable[..., int]

_FIRST = {
    "words": Words,
    "since": Since,
    "until": Until,
    "month": Month,
    "vault": Vault,
    "engine": Engine,
    "operations": Operations,
}
"""The shared options before those of the command itself, without a value by default."""

_LAST = {"tz": Tz, "utc": Utc, "every_kind": All, "record": Record, "strict": Strict}
"""The shared options after those of the command itself: switches that are off by default, and the zone."""


def reads_trails(*, words: Any = Words, without: Container[str] = ()) -> Callable[[Command], Command]:
    """Return a decorator that adds the shared options to a command that reads trails.

    The command takes them as its first parameter, a `TrailOptions`.

    Args:
        words: The argument of the command line: its type, with its help.
        without: The names of the shared options that the command does not have.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def command(*, context: typer.Context | None = None, **given: Any) -> int:
            if context is not None:
                _drop_settings(context, given)
            options = _take_options(function.__name__, given)
            options = dataclasses.replace(options, default_trails=default_trails(context))
            return function(options, **given)

        # typer makes the options of the command line from the signature.
        signature = _command_signature(function, words, without)
        command.__signature__ = signature  # type: ignore[attr-defined]
        return command

    return decorate


def default_trails(context: typer.Context | None) -> tuple[str, ...]:
    """Return the trails of the settings; none for a command that another one calls."""
    settings = None if context is None else context.find_root().obj
    return () if settings is None else settings.trails


_WITHOUT_SETTING = {"output": "text"}
"""The values of options whose setting is dropped, if they have one."""


def _drop_settings(context: typer.Context, given: dict[str, Any]) -> None:
    """Remove from *given* the settings that the command line replaces, or that need an option it does not have."""
    has_files = any(given.get(name) is not None for name in ("html", "markdown", "json"))
    replaced = {"tz": given.get("utc"), "key": given.get("verified") is False, "output": has_files}
    for name, is_replaced in replaced.items():
        source = context.get_parameter_source(name)
        if is_replaced and source is not None and source.name == "DEFAULT_MAP":
            given[name] = _WITHOUT_SETTING.get(name)


def _take_options(command: str, given: dict[str, Any]) -> TrailOptions:
    """Remove the shared options from *given* and return them."""
    options = {}
    for name in (*_FIRST, *_LAST):
        if name in given:
            options[name] = given.pop(name)

    # typer passes None without words.
    words = options.pop("words", None) or ()
    return TrailOptions(command, words, **options)


def _command_signature(function: Command, words: Any, without: Container[str]) -> inspect.Signature:
    """Return the signature of *function* with the shared options in place of its first parameter."""
    first = _FIRST | {"words": words}
    own = list(inspect.signature(function, eval_str=True).parameters.values())
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    return inspect.Signature([*_parameters(first, without), *own[1:], *_parameters(_LAST, without), context])


def _parameters(hints: dict[str, Any], without: Container[str]) -> Iterator[inspect.Parameter]:
    """Yield the parameters of shared options. A switch is off by default, and any other option without a value."""
    for name, hint in hints.items():
        if name not in without:
            default = False if get_args(hint)[0] is bool else None
            yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
