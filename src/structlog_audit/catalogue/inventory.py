"""The catalogue of operations that code declares, for audits and tests.

`catalogue` parses source files; it neither imports nor executes them. `structlog_audit.catalogue.declarations` lists the calls
that count.

**Failure handling**

Nothing is omitted silently. A call that computes its operation is a declaration without an operation. A file or folder that
cannot be read is listed with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from structlog_audit.catalogue.declarations import Declaration, declarations_in
from structlog_audit.catalogue.inference import LIBRARY
from structlog_audit.catalogue.name_resolution import Codebase
from structlog_audit.catalogue.scopes import READ_ERRORS
from structlog_audit.catalogue.source_files import display_path, import_roots, source_files
from structlog_audit.exceptions import AuditTypeError


@dataclass(frozen=True, slots=True)
class Unread:
    """A file or folder that could not be read, and the reason."""

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The operations that code declares.

    Attributes:
        declarations: The declarations, sorted by file and line.
        files: The number of files that were read.
        unread: The files and folders that could not be read.
    """

    declarations: tuple[Declaration, ...]
    files: int
    unread: tuple[Unread, ...] = ()

    @property
    def operations(self) -> dict[str, list[Declaration]]:
        """The declarations of each known operation, sorted by its name."""
        found: dict[str, list[Declaration]] = {}
        for declaration in self.declarations:
            if declaration.operation is not None:
                same_operation = found.setdefault(declaration.operation, [])
                same_operation.append(declaration)
        return dict(sorted(found.items()))

    @property
    def computed(self) -> list[Declaration]:
        """The declarations that compute their operation."""
        return [declaration for declaration in self.declarations if declaration.operation is None]

    def to_dict(self) -> dict[str, Any]:
        """Return the catalogue as JSON-compatible values."""
        return {
            "operations": list(self.operations),
            "declarations": [declaration.to_dict() for declaration in self.declarations],
            "files": self.files,
            "unread": [{"file": unread.file, "reason": unread.reason} for unread in self.unread],
        }


def catalogue(*packages: str | os.PathLike[str]) -> Catalogue:
    """Return the operations that *packages* declare.

    Each source file is read once, and none is imported.

    Args:
        packages: The names of modules or packages, or the paths of files or folders.

    Raises:
        AuditTypeError: No package was passed, or one that is neither a name nor a path.
        AuditValueError: A package does not exist, or has no source; the message names it.
        AuditReadError: A package is a folder that cannot be read.
    """
    if not packages:
        raise AuditTypeError("catalogue(): expected at least one package, its name or the path of its source, got none")

    unread: list[Unread] = []
    paths = _distinct_files(packages, unread)
    roots = [root for package in packages for root in import_roots(package)]
    codebase = Codebase(roots, LIBRARY)

    declarations: list[Declaration] = []
    files = 0
    for path in paths:
        try:
            module = codebase.module_at(path)
            declarations += declarations_in(module, codebase)
            files += 1
        except READ_ERRORS as error:
            unread.append(Unread(display_path(path), _reason(error)))

    declarations.sort(key=lambda declaration: (declaration.file, declaration.line))
    return Catalogue(tuple(declarations), files, tuple(unread))


def _distinct_files(packages: Iterable[str | os.PathLike[str]], unread: list[Unread]) -> list[str]:
    """Return the source files of *packages*, each once.

    Folders that cannot be read are added to *unread*.
    """

    def onerror(error: OSError) -> None:
        folder = display_path(str(error.filename))
        unread.append(Unread(folder, _reason(error)))

    # Links to the same file count once.
    by_real_path: dict[str, str] = {}
    for package in packages:
        for path in source_files(package, onerror):
            by_real_path[os.path.realpath(path)] = path
    return list(by_real_path.values())


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, SyntaxError) and error.lineno:
        return f"line {error.lineno}: {error.msg}"
    if isinstance(error, SyntaxError):
        return error.msg
    if isinstance(error, RecursionError | MemoryError):
        return "the source is nested too deeply"
    return str(error)
