"""Connections to Spark, which reads the data files of an archive on a cluster, or in a Java process of this host.

**Guarantees.** Spark gets the files that the catalogue names, and their schema: it lists no folder, and needs no package for
Delta tables. Values are bound, and times are exchanged as integers, so that the settings of a session change no answer.

**Failure handling.** An error of Spark becomes an `AuditReadError` with the remedy. A server that does not answer is given up
after some seconds.

**Performance.** Over Connect (``sc://``) a session takes a second and no Java; ``spark://`` and ``local[N]`` start a Java
process.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from structlog_audit.archive.dialects import SPARK, Dialect
from structlog_audit.archive.rows import COLUMNS
from structlog_audit.archive.sql_engine import Files, UndecidedError
from structlog_audit.archive.storage import LocalStorage, Storage
from structlog_audit.exceptions import AuditReadError

if TYPE_CHECKING:
    from structlog_audit.archive.database import Database

_RETRIES = 4
"""How often a request to a Connect server is repeated, over about five seconds."""

_CONNECT_SECONDS = 5.0

_LEAST_VERSION = 4
"""The first version with values of type variant."""

_SQL_TYPES = {
    "string": "STRING",
    "timestamp": "TIMESTAMP",
    "[string]": "ARRAY<STRING>",
    "double": "DOUBLE",
    "long": "BIGINT",
    "binary": "BINARY",
}
"""The types of columns in Spark, by those of Delta."""

_READ_OPTIONS = {
    # The day in a path is not a column of a query.
    "recursiveFileLookup": "true",
    # A missing file is an error, whatever the session says.
    "ignoreMissingFiles": "false",
    "ignoreCorruptFiles": "false",
    "datetimeRebaseMode": "CORRECTED",
}

_SESSION_OPTIONS: dict[str, bool | float | int | str | None] = {
    "spark.app.name": "structlog-audit",
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}

_HINTS = {
    r"S3AFileSystem|No FileSystem for scheme|UNSUPPORTED_FILE_SYSTEM": (
        "Spark reads a bucket with its own file system, not with storage_options: start the server with --packages "
        "org.apache.hadoop:hadoop-aws:<version of Hadoop> (without a server: spark.jars.packages in spark-defaults.conf) and "
        "set spark.hadoop.fs.s3a.endpoint, .access.key and .secret.key"
    ),
    r"PATH_NOT_FOUND|FILE_NOT_EXIST|FileNotFoundException": (
        "driver and workers must find the archive at the same path, or in a bucket; structlog-audit archive verify shows "
        "what is missing"
    ),
    r"UNAVAILABLE|failed to connect|Connection refused|RETRIES_EXCEEDED": "is the Spark Connect server running there?",
}
"""The remedies by a part of the text of an error."""

_NOT_DECIDED = re.compile("MALFORMED_RECORD_IN_PARSING|VARIANT_")
_GLOB = re.compile(r"([\[\]{}*?,\\])")


class SparkDatabase:
    """A session of Spark for the files of one archive. As `SQLDatabase`.

    Args:
        storage: The files of the archive.
        engine: ``sc://host:port``, ``spark://host:port``, ``local``, ``local[N]``, or a session.
        catalogue: The connection that reads the checkpoints of the log; closed with this one.
    """

    def __init__(self, storage: Storage, engine: Any, catalogue: Database) -> None:
        self._storage = storage
        self._catalogue = catalogue
        self._errors: tuple[type[Exception], ...] = ()
        self._session = self._opened(engine)
        self._release: Callable[[], object] | None = None
        if isinstance(engine, str) and engine.startswith("sc://"):
            # A reader need not be closed: the server forgets its session at the end of this process.
            self._release = weakref.finalize(self, _release, self._session)
        elif isinstance(engine, str):
            _applications.add(self)

    def _opened(self, engine: Any) -> Any:
        try:
            self._errors = _spark_errors()

            if not isinstance(engine, str):
                return engine

            # PySpark warns of new versions of pandas, which is not used, and of retries that end in an error anyway.
            with self._explained(engine), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _connected(engine) if engine.startswith("sc://") else _started(engine)
        except ImportError as error:
            raise AuditReadError(
                f"engine={engine!r} needs PySpark: pip install 'structlog-audit[spark]' ({error})"
            ) from error

    @property
    def dialect(self) -> Dialect:
        """As `SQLDatabase.dialect`."""
        return SPARK

    @property
    def memory(self) -> int | None:
        """As `SQLDatabase.memory`. The cluster has its own settings."""
        return None

    def query(self, sql: str, parameters: Mapping[str, Any], tables: Mapping[str, Files]) -> Iterator[tuple[Any, ...]]:
        """As `SQLDatabase.query`.

        Raises:
            UndecidedError: Before the first row, if Spark cannot parse the metadata of a row.
        """
        with self._explained(self._storage.root):
            frames = {name: self._frame(files) for name, files in tables.items()}

            found = self._session.sql(sql, args=dict(parameters), **frames)
            yield from _rows_of(found)

    def _frame(self, files: Files) -> Any:
        columns = [(name, _SQL_TYPES[kind]) for name, kind in COLUMNS]
        columns += [(name, "STRING") for name in sorted(files.promoted)]
        schema = ", ".join(f"`{name}` {kind}" for name, kind in columns)

        reader = self._session.read.schema(schema).options(**_READ_OPTIONS)
        return reader.parquet(*map(self._location, files.paths))

    def _location(self, path: str) -> str:
        """Return the URL under which Spark opens the file at *path*. Spark takes it for a pattern."""
        location = self._storage.location(path)
        if isinstance(self._storage, LocalStorage):
            location = "file://" + os.path.abspath(location)
        # The file system that Hadoop has for buckets of S3.
        elif location.startswith("s3://"):
            location = "s3a" + location.removeprefix("s3")
        return _GLOB.sub(r"\\\1", location)

    @contextmanager
    def _explained(self, where: str) -> Iterator[None]:
        """Turn an error of Spark into an `AuditReadError` with a remedy."""
        try:
            yield
        except ImportError:
            raise
        except self._errors as error:
            text = str(error)
            # The first pattern that fits has the most specific remedy.
            hints = [hint for pattern, hint in _HINTS.items() if re.search(pattern, text)]
            hint = hints[0] if hints else "structlog-audit archive verify shows what is damaged"

            kind = UndecidedError if _NOT_DECIDED.search(text) else AuditReadError
            raise kind(f"{where}: {_reason(text)}; {hint}") from error

    def close(self) -> None:
        """Close a session that was opened by its address, and the connection to the catalogue.

        A Java process is shared by the readers of this process, and ends with the last one.
        """
        self._catalogue.close()
        if self._release is not None:
            self._release()

        if self not in _applications:
            return

        _applications.discard(self)
        if not any(other._session is self._session for other in _applications):
            self._session.stop()


_applications: weakref.WeakSet[SparkDatabase] = weakref.WeakSet()
"""The open connections to an application that this module started."""


def _release(session: Any) -> None:
    if not session.is_stopped:
        session.stop()


def _rows_of(frame: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query, a partition at a time."""
    # Spark 4.3 keeps each job of a DataFrame's iterator, half a megabyte of the driver, until the application ends; those of an
    # RDD it forgets. Connect has no RDD.
    is_remote = type(frame).__module__.startswith("pyspark.sql.connect.")
    rows = frame if is_remote else frame.rdd
    yield from rows.toLocalIterator()


