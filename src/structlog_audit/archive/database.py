"""Connections to DuckDB with bounded memory, and the SQL of data files.

**Performance.** DuckDB gets `MEMORY_LIMIT`, the processors of this process, and a folder to spill to, which is deleted with the
connection. Rows are fetched `FETCHED` at a time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from structlog_audit._version import check_versions
from structlog_audit.archive.dialects import DUCKDB, Dialect
from structlog_audit.archive.storage import ObjectStorage, Storage, access_denied
from structlog_audit.exceptions import AuditReadError, AuditTypeError, AuditValueError, AuditWriteError

if TYPE_CHECKING:
    import duckdb

    from structlog_audit.archive.sql_engine import Files

MEMORY_LIMIT = "256MB"
_OUTSIDE = 80_000_000
"""The bytes that a process needs for a query beyond DuckDB's limit: files and rows under way, and the code."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?) *([kmgt]?)(i?)b", re.ASCII | re.IGNORECASE)
_SHARE = re.compile(r"[1-9]\d?%|100%", re.ASCII)
_PARAMETER = re.compile(r"\$(\w+)", re.ASCII)
_NAMED_FILE = re.compile('"(.+)"')
_MOST_BYTES = 2**62
"""DuckDB counts bytes in 64 bits, and takes the largest number for none."""

FETCHED = 2_000
_READ_BYTES = 1_048_576
_QUIET = "SET enable_progress_bar = false"
"""DuckDB prints a bar on stdout where it takes the program for an interactive one, such as ``python -c``; set per cursor."""

_OBJECT_SIZE = 16_777_216
"""DuckDB's default for the longest line of JSON."""

ROW_GROUP_SIZE = 30_720
"""Rows per row group. In larger groups, looking up one event or user reads more; smaller ones compress less."""


