"""The files of an archive: in a folder of this host, or below a prefix of an object store (fsspec).

**Guarantees.** `Storage.create` makes a file that did not exist, complete or not at all: of several writers one succeeds, and
the others get `FileExistsError`. A file that `create`, `replace` or `upload` made is durable when the call returns.

**Failure handling.** Errors of the system are `OSError`. Whatever a store raises beside those becomes an `AuditReadError` or
an `AuditWriteError` that names the path. Stores that cannot create exclusively are refused before anything is written.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, NamedTuple, Protocol

from structlog_audit._validation import is_url, require_path
from structlog_audit._version import check_versions
from structlog_audit.exceptions import AuditError, AuditReadError, AuditTypeError, AuditValueError, AuditWriteError
from structlog_audit.trail.writing.filesystem import create_folders, sync_folder

UNFINISHED_SUFFIX = ".unfinished"
"""The end of the names of files that are still being written."""


class StoredFile(NamedTuple):
    """A file of an archive: its path in the archive, its size in bytes, and when it was last changed, in UTC."""

    path: str
    size: int
    modified: dt.datetime


class Storage(Protocol):
    """The files of one archive. Paths are relative to it, with slashes."""

    root: str
    """The archive as it was named."""

    @property
    def is_lasting(self) -> bool:
        """Whether files are there after the end of this process."""
        ...

    def location(self, path: str) -> str:
        """Return the name under which DuckDB opens the file at *path*."""
        ...

    def read(self, path: str) -> bytes:
        """Return the content of a file, or raise `FileNotFoundError`."""
        ...

    def read_existing(self, paths: Sequence[str]) -> list[bytes | None]:
        """Return the content of each of *paths*; None for a file that does not exist."""
        ...

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading, or raise `FileNotFoundError`."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write a file that must not exist yet, or raise `FileExistsError`."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Write a file, in place of an existing one at once."""
        ...

    def upload(self, source: str, path: str) -> None:
        """Copy the local file *source* to *path*, a name that no other file ever has."""
        ...

    def delete(self, path: str) -> None:
        """Delete a file; a missing one is ignored."""
        ...

    def files(self, folder: str) -> Iterator[StoredFile]:
        """Yield the files below *folder*, or nothing if there is no such folder."""
        ...

    def require_usable(self) -> None:
        """Raise `AuditWriteError` if there can be no archive here, or `create` replaces existing files."""
        ...


