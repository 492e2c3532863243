"""Opening the trails that a command line names, and selecting their events."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import shlex
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import msgspec

from structlog_audit._validation import MOST
from structlog_audit.archive.opening import is_archive, open_archive, require_engine
from structlog_audit.cli.access_record import record_reading
from structlog_audit.cli.conditions import Condition, Selection, build_selection, split_words, wanted_values
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import TrailOptions
from structlog_audit.cli.terminal import progress, put_error, wait_for_reader
from structlog_audit.cli.times import time_range
from structlog_audit.cli.vaults import open_vault, recordable, with_tokens
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import rfc3339
from structlog_audit.exceptions import AuditValueError
from structlog_audit.query.completeness import Completeness
from structlog_audit.query.engine import Progress
from structlog_audit.query.event_source import export_information
from structlog_audit.query.field_tests import FieldConditions, FieldTest
from structlog_audit.query.filters import Conditions
from structlog_audit.query.seal_verdict import SealVerdict
from structlog_audit.query.statistics import UserStatistics
from structlog_audit.redaction.vault import SubjectVault
from structlog_audit.trail.reading.opening import open_trail
from structlog_audit.trail.reading.reader import TrailReader

if TYPE_CHECKING:
    from structlog_audit.archive.reader import ArchiveReader
    from structlog_audit.integrity.verified_lines import VerifiedLines


@dataclass(frozen=True, slots=True)
class Reading:
    """The selected events of the trails that are open.

    Attributes:
        trail: The reader of the trails.
        selection: The conditions, built once.
        now: The time at the start of the command.
        description: The times and conditions as they may be recorded, with tokens in place of persons.
        revealed_by: The vault with whose keys events are shown in clear, if they are.
        is_read_once: Whether a source can be read only once.
    """

    trail: TrailReader | ArchiveReader
    selection: Selection
    now: dt.datetime
    description: Mapping[str, Any]
    revealed_by: SubjectVault | None = None
    is_read_once: bool = False

    def narrowed(self, tests: Iterable[FieldTest]) -> Reading:
        """Return a reading of the selected events that pass *tests*."""
        conditions = FieldConditions.of(self.selection.conditions, *tests)

        return dataclasses.replace(self, selection=dataclasses.replace(self.selection, conditions=conditions))

    def select(self, *, newest_first: bool = False, at_most: int | None = None) -> Iterator[StoredEvent]:
        """Yield the selected events; a caller that takes only the first few states *at_most* how many."""
        return self.trail.select(self.selection.conditions, newest_first=newest_first, at_most=at_most)

    def events(self, *, newest_first: bool = False, at_most: int | None = None) -> Iterator[StoredEvent]:
        """Yield the first *at_most* of the selected events, or all."""
        # No command refuses a number of lines for its size.
        limit = None if at_most is None else min(at_most, MOST)
        found = self.select(newest_first=newest_first, at_most=limit)
        events = islice(found, limit)

        return events if self.revealed_by is None else map(self.revealed_by.reveal, events)

    def newest(self, count: int) -> list[StoredEvent]:
        """Return the newest *count* of the selected events, oldest first."""
        return list(self.events(newest_first=True, at_most=count))[::-1]

    def from_beginning(self) -> Reading:
        """Return a reading of the selected events and of those before the time range."""
        conditions = msgspec.structs.replace(self.selection.conditions, start_time=None)

        return dataclasses.replace(self, selection=dataclasses.replace(self.selection, conditions=conditions))

    def follow(self, *, since_now: bool, idle: Callable[[], None] = lambda: None) -> Iterator[StoredEvent]:
        """Yield selected events as they are recorded, until the reader of stdout is gone.

        Args:
            since_now: Whether to begin with the events that are recorded after this call, or with the oldest.
            idle: Called whenever all events so far were yielded.
        """
        wait_or_stop = wait_for_reader()
        conditions = self.selection.conditions

        def wait(seconds: float) -> None:
            idle()
            wait_or_stop(seconds)

        return self.trail.follow_matching(conditions, since_now=since_now, stop=lambda: False, wait=wait)

    def export_information(self, seals: Iterable[SealVerdict] = (), zone: dt.tzinfo = dt.UTC) -> dict[str, Any]:
        """Return the facts that a database states about the export of these events: `structlog_audit.formats.sqlite`.

        Sentences have the times of *zone*.
        """
        conditions = self.selection.conditions
        verdict = self.trail.completeness(conditions.start_time, conditions.end_time).with_seals(seals)
        return export_information(verdict, self.description, zone)

    def explain_absence(self, wanted: Mapping[str, Iterable[str]] | None = None) -> None:
        """Write a hint to stderr for each value asked for that no event in the time range has.

        That takes one more pass, so there are no hints about a source that can be read only once.

        Args:
            wanted: The values by member; None stands for those of the conditions.
        """
        if wanted is None:
            wanted = wanted_values(self.selection.words)
        if wanted and not self.is_read_once:
            conditions = self.selection.conditions
            names = tuple((name, values) for name, values in conditions.names if name == "kind")
            in_range = Conditions(names, start_time=conditions.start_time, end_time=conditions.end_time)

            of_class = conditions.operation_class
            classes = None if of_class is None else of_class.classes

            for hint in self.trail._absent_values(in_range, wanted, classes):
                put_error(hint)

    def seals(self, keys: Sequence[str] | None, anchors: Sequence[str] | None) -> list[SealVerdict]:
        """Return the verdicts on the seals of the trails; without *keys*, none.

        Raises:
            UsageError: A key cannot be used, or there are anchors and no keys.
        """
        from structlog_audit.integrity.seal_verdicts import verify_seals

        if not keys:
            if anchors:
                raise UsageError("--anchor: expected --key as well")
            return []

        archives = [path for path in self.trail.paths if is_archive(path)]
        trails = [path for path in self.trail.paths if path not in archives]

        try:
            verdicts = verify_seals(trails, keys, anchors=anchors or ())
            for path in archives:
                verdicts += _seals_of_archive(path, keys, anchors or ())
        except AuditValueError as error:
            raise UsageError(f"--key: {error}") from None

        return verdicts

    def statistics_by_user(self) -> dict[str | None, UserStatistics]:
        """Return the statistics of each user among the selected events, as ``get_statistics_by_user`` of a trail."""
        return self.trail._statistics_by_user(self.selection.conditions)

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of the selected events, and ``unknown_status``."""
        return self.trail._statistics_and_unknown_status(self.selection.conditions)

    def completeness(self, by_user: Container[str], seals: Iterable[SealVerdict] = ()) -> Completeness:
        """Return the verdict for the time range, with the *seals* of the trails as evidence.

        A selected user who is not in *by_user* must occur elsewhere in the trail.
        """
        conditions = self.selection.conditions
        verdict = self.trail.completeness(conditions.start_time, conditions.end_time).with_seals(seals)

        selected = dict(conditions.names).get("user_id", ())
        users = [user for user in selected if isinstance(user, str) and user not in by_user]

        return verdict.with_users(self.trail.users_without_events(sorted(users)))


