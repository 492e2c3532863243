"""The actions of a Delta log (protocol 1/2), and the additions of this library, as values.

The format is Delta's, https://github.com/delta-io/delta/blob/master/PROTOCOL.md, so that other programs read an archive as a
table. Facts for this library alone are where Delta leaves room: tags of a file, members of ``commitInfo``, and one further
column of a checkpoint.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence

import msgspec

from structlog_audit.exceptions import AuditReadError

FORMAT = 1
"""The version of the format of an archive."""

FORMAT_KEY = "audit.format"
PROMOTED_KEY = "audit.promoted"
PRUNED_KEY = "audit.pruned_before"

Range = tuple[int, int]
"""The first and the last of some integers."""


class Add(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A data file. `DataFile` is its meaning."""

    path: str
    partition_values: dict[str, str | None]
    size: int
    modification_time: int
    data_change: bool = msgspec.field(default_factory=lambda: True)
    stats: str | None = None
    tags: dict[str, str] | None = None


class Remove(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A data file that is no longer part of the table, for the sake of readers that still use it."""

    path: str
    deletion_timestamp: int = msgspec.field(default_factory=lambda: 0)
    data_change: bool = msgspec.field(default_factory=lambda: True)


class Txn(msgspec.Struct, rename="camel", omit_defaults=True):
    """How much of a source the table holds: of a segment, the number of bytes."""

    app_id: str
    version: int
    last_updated: int | None = None


class Protocol(msgspec.Struct, rename="camel"):
    """The versions of Delta's protocol that a reader and a writer need."""

    min_reader_version: int = 1
    min_writer_version: int = 2


class Format(msgspec.Struct, frozen=True):
    """The format of the data files."""

    provider: str = "parquet"
    options: dict[str, str] = {}


class MetaData(msgspec.Struct, rename="camel", kw_only=True):
    """The identity, schema and configuration of the table."""

    id: str
    format: Format = Format()
    schema_string: str
    partition_columns: tuple[str, ...] = ("date",)
    configuration: dict[str, str]
    created_time: int | None = None


class Coverage(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """The bytes of a segment that one commit archived, and the numbers that their events got.

    Attributes:
        segment: The key of the segment.
        trail: Its trail, ``host:path``.
        name: The name of its file, without a suffix of compression.
        start: The offset of the first byte in the decompressed segment.
        stop: The offset after the last byte.
        lines: The number of lines in them, events or not.
        sha256: The digest of these bytes.
        first: The number of the first event in the trail.
        stop_number: The number after the last event.
        least: The least timestamp, in microseconds since 1970; None without events.
        high: The greatest timestamp of the trail so far, in microseconds since 1970.
        quarantine: The file with the bytes that are not events; None without any.
        is_final: Whether nothing can follow: the segment is compressed.
    """

    segment: str
    trail: str
    name: str
    start: int
    stop: int
    lines: int
    sha256: str
    first: int
    stop_number: int
    least: int | None = None
    high: int | None = None
    quarantine: str | None = None
    is_final: bool = False


class SealCopy(msgspec.Struct, frozen=True, kw_only=True):
    """The copy of the seal of a trail: the newest one of each trail counts.

    Attributes:
        trail: The trail, ``host:path``.
        size: The number of lines that its checkpoint covers.
        root: The root of their tree, in Base64.
        path: The file in the archive that lists all others; see `structlog_audit.archive.seal_copies`.
        sha256: The digest of that file.
    """

    trail: str
    size: int
    root: str
    path: str
    sha256: str


class CommitInfo(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """The author of a commit and its operation.

    *id* is unique, so that a writer recognizes its commit after a lost answer. *sha256* is the digest of the commit before it
    and of this one without this member.
    """

    timestamp: int = 0
    operation: str = ""
    engine_info: str = ""
    id: str = ""
    audit: Coverage | None = None
    seal: SealCopy | None = None
    sha256: str = ""


class DataFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A Parquet file of an archive: events of one trail and one UTC day, in the order of commit.

    Attributes:
        path: The path in the archive.
        date: The day, as text.
        size: Its size in bytes.
        rows: The number of events.
        trail: The trail, ``host:path``.
        numbers: The numbers of the events in their trail, which may leave some out.
        times: Their timestamps, in microseconds since 1970.
        order: Their places in the order of the archive: the greatest timestamp of the trail up to each event.
        ids: The least and the greatest event id.
        promoted: The promoted columns that it has.
        sha256: The digest of the file.
    """

    path: str
    date: str
    size: int
    rows: int
    trail: str
    numbers: Range
    times: Range
    order: Range
    ids: tuple[str, str]
    promoted: frozenset[str] = frozenset()
    sha256: str

    def add(self, now: dt.datetime, *, data_change: bool = True) -> Action:
        """Return the action that adds this file to the table."""
        tags = {
            "audit.trail": self.trail,
            "audit.n": _range_text(self.numbers),
            "audit.us": _range_text(self.times),
            "audit.at": _range_text(self.order),
            "audit.ids": msgspec.json.encode(self.ids).decode(),
            "audit.md": ",".join(sorted(self.promoted)),
            "audit.sha256": self.sha256,
        }
        add = Add(
            path=self.path,
            partition_values={"date": self.date},
            size=self.size,
            modification_time=milliseconds(now),
            data_change=data_change,
            # Other readers take a column without bounds, beside one with them, for one that has no values.
            stats=msgspec.json.encode(_Stats(self.rows)).decode(),
            tags=tags,
        )
        return Action(add=add)


class Action(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, gc=False):
    """A line of a commit, or a row of a checkpoint: one member is given.

    The last four members are those of a checkpoint: what it covers of a segment, a data file in a form that is fast to read,
    the copy of a seal, and the digest of its last commit.
    """

    commit_info: CommitInfo | None = None
    protocol: Protocol | None = None
    meta_data: MetaData | None = None
    txn: Txn | None = None
    add: Add | None = None
    remove: Remove | None = None
    covered: list[Coverage] | None = None
    file: DataFile | None = None
    seal: SealCopy | None = None
    digest: str | None = None


class _Stats(msgspec.Struct, rename="camel"):
    num_records: int


_decode_stats = msgspec.json.Decoder(_Stats).decode
_decode_ids = msgspec.json.Decoder(tuple[str, str]).decode
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)", re.ASCII)


def data_file_of(add: Add, where: str) -> DataFile:
    """Return the data file that *add* describes.

    Raises:
        AuditReadError: Another program added it.
    """
    tags = add.tags or {}
    try:
        stats = _decode_stats(add.stats or "")
        return DataFile(
            path=add.path,
            date=add.partition_values["date"] or "",
            size=add.size,
            rows=stats.num_records,
            trail=tags["audit.trail"],
            numbers=_parse_range(tags["audit.n"]),
            times=_parse_range(tags["audit.us"]),
            order=_parse_range(tags["audit.at"]),
            ids=_decode_ids(tags["audit.ids"]),
            promoted=frozenset(filter(None, tags["audit.md"].split(","))),
            sha256=tags["audit.sha256"],
        )
    except (KeyError, ValueError, msgspec.MsgspecError) as error:
        raise AuditReadError(
            f"{where}: expected only files of structlog-audit, got {add.path!r} of another program; restore the table to "
            "the version before it"
        ) from error


def milliseconds(time: dt.datetime) -> int:
    """Return *time* in milliseconds since 1970."""
    return int(time.timestamp() * 1_000)


def schema_string(columns: Sequence[tuple[str, str]]) -> str:
    """Return Delta's schema of *columns*, pairs of a name and a type of Delta; ``[string]`` is a list of texts."""
    fields = []
    for name, kind in columns:
        type_: object = kind
        if kind.startswith("["):
            type_ = {"type": "array", "elementType": kind.strip("[]"), "containsNull": True}
        fields.append({"name": name, "type": type_, "nullable": True, "metadata": {}})
    return msgspec.json.encode({"type": "struct", "fields": fields}).decode()


def _range_text(bounds: Range) -> str:
    return f"{bounds[0]}..{bounds[1]}"


def _parse_range(text: str) -> Range:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]), int(match[2])
