"""The options that commands share: those of every command that reads trails as one value, the others one by one.

A command that reads trails takes a `TrailOptions` as its first parameter and is decorated with `reads_trails`, which adds the
shared options to its command line. Options of its own stand between them in the help.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.cli.options import Output

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TRAIL|FIELD=value", help="Trails (paths, or - for stdin) and conditions.", show_default=False
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
        help="Start of the time range: RFC 3339, a date, today, yesterday, 1h, 30m, 7d.",
    ),
]
Until = Annotated[str | None, typer.Option("--until", "-U", metavar="TIME", help="End of the time range (exclusive).")]
Utc = Annotated[bool, typer.Option("--utc", help="Read and show times in UTC, not in local time.")]
All = Annotated[bool, typer.Option("--all", "-a", help="Include the library's own events (opened, gap, intent ...).")]
Record = Annotated[bool, typer.Option("--record", help="Record this reading in the trail, with user and conditions.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 4 if anything could not be read.")]

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Continue with new events, across rollovers.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Output format.")]


@dataclass(frozen=True, slots=True)
class TrailOptions:
    """The options that every command that reads trails has, as they were given.

    Attributes:
        command: The name of the command.
        words: Trails and conditions.
        since: The start of the time range, as text.
        until: The end of the time range, as text.
        utc: Whether times without an offset are UTC, and times are shown in UTC.
        every_kind: Whether the library's own events are included.
        record: Whether to record the reading in the trail.
        strict: Whether problems in what was read determine the exit code.
        trails: Trails named by an option of the command. If there are any, no word names a trail.
    """

    command: str
    words: Sequence[str] = ()
    since: str | None = None
    until: str | None = None
    utc: bool = False
    every_kind: bool = False
    record: bool = False
    strict: bool = False
    trails: Sequence[str] = ()

    def require_open_end(self) -> None:
        """Raise `UsageError` if the time range has an end, after which nothing can be followed."""
        if self.until is not None:
            raise UsageError("--follow cannot be combined with --until")


_FIRST = {"words": Words, "since": Since, "until": Until}
_LAST = {"utc": Utc, "every_kind": All, "record": Record, "strict": Strict}


def reads_trails(*, words: Any = Words, has_all: bool = True) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return a decorator that adds the shared options to a command that reads trails.

    The command takes them as its first parameter, a `TrailOptions`.

    Args:
        words: The argument of the command line: its type, with its help.
        has_all: Whether the command has ``--all``.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        before = [_parameter(name, hint, None) for name, hint in (_FIRST | {"words": words}).items()]
        after = [_parameter(name, hint, False) for name, hint in _LAST.items() if has_all or name != "every_kind"]
        shared = [parameter.name for parameter in before + after]

        @functools.wraps(function)
        def command(**given: Any) -> int:
            options = {name: given.pop(name) for name in shared if name in given}
            options["words"] = options.get("words") or ()
            return function(TrailOptions(function.__name__, **options), **given)

        parameters = before + [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + after
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