class DuckDB:
    """DuckDB in this process. Several archives that are read together share its memory, its threads and its folder.

    Args:
        memory_limit: The limit of its memory, as DuckDB writes it.
        threads: The number of threads; None means one for each processor of this process.
    """

    def __init__(self, memory_limit: str = MEMORY_LIMIT, threads: int | None = None) -> None:
        self.memory_limit = memory_limit
        self._threads = threads
        self._connection: duckdb.DuckDBPyConnection | None = None
        # By class, the file system that it has or will have, and whether it has it already.
        self._filesystems: dict[type, Any] = {}
        self._registered: set[type] = set()

    def reserve(self, storage: Storage) -> bool:
        """Return whether it can read *storage*, too. It has one file system of each class, such as that of one host."""
        if not isinstance(storage, ObjectStorage):
            return True
        filesystem = storage.filesystem
        return self._filesystems.setdefault(type(filesystem), filesystem) is filesystem

    def connect(self, storage: Storage) -> duckdb.DuckDBPyConnection:
        """Return the connection, which the first call opens, with access to the files of *storage*.

        Raises:
            AuditReadError: The extra ``archive`` is not installed.
        """
        connection = self._connection or self._open()
        if isinstance(storage, ObjectStorage) and type(storage.filesystem) not in self._registered:
            connection.register_filesystem(storage.filesystem)
            self._registered.add(type(storage.filesystem))
        return connection

    def _open(self) -> duckdb.DuckDBPyConnection:
        check_versions("archive")
        try:
            import duckdb
        except ImportError:
            raise AuditReadError("archives need duckdb: pip install 'structlog-audit[archive]'") from None

        spill = tempfile.mkdtemp(prefix="structlog-audit-")
        # A reader need not be closed: its folder goes with it.
        self._delete_spill = weakref.finalize(self, shutil.rmtree, spill, ignore_errors=True)
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.memory_limit,
            "threads": self._threads or _processors(),
            "temp_directory": spill,
            # Everything that is needed is built in: nothing is fetched from the network.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._connection = duckdb.connect(":memory:", config=config)
        self._connection.execute(_QUIET)
        return self._connection

    def close(self) -> None:
        """Close the connection and delete its folder. Another call does nothing."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._registered.clear()
            self._delete_spill()


class Database:
    """The files of one archive in DuckDB.

    Args:
        storage: The files of the archive.
        duckdb: What reads them; None means one for this archive alone.
    """

    def __init__(self, storage: Storage, duckdb: DuckDB | None = None) -> None:
        self._storage = storage
        self._duckdb = duckdb or DuckDB()

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return the connection. As `DuckDB.connect`."""
        return self._duckdb.connect(self._storage)

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query. Several queries may be under way at once.

        Raises:
            AuditReadError: A file of the archive is missing or damaged, or the query does not fit into memory and disk.
        """
        # The connection comes first: it says what to install.
        cursor = self.connect().cursor()

        import duckdb

        try:
            cursor.execute(_QUIET)
            # DuckDB refuses a parameter that the SQL does not have.
            used = frozenset(_PARAMETER.findall(sql))
            cursor.execute(sql, {name: value for name, value in (parameters or {}).items() if name in used})
            while fetched := cursor.fetchmany(FETCHED):
                yield from fetched
        except duckdb.Error as error:
            require_readable(error)
            reason = str(error).splitlines()[0]
            advice = "structlog-audit archive verify shows what is damaged"
            if isinstance(error, duckdb.OutOfMemoryException):
                advice = f"raise memory_limit of open_archive, or select less (DuckDB has {self._duckdb.memory_limit})"
            raise AuditReadError(f"{self._storage.root}: {reason}; {advice}") from error
        finally:
            cursor.close()

    @property
    def dialect(self) -> Dialect:
        """As `SQLDatabase.dialect`."""
        return DUCKDB

    @property
    def memory(self) -> int | None:
        """As `SQLDatabase.memory`."""
        ((text,),) = self.rows("SELECT current_setting('memory_limit')")
        size = _SIZE.fullmatch(text)

        return None if size is None else int(_bytes_in(size))

    def query(self, sql: str, parameters: Mapping[str, Any], tables: Mapping[str, Files]) -> Iterator[tuple[Any, ...]]:
        """As `SQLDatabase.query`."""
        locations = {name: map(self._storage.location, files.paths) for name, files in tables.items()}
        named = {name: parquet(files) for name, files in locations.items()}
        return self.rows(sql.format(**named), parameters)

    def close(self) -> None:
        """Close the connection, also for other archives that share it, and delete its folder."""
        self._duckdb.close()


def limit_within(memory: str) -> str:
    """Return the limit for DuckDB with which a process that queries stays near *memory*; sizes are written as for DuckDB.

    Raises:
        AuditTypeError, AuditValueError: *memory* is not a size.
    """
    expected = f"memory_limit={memory!r}: expected a size such as '256MB', or a share of the memory such as '50%'"
    if not isinstance(memory, str):
        raise AuditTypeError(f"{expected}, got {type(memory).__name__}")

    if _SHARE.fullmatch(memory):
        return memory

    size = _SIZE.fullmatch(memory)
    if size is None:
        raise AuditValueError(expected)

    total = _bytes_in(size)
    if total >= _MOST_BYTES:
        raise AuditValueError(expected)
    least = total / 2

    return f"{max(total - _OUTSIDE, least) / 1_000:.0f}KB"


def _bytes_in(size: re.Match[str]) -> float:
    """Return the bytes that a match of `_SIZE` states."""
    base = 1_024 if size[3] else 1_000

    exponent = " kmgt".index(size[2].lower() or " ")
    return float(size[1]) * float(base**exponent)


def require_readable(error: Exception) -> None:
    """Raise `AuditReadError` if *error* of DuckDB names a file that may not be read: of such a folder it finds no files."""
    named = _NAMED_FILE.search(str(error))
    if named is None:
        return

    try:
        os.stat(named[1])
        is_refused = not os.access(named[1], os.R_OK)
    except PermissionError:
        is_refused = True
    except (OSError, ValueError):
        return

    if is_refused:
        raise access_denied(named[1]) from PermissionError(named[1])


def _processors() -> int:
    # Only Linux has an affinity.
    affinity = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def parquet(locations: Iterable[str]) -> str:
    """Return the table function that reads the data files at *locations*, in their order."""
    names = ", ".join(map(quoted, locations))
    return f"read_parquet([{names}], hive_partitioning=false)"


def json_lines(path: str, columns: str, longest: int) -> str:
    """Return the table function that reads the lines of JSON in the local file at *path*.

    Args:
        path: The file.
        columns: The columns with their types, as SQL.
        longest: The bytes of the longest line. DuckDB allocates a multiple of it for each thread.
    """
    size = max(_OBJECT_SIZE, longest)
    return f"read_json({quoted(path)}, format='newline_delimited', columns={columns}, maximum_object_size={size})"


def quoted(text: str) -> str:
    """Return *text* as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return *name* as a quoted identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def file_digest(file: str | BinaryIO) -> str:
    """Return the SHA-256 of a file, a path or one that is open for reading bytes."""
    if isinstance(file, str):
        with open(file, "rb") as opened:
            return file_digest(opened)
    digest = hashlib.sha256()
    while data := file.read(_READ_BYTES):
        digest.update(data)
    return digest.hexdigest()


def write_parquet(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    selected: str,
    target: str,
    parameters: Mapping[str, Any],
    *,
    outcome: str = "nothing was committed",
) -> None:
    """Write the columns *selected* from the table function *source* to the local file *target*, in their order.

    *outcome* is the end of the message of an error: what that means for the archive.

    Raises:
        AuditReadError: A file of *source* may not be read.
        AuditWriteError: The disk is full, or a row does not fit into memory.
    """
    import duckdb

    sql = (
        f"COPY (SELECT {selected} FROM {source}) TO {quoted(target)} "
        f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_SIZE})"
    )
    try:
        connection.execute(sql, dict(parameters))
    except duckdb.Error as error:
        require_readable(error)
        raise AuditWriteError(f"{target}: {str(error).splitlines()[0]}; {outcome}") from error
