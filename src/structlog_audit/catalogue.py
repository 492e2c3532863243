"""Which operations code declares, and how a trail agrees with that.

`catalogue` reads source; nothing of it is imported or executed. `structlog_audit.declarations` says what counts.

Rules:

* Nothing is left out silently: an operation that the code computes is a declaration without a name, and a file that can't be
  read is listed as such.
* A trail is read once, event by event. Only its ordinary events count: what the library records of itself is declared by
  nobody. Of operations that are declared nowhere the first `MOST_UNDECLARED` are told by name, the others counted.
* Operations are compared by name. Whoever computes a name may have recorded what seems to be declared nowhere.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from structlog_audit.code_files import bases_of, files_of, shown
from structlog_audit.code_meaning import LIBRARY
from structlog_audit.code_names import UNREADABLE, Code
from structlog_audit.declarations import Declaration, declarations_in
from structlog_audit.events.event import AuditEvent, EventStatus
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import Filters, with_filter_signature

__all__ = ["Catalogue", "Comparison", "Declaration", "Unread", "catalogue", "compare"]

MOST_UNDECLARED = 1_000
"""Names of operations that are declared nowhere, at most."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A file or folder that could not be read, and why."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What code declares.

    Attributes:
        declarations: In the order of files and lines.
        files: How many files were read.
        unread: What could not be read.
    """

    declarations: tuple[Declaration, ...]
    files: int
    unread: tuple[Unread, ...] = ()

    @property
    def operations(self) -> dict[str, list[Declaration]]:
        """The declarations of each operation that is known, sorted by its name."""
        found: dict[str, list[Declaration]] = {}
        for declaration in self.declarations:
            if declaration.operation is not None:
                found.setdefault(declaration.operation, []).append(declaration)
        return dict(sorted(found.items()))

    @property
    def computed(self) -> list[Declaration]:
        """The declarations whose operation the code computes."""
        return [declaration for declaration in self.declarations if declaration.operation is None]

    def to_dict(self) -> dict[str, Any]:
        """The catalogue as plain JSON values."""
        return {
            "operations": list(self.operations),
            "declarations": [declaration.to_dict() for declaration in self.declarations],
            "files": self.files,
            "unread": [{"file": unread.file, "reason": unread.reason} for unread in self.unread],
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a trail agrees with a `Catalogue`. Operations are sorted by name; numbers are those of events.

    Attributes:
        events: How many events were compared.
        recorded: The declared operations that were recorded, with their events.
        never_recorded: Declared, but not recorded.
        never_failed: Declared and recorded, and every event is a SUCCESS.
        without_user: Declared, with the events that name no user.
        undeclared: Recorded, but declared nowhere, with their events.
        undeclared_beyond: Events of further operations that are declared nowhere.
        computed: Places whose operation is computed: they may declare some of ``undeclared``.
    """

    events: int
    recorded: Mapping[str, int]
    never_recorded: tuple[str, ...]
    never_failed: tuple[str, ...]
    without_user: Mapping[str, int]
    undeclared: Mapping[str, int]
    undeclared_beyond: int
    computed: int

    @property
    def is_declared(self) -> bool:
        """Whether everything that is recorded is declared."""
        return not self.undeclared

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return {
            "events": self.events,
            "recorded": dict(self.recorded),
            "never_recorded": list(self.never_recorded),
            "never_failed": list(self.never_failed),
            "without_user": dict(self.without_user),
            "undeclared": dict(self.undeclared),
            "undeclared_beyond": self.undeclared_beyond,
            "computed": self.computed,
        }


def catalogue(*packages: str | os.PathLike[str]) -> Catalogue:
    """The operations that *packages* declare. Reads every source file once; nothing is imported.

    Args:
        packages: Each the name of a module or a package, or the path of a file or a folder.

    Raises:
        AuditTypeError: There is no package, or one of another type.
        AuditValueError: There is nothing of that name, or no source; the message says what to give.
    """
    if not packages:
        raise AuditTypeError("catalogue() without a package: give a name, or the path of a file or folder")
    unread: list[Unread] = []

    def onerror(error: OSError) -> None:
        unread.append(Unread(shown(str(error.filename)), _reason(error)))

    paths = {os.path.realpath(path): path for package in packages for path in files_of(package, onerror)}
    code = Code([base for package in packages for base in bases_of(package)], LIBRARY)
    declarations: list[Declaration] = []
    files = 0
    for path in paths.values():
        try:
            declarations += declarations_in(code.module_at(path), code)
            files += 1
        except UNREADABLE as error:
            unread.append(Unread(shown(path), _reason(error)))
    declarations.sort(key=lambda declaration: (declaration.file, declaration.line))
    return Catalogue(tuple(declarations), files, tuple(unread))


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}: {error.msg}" if error.lineno else str(error.msg)
    return "it is nested too deeply" if isinstance(error, RecursionError | MemoryError) else str(error)


@with_filter_signature
def compare(declared: Catalogue, source: EventSource, **filters: Unpack[Filters]) -> Comparison:
    """How the events of *source* that match all *filters* agree with *declared*. O(events) time, O(operations) memory.

    Args:
        declared: The catalogue.
        source: What answers questions about events: a trail, a handler, a logger.
        filters: What is asked for; none means every ordinary event.

    Raises:
        AuditTypeError, AuditValueError, AuditReadError: As of ``iter_events``.
    """
    return compare_events(declared, source.iter_events(**filters))


def compare_events(declared: Catalogue, events: Iterable[AuditEvent]) -> Comparison:
    """Compare *declared* with *events*, which may be any selection. Otherwise as `compare`."""
    names = set(declared.operations)
    recorded, succeeded, without_user, undeclared = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    compared = beyond = 0
    for event in events:
        compared += 1
        name = event.operation.value
        if name in names:
            recorded[name] += 1
            succeeded[name] += event.status == EventStatus.SUCCESS
            without_user[name] += not event.user_id
        elif name in undeclared or len(undeclared) < MOST_UNDECLARED:
            undeclared[name] += 1
        else:
            beyond += 1
    return Comparison(
        events=compared,
        recorded=_sorted(recorded),
        never_recorded=tuple(sorted(names - recorded.keys())),
        never_failed=tuple(name for name, count in sorted(recorded.items()) if count == succeeded[name]),
        without_user=_sorted(without_user),
        undeclared=_sorted(undeclared),
        undeclared_beyond=beyond,
        computed=len(declared.computed),
    )


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in sorted(counts.items()) if count}
