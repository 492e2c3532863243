"""`open_archive`, the entry point for reading archives, alone or together with live trails."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from structlog_audit._validation import is_url, require_callable, require_integer, require_path
from structlog_audit.archive.storage import Storage, open_storage
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.engine import SharedProgress

if TYPE_CHECKING:
    from structlog_audit.archive.database import Database
    from structlog_audit.archive.delta_log import DeltaLog
    from structlog_audit.archive.reader import ArchiveReader
    from structlog_audit.archive.sql_engine import SQLDatabase
    from structlog_audit.redaction.vault import SubjectVault

_SPARK = re.compile(r"sc://[^/].*|spark://[^/]+:\d+|local(\[(\d+|\*)\])?")
"""The engines of Spark by name."""

_MOST_THREADS = 1_024
"""DuckDB starts the threads at once: a larger number only exhausts the machine."""

LOG_FOLDER = "_delta_log"
"""The folder by which an archive is recognized."""

_ONE_BY_ONE = "the folder or the URL of an archive, and several as open_archive('a', 'b')"

Source = str | os.PathLike[str] | BinaryIO


def open_archive(
    path: str | os.PathLike[str],
    *others: str | os.PathLike[str],
    live: Source | Iterable[Source] = (),
    host: str | None = None,
    engine: Any = "duckdb",
    memory_limit: str = "256MB",
    threads: int | None = None,
    storage_options: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
    vault: str | os.PathLike[str] | SubjectVault | None = None,
) -> ArchiveReader:
    """Return a reader that answers queries from archives, and from live trails beyond them.

    Args:
        path, others: The archives: folders, or URLs such as ``s3://bucket/audit``. A segment that several have is read once.
        live: The trails that are being written, each as for `structlog_audit.open_trail`. What an archive has of them is read
            from there.
        host: The name under which `compact` archives the live trails; by default that of the system.
        engine: The reader of the data files: ``duckdb``, in this process; Spark as ``sc://host:15002`` (a Connect server),
            ``spark://host:7077`` (a standalone cluster) or ``local[2]`` (a Java process with two threads); or an existing
            ``SparkSession``. What Spark needs to see is in the guide.
        memory_limit: The memory for queries, the answer not included; Spark has its own settings. Larger queries spill to the
            folder for temporary files (``TMPDIR``).
        threads: The number of DuckDB's threads; None means one for each processor of this process.
        storage_options: Parameters of fsspec's file system, for URLs.
        progress: Called with the number of bytes read so far for the current query.
        vault: The vault of the application's redactor, or its path, as for `structlog_audit.open_trail`.

    Raises:
        AuditReadError: There is no archive at a path, it is damaged or of a newer version, the extra ``archive`` is missing,
            there is no trail at one of *live*, or Spark cannot be reached.
        AuditTypeError: A parameter has the wrong type: several archives are parameters of their own, not a list.
        AuditValueError: The engine is unknown, *memory_limit* is not a size, *storage_options* are given for a folder, or a
            text is empty.
    """
    names = [require_path("path", name, _ONE_BY_ONE) for name in (path, *others)]
    require_engine(engine)
    host = require_host(host)
    if threads is not None:
        require_integer("threads", threads, least=1, most=_MOST_THREADS)
    if progress is not None:
        require_callable("progress", progress, "a function of a number of bytes")

    from structlog_audit.archive.database import Database, DuckDB, limit_within
    from structlog_audit.archive.delta_log import DeltaLog
    from structlog_audit.archive.reader import Archive, ArchiveReader
    from structlog_audit.archive.sql_engine import SQLEngine
    from structlog_audit.trail.reading.discovery import find_trails
    from structlog_audit.trail.reading.opening import opened_vault
    from structlog_audit.trail.reading.reader import TrailReader
    from structlog_audit.trail.reading.scan_engine import ScanEngine
    from structlog_audit.trail.reading.segment_scanner import SegmentScanner

    scanner = SegmentScanner()
    trails = find_trails(_sources(live), scanner.problems)
    shared = None if progress is None else SharedProgress(progress)
    archives = []
    limit = limit_within(memory_limit)
    instances: list[DuckDB] = []
    for name in dict.fromkeys(names):
        storage = open_storage(name, storage_options)
        duckdb = next((instance for instance in instances if instance.reserve(storage)), None)
        if duckdb is None:
            duckdb = DuckDB(limit, threads)
            duckdb.reserve(storage)
            instances.append(duckdb)
        database = Database(storage, duckdb)
        log = DeltaLog(storage, database.connect)
        log.require()
        source = _source_database(engine, storage, database)
        engine_of_files = SQLEngine(source, None if shared is None else shared.part())
        archives.append(Archive(log, database, source, engine_of_files))

    used_vault = opened_vault(vault)
    reader = TrailReader(trails, ScanEngine(trails, scanner), scanner, used_vault)
    return ArchiveReader(archives, reader, trails, scanner, host, used_vault)


def require_host(host: Any) -> str:
    """Return the name of this host in archives, which is that of the system if *host* is None.

    Raises:
        AuditTypeError: It is not a text.
        AuditValueError: It is empty.
    """
    if host is None:
        return os.uname().nodename

    if not isinstance(host, str):
        raise AuditTypeError(f"host={host!r}: expected the name of a host, got {type(host).__name__}")
    if not host:
        raise AuditValueError(f"host={host!r}: expected the name of a host, got an empty text")

    return host


def _sources(live: Any) -> list[Source]:
    """Return the trails that the parameter *live* names: one, or several.

    Raises:
        AuditTypeError: It names none.
    """
    if isinstance(live, (str, bytes, os.PathLike)) or hasattr(live, "read"):
        return [cast(Source, live)]

    try:
        return list(live)
    except TypeError:
        expected = "a path, a file that is open for reading bytes, or several of these"
        raise AuditTypeError(f"live={live!r}: expected {expected}, got {type(live).__name__}") from None


def require_engine(engine: Any) -> None:
    """Raise `AuditTypeError` or `AuditValueError` if *engine* is not one that `open_archive` accepts."""
    expected = (
        f"engine={engine!r}: expected 'duckdb', Spark as 'sc://host:15002', 'spark://host:7077' or 'local[2]', "
        "or a SparkSession"
    )
    if isinstance(engine, str):
        if engine != "duckdb" and not _SPARK.fullmatch(engine):
            raise AuditValueError(expected)
    elif not type(engine).__module__.startswith("pyspark.sql."):
        raise AuditTypeError(f"{expected}, got {type(engine).__name__}")


def _source_database(engine: Any, storage: Storage, database: Database) -> SQLDatabase:
    """Return the connection that answers queries; *database* reads the catalogue in any case."""
    if engine == "duckdb":
        return database
    from structlog_audit.archive.spark_engine import SparkDatabase

    return SparkDatabase(storage, engine, database)


@contextmanager
def opened_log(
    path: str | os.PathLike[str], storage_options: dict[str, Any] | None
) -> Iterator[tuple[DeltaLog, Database]]:
    """Open the log of an existing archive, and a connection to DuckDB, for the duration of a ``with`` block.

    Raises:
        AuditReadError: As `open_archive`.
    """
    from structlog_audit.archive.database import Database
    from structlog_audit.archive.delta_log import DeltaLog

    storage = open_storage(path, storage_options)
    database = Database(storage)
    try:
        database.connect()
        log = DeltaLog(storage, database.connect)
        log.require()
        yield log, database
    finally:
        database.close()


def is_archive(path: Any) -> bool:
    """Return whether *path* names an archive, or any URL, rather than a trail of files."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    text = os.fsdecode(path)
    return is_url(text) or os.path.isdir(os.path.join(text, LOG_FOLDER))