def _spark_errors() -> tuple[type[Exception], ...]:
    """Return the errors that PySpark raises.

    Raises:
        AuditReadError: PySpark is older than the JSON functions that are needed.
    """
    import pyspark
    from pyspark.errors import PySparkException

    # pyspark and pyspark-client, either of which may be installed, have one version here.
    if int(pyspark.__version__.partition(".")[0]) < _LEAST_VERSION:
        raise AuditReadError(
            f"expected PySpark {_LEAST_VERSION} or newer, got {pyspark.__version__}: pip install --upgrade "
            "'structlog-audit[spark]'"
        )

    try:
        from py4j.protocol import Py4JError
    except ImportError:
        # The client of Connect has no Java.
        return PySparkException, OSError
    return PySparkException, Py4JError, OSError


def _reason(text: str) -> str:
    """Return the line of Spark's error that says what happened."""
    details = re.search(r'details = "(.+)"', text)
    if details is not None:
        return details[1]

    # Java's errors come wrapped in those of py4j.
    lines = [line.strip(": ") for line in text.splitlines() if line.strip(": ")]
    is_wrapped = len(lines) > 1 and lines[0].startswith("An error occurred while calling")
    return lines[is_wrapped] if lines else "Spark failed"


def _connected(url: str) -> Any:
    """Return a session of the Connect server at *url*."""
    from pyspark.sql.connect.client.retries import DefaultPolicy
    from pyspark.sql.connect.session import SparkSession

    # Not by the builder, which would make it the default session of the application.
    session = SparkSession(connection=url)
    session.client.set_retry_policies([DefaultPolicy(max_retries=_RETRIES)])
    try:
        session.conf.set("spark.sql.session.timeZone", "UTC")
    except BaseException:
        # Otherwise the client tries to reach the server again when this process ends.
        session.client.close()
        raise
    return session


def _started(master: str) -> Any:
    """Return the session of an application on *master*, which is started unless this process has it already."""
    from pyspark.util import is_remote_only

    if is_remote_only():
        raise AuditReadError(
            f"engine={master!r} needs Spark itself, not only its client: pip uninstall pyspark-client; pip install pyspark; "
            "or use engine='sc://host:15002'"
        )

    _require_java(master)
    _require_reachable(master)

    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    running = SparkContext._active_spark_context
    if running is not None and running.master != master:
        raise AuditReadError(
            f"engine={master!r}: this process has a Spark application on {running.master!r} already: pass its SparkSession"
        )

    options = dict(_SESSION_OPTIONS)
    # Of a cluster, the warning that it has no free workers is worth its noise.
    if master.startswith("local"):
        options["spark.log.level"] = "ERROR"
    builder = SparkSession.builder.master(master)
    return builder.config(map=options).getOrCreate()


def _require_java(master: str) -> None:
    home = os.environ.get("JAVA_HOME")
    command = "java" if home is None else os.path.join(home, "bin", "java")

    if shutil.which(command) is None:
        raise AuditReadError(
            f"engine={master!r} needs Java 17 or newer, and there is no {command!r}: install it, as by apt-get install "
            "default-jre-headless, or use engine='sc://host:15002', which needs none"
        )


def _require_reachable(master: str) -> None:
    """Raise `AuditReadError` if no master of ``spark://host:port,…`` accepts a connection; Spark would wait for a minute."""
    _, is_cluster, addresses = master.partition("spark://")
    if not is_cluster:
        return

    reasons = []
    for address in addresses.split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            reasons.append(f"{address}: {error}")
        else:
            return

    raise AuditReadError(f"engine={master!r}: expected a running master, got {'; '.join(reasons)}")