class LocalStorage:
    """An archive in a folder of this host. As `Storage`."""

    def __init__(self, root: str) -> None:
        self.root = root

    @property
    def is_lasting(self) -> bool:
        """As `Storage.is_lasting`."""
        return True

    def location(self, path: str) -> str:
        """As `Storage.location`."""
        return os.path.join(self.root, path)

    def read(self, path: str) -> bytes:
        """As `Storage.read`."""
        with self.open(path) as file:
            return file.read()

    def read_existing(self, paths: Sequence[str]) -> list[bytes | None]:
        """As `Storage.read_existing`."""
        contents: list[bytes | None] = []
        for path in paths:
            try:
                contents.append(self.read(path))
            except (FileNotFoundError, NotADirectoryError):
                contents.append(None)
        return contents

    def open(self, path: str) -> BinaryIO:
        """As `Storage.open`."""
        location = self.location(path)
        try:
            return open(location, "rb")
        except PermissionError as error:
            raise access_denied(location) from error

    def create(self, path: str, data: bytes) -> None:
        """As `Storage.create`. The name appears by a link to the complete file, which replaces nothing."""
        target = self.location(path)
        with self._unfinished(target) as unfinished:
            _write(unfinished, data)
            os.link(unfinished, target)
            sync_folder(os.path.dirname(target))

    def replace(self, path: str, data: bytes) -> None:
        """As `Storage.replace`."""
        target = self.location(path)
        with self._unfinished(target) as unfinished:
            _write(unfinished, data)
            os.replace(unfinished, target)
            sync_folder(os.path.dirname(target))

    def upload(self, source: str, path: str) -> None:
        """As `Storage.upload`."""
        target = self.location(path)
        with self._unfinished(target) as unfinished:
            with open(source, "rb") as file, open(unfinished, "wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
                copy.flush()
                os.fsync(copy.fileno())
            os.replace(unfinished, target)
            sync_folder(os.path.dirname(target))

    def delete(self, path: str) -> None:
        """As `Storage.delete`."""
        with suppress(FileNotFoundError):
            os.unlink(self.location(path))

    def files(self, folder: str) -> Iterator[StoredFile]:
        """As `Storage.files`."""

        def refuse(error: OSError) -> None:
            # Files in a folder that may not be read are not those that do not exist.
            if isinstance(error, PermissionError):
                raise access_denied(error.filename) from error
            if not isinstance(error, FileNotFoundError):
                raise error

        for parent, _, names in os.walk(self.location(folder), onerror=refuse):
            for name in names:
                path = os.path.join(parent, name)
                with suppress(FileNotFoundError):
                    status = os.stat(path)
                    modified = dt.datetime.fromtimestamp(status.st_mtime, dt.UTC)
                    yield StoredFile(os.path.relpath(path, self.root), status.st_size, modified)

    def require_usable(self) -> None:
        """As `Storage.require_usable`. A file system without links fails at the first commit, with nothing committed."""
        require_folder(self.root)

    @contextmanager
    def _unfinished(self, target: str) -> Iterator[str]:
        """Provide a name beside *target*, which is free again afterwards.

        An error of the system that names no file, such as that of a full disk, names *target*.
        """
        folder = os.path.dirname(target)
        # The trail is its owner's alone, and so is a new archive: who may enter the folder of an existing one may read it.
        for entered in create_folders(os.path.realpath(self.root)):
            sync_folder(entered)
        _make_folder(folder)
        unfinished = os.path.join(folder, f".{secrets.token_hex(6)}{UNFINISHED_SUFFIX}")

        try:
            yield unfinished
        except OSError as error:
            if error.filename is None:
                error.filename = target
            raise
        finally:
            with suppress(FileNotFoundError):
                os.unlink(unfinished)


class ObjectStorage:
    """An archive below a prefix of an object store. As `Storage`.

    Args:
        root: A URL, such as ``s3://bucket/audit``.
        options: Parameters of the file system of fsspec.
    """

    def __init__(self, root: str, options: dict[str, Any]) -> None:
        check_versions("archive")
        try:
            import fsspec
        except ImportError:
            raise AuditReadError(f"{root!r} needs fsspec: pip install 'structlog-audit[archive]'") from None

        self.root = root
        # Listings must show what other hosts have written since.
        given = {"use_listings_cache": False, **options}
        try:
            self.filesystem, prefix = fsspec.core.url_to_fs(root, **given)
        except (ImportError, ValueError) as error:
            raise AuditReadError(f"{root!r} cannot be opened: {error}") from error
        self._prefix = prefix.rstrip("/")

    @property
    def is_lasting(self) -> bool:
        """As `Storage.is_lasting`. fsspec has a file system in memory, for tests."""
        return not self.root.startswith("memory:")

    def location(self, path: str) -> str:
        """As `Storage.location`."""
        return str(self.filesystem.unstrip_protocol(self._path(path)))

    def read(self, path: str) -> bytes:
        """As `Storage.read`."""
        with self._errors(path, AuditReadError):
            data: bytes = self.filesystem.cat_file(self._path(path))
            return data

    def read_existing(self, paths: Sequence[str]) -> list[bytes | None]:
        """As `Storage.read_existing`: all at once, since each request takes tens of milliseconds."""
        full = [self._path(path) for path in paths]
        with self._errors(paths[0], AuditReadError):
            found = self.filesystem.cat(full, on_error="return")
        contents: list[bytes | None] = []
        for path, name in zip(paths, full, strict=True):
            content = found.get(name)
            if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                with self._errors(path, AuditReadError):
                    raise content
            contents.append(content if isinstance(content, bytes) else None)
        return contents

    def open(self, path: str) -> BinaryIO:
        """As `Storage.open`."""
        with self._errors(path, AuditReadError):
            file: BinaryIO = self.filesystem.open(self._path(path), "rb")
            return file

    def create(self, path: str, data: bytes) -> None:
        """As `Storage.create`, by one conditional request."""
        with self._errors(path, AuditWriteError):
            self.filesystem.pipe_file(self._path(path), data, mode="create")

    def replace(self, path: str, data: bytes) -> None:
        """As `Storage.replace`."""
        with self._errors(path, AuditWriteError):
            self.filesystem.pipe_file(self._path(path), data)

    def upload(self, source: str, path: str) -> None:
        """As `Storage.upload`."""
        with self._errors(path, AuditWriteError):
            self.filesystem.put_file(source, self._path(path))
            stored = self.filesystem.info(self._path(path))["size"]
        expected = os.path.getsize(source)
        if stored != expected:
            raise AuditWriteError(f"{self.location(path)}: expected {expected} bytes in the store, got {stored}")

    def delete(self, path: str) -> None:
        """As `Storage.delete`."""
        with self._errors(path, AuditWriteError), suppress(FileNotFoundError):
            self.filesystem.rm_file(self._path(path))

    def files(self, folder: str) -> Iterator[StoredFile]:
        """As `Storage.files`."""
        with self._errors(folder, AuditReadError), suppress(FileNotFoundError):
            self.filesystem.invalidate_cache()
            found = self.filesystem.find(self._path(folder), detail=True)
            for name, details in found.items():
                modified = details.get("LastModified") or details.get("last_modified") or details.get("created")
                if not isinstance(modified, dt.datetime):
                    # Of unknown age: never old enough to be deleted.
                    modified = dt.datetime.now(dt.UTC)
                path = name.removeprefix(self._prefix).lstrip("/")
                yield StoredFile(path, details["size"], modified)

    def require_usable(self) -> None:
        """As `Storage.require_usable`: creates a file twice, and deletes it."""
        path = f"_delta_log/_probe-{secrets.token_hex(6)}"
        self.create(path, b"1")
        try:
            self.create(path, b"2")
        except FileExistsError:
            return
        finally:
            self.delete(path)
        raise AuditWriteError(
            f"{self.root!r}: expected a store that creates objects only if they do not exist, such as S3 or Google Cloud "
            "Storage; this one replaces them, so two hosts could overwrite each other's commits"
        )

    def _path(self, path: str) -> str:
        return f"{self._prefix}/{path}"

    @contextmanager
    def _errors(self, path: str, kind: type[AuditError]) -> Iterator[None]:
        """Turn errors into *kind*, with the path, but for those that state whether a file exists."""
        expected = FileNotFoundError if kind is AuditReadError else FileExistsError
        try:
            yield
        except (expected, AuditError):
            raise
        except Exception as error:
            # The clients of stores have errors of their own, and those of the system come without a path.
            raise kind(f"{self.location(path)}: {type(error).__name__}: {error}") from error


def open_storage(
    root: str | os.PathLike[str], options: dict[str, Any] | None = None, *, name: str = "archive"
) -> Storage:
    """Return the files of the archive *root*, a folder or a URL.

    Args:
        root: The folder or URL. Nothing is created yet.
        options: Parameters of the file system of fsspec, for a URL.
        name: The name of the parameter with *root*, for the message of an error.

    Raises:
        AuditReadError: fsspec or the package of the store is missing.
        AuditTypeError: *root* is not a path, or *options* are not a dictionary with texts as keys.
        AuditValueError: *options* are given for a folder, or *root* is empty, or has a null character or, in a URL, a pattern.
    """
    text = require_path(name, root, "the folder or the URL of an archive")
    if options is not None and not isinstance(options, dict):
        raise AuditTypeError(f"storage_options={options!r}: expected a dictionary, got {type(options).__name__}")
    for key in options or {}:
        if not isinstance(key, str):
            raise AuditTypeError(f"storage_options={options!r}: expected texts as keys, got {key!r}")

    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if is_url(text):
        if _has_pattern(text):
            raise AuditValueError(
                f"{name}={text!r}: expected a URL without *, ? and [, which are patterns in object stores"
            )
        return ObjectStorage(text, options or {})
    if options:
        raise AuditValueError(f"storage_options={options!r}: expected a URL such as s3://bucket/audit, got {text!r}")
    return LocalStorage(text)


_has_pattern = re.compile(r"[*?\[]").search
"""Matches a URL that fsspec and DuckDB take for a pattern: they would find other objects, or none."""


def access_denied(location: str) -> AuditReadError:
    """Return the error about a file or folder of an archive that this user may not read."""
    path = os.path.normpath(location)

    return AuditReadError(
        f"{path}: permission denied: give this user the right to read all folders and files of the archive"
    )


def require_folder(path: str) -> None:
    """Raise `AuditWriteError` if *path* cannot be a folder, because it is a file, or below one."""
    existing = os.path.realpath(path)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)

    if not os.path.isdir(existing):
        raise AuditWriteError(
            f"{path!r}: expected a folder, got the file {existing!r}: name a folder, which is created if it is missing"
        )


def _make_folder(path: str) -> None:
    """Create a folder, and those above it; their entries are on the disk, or a file in it could be lost with the folder."""
    if not os.path.isdir(path):
        above = os.path.dirname(os.path.abspath(path))
        _make_folder(above)
        with suppress(FileExistsError):
            os.mkdir(path)
        sync_folder(above)


def _write(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