def _seals_of_archive(path: str, keys: Sequence[str], anchors: Sequence[str]) -> list[SealVerdict]:
    from structlog_audit.archive.proofs import verify_archived_seals

    return verify_archived_seals(path, keys, anchors=anchors)


def read_trails(
    options: TrailOptions,
    work: Callable[[Reading], Exit],
    *,
    quietly: bool = False,
    judges: bool = False,
    reveal: bool = False,
    verified_by: Sequence[str] | None = None,
    whole: str | None = None,
) -> Exit:
    """Open the trails that *options* name, call *work*, and report the problems that were found.

    Args:
        options: The options of the command.
        work: The part of the command; it returns the exit code.
        quietly: Whether *work* writes to stdout only at its end.
        judges: Whether *work* states the verdict on completeness, and returns its exit code.
        reveal: Whether events are shown in clear.
        verified_by: Verifier keys, with which only lines that the seal proves are read; None for all lines.
        whole: What the command covers, if that is all events of the time range: conditions are an error then.

    Returns:
        The exit code of *work*, or `Exit.FINDINGS` with lines that are not proved, or with ``--strict`` and any problem or
        missing event.

    Raises:
        UsageError: An option or a condition is invalid.
        UnreadableError, AuditError, OSError: A trail cannot be read, or the reading cannot be recorded.
    """
    now = dt.datetime.now(dt.UTC)
    named, words = split_words(options.words)
    paths = list(options.trails) or named or list(options.default_trails)
    if not paths:
        raise UsageError("expected a trail: the path of its active file, such as logs/audit.jsonl, or - for stdin")

    if whole is not None and words:
        raise UsageError(f"{whole}: leave out the conditions")

    start, end = time_range(options.since, options.until, options.month, now, options.zone)
    if whole is not None and start is not None and start == end:
        raise UsageError(
            f"--since={options.since!r}, --until={options.until!r}: expected a time range that is not empty"
        )

    vault = open_vault(options.vault, reveal=reveal)
    widened = list(with_tokens(words, vault))
    selection = build_selection(
        widened,
        every_kind=options.every_kind,
        classes=options.classes(),
        start_time=start,
        end_time=end,
    )
    selection = dataclasses.replace(selection, words=tuple(words))

    describe = partial(_description, selection, options, vault, reveal=reveal)
    # The reading is recorded first: if that fails, nothing is shown.
    if options.record:
        record_reading([*paths, *options.others], options.command, describe)

    with ExitStack() as stack, progress(lambda: trail.size(), quietly=quietly) as advance:
        verified = [] if verified_by is None else _verified_lines(paths, verified_by, stack)
        trail = (
            open_paths(paths, options.engine, advance, vault)
            if verified_by is None
            else open_trail(*cast("list[BinaryIO]", verified), vault=vault)
        )
        is_read_once = bool(verified) or ("-" in paths and not sys.stdin.seekable())
        reading = Reading(trail, selection, now, describe(False), vault if reveal else None, is_read_once)
        code = work(reading)

    sys.stdout.flush()

    if trail.problems:
        report_problems(trail.problems, paths)
    if _has_unproved(verified, now):
        return Exit.FINDINGS
    if not options.strict:
        return code

    has_findings = trail.problems or (not judges and _is_incomplete(reading))

    return Exit.FINDINGS if has_findings else code


def _verified_lines(paths: Sequence[str], keys: Sequence[str], stack: ExitStack) -> list[VerifiedLines]:
    """Return the proved lines of the trails at *paths*, which may be an archive. *stack* closes what it opens.

    Raises:
        UsageError: A key cannot be used, or a path is not the active file of a trail.
        AuditReadError: The seal of a trail cannot be verified.
    """
    from structlog_audit.integrity.errors import raising
    from structlog_audit.integrity.standalone.verify_trail import load_policies
    from structlog_audit.integrity.verified_lines import VerifiedLines

    if not keys:
        raise UsageError("--verified: expected --key as well: without a key, nothing is proved")

    is_of_archive = any(map(is_archive, paths))
    if is_of_archive and len(paths) > 1:
        raise UsageError(
            "--verified: expected one archive, without others or live trails: what both have would come twice"
        )

    for path in paths:
        if not is_of_archive and not os.path.isdir(f"{os.path.abspath(path)}.seal"):
            raise UsageError(f"--verified: {path!r}: expected the active file of a sealed trail, or an archive of one")

    with raising(UsageError):
        policy = load_policies(keys)

    if is_of_archive:
        from structlog_audit.archive.proofs import verified_archived_lines

        return stack.enter_context(verified_archived_lines(paths[0], policy))

    return [VerifiedLines(path, policy) for path in dict.fromkeys(paths)]


def _has_unproved(verified: Iterable[VerifiedLines], now: dt.datetime) -> bool:
    """Return whether lines were left out that should be proved, after naming all that were left out on stderr."""
    found = [problem for lines in verified for problem in lines.problems(now)]
    for sentence, _ in found:
        put_error(sentence)
    return any(is_finding for _, is_finding in found)


def _is_incomplete(reading: Reading) -> bool:
    """Return whether events of the time range are missing, after writing the reasons to stderr."""
    conditions = reading.selection.conditions
    verdict = reading.trail.completeness(conditions.start_time, conditions.end_time)
    if not verdict.missing:
        return False

    for sentence in [f"{verdict.headline()}:", *verdict.sentences()]:
        put_error(sentence)

    return True


def open_paths(
    paths: list[str], engine: str | None, progress: Progress | None, vault: SubjectVault | None
) -> TrailReader | ArchiveReader:
    """Return a reader of *paths*, some of which may be archives that *engine* reads."""
    archives = [path for path in dict.fromkeys(paths) if is_archive(path)]
    trails = [path for path in paths if path not in archives]
    if not archives and engine is not None:
        raise UsageError(f"--engine {engine}: expected an archive among the trails, got {', '.join(trails)}")
    if not archives:
        return open_trail(*_streams(trails), progress=progress, vault=vault)
    try:
        require_engine(engine or "duckdb")
    except AuditValueError as error:
        raise UsageError(str(error)) from error
    return open_archive(
        *archives, live=list(_streams(trails)), engine=engine or "duckdb", progress=progress, vault=vault
    )


def _streams(paths: list[str]) -> Iterator[str | BinaryIO]:
    """Yield each of *paths* once, and stdin for ``-``."""
    for path in dict.fromkeys(paths):
        yield sys.stdin.buffer if path == "-" else path


def _description(
    selection: Selection, options: TrailOptions, vault: SubjectVault | None, hides_persons: bool, *, reveal: bool
) -> dict[str, Any]:
    """Return the times and conditions of *selection*, for the record of the reading in a trail."""
    description: dict[str, Any] = {}
    start, end = selection.conditions.start_time, selection.conditions.end_time
    if start is not None:
        description["since"] = rfc3339(start)

    if end is not None:
        description["until"] = rfc3339(end)

    words = [*selection.words, *_names(options)]
    if words:
        description["conditions"] = list(recordable(words, vault, hides_persons=hides_persons))

    if reveal:
        description["revealed"] = True
    return {**description, **options.described}


def _names(options: TrailOptions) -> Iterator[Condition]:
    """Yield a condition on each name of the person that the command asks for."""
    names: Iterable[str | None] = options.pseudonyms or (options.person,)
    for name in names:
        if name is not None:
            yield Condition("user_id", "=", name)


def report_problems(problems: Mapping[str, int], paths: Iterable[str]) -> None:
    """Write one line to stderr with the number of problems of each code, and the command that examines *paths*."""
    found = sorted(problems.items())
    counts = ", ".join(f"{count} {code}" for code, count in found)

    # doctor reads neither stdin nor archives.
    examined = [path for path in dict.fromkeys(paths) if path != "-" and not is_archive(path)]
    command = shlex.join(["structlog-audit", "doctor", *examined])
    hint = f"; run {command} for details" if examined else ""

    put_error(f"not everything could be read: {counts}{hint}")
