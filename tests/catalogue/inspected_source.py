"""Source files for the tests of the catalogue, and the catalogues of them."""

from __future__ import annotations

import textwrap
from pathlib import Path

from structlog_audit.catalogue import Catalogue, catalogue

HEAD = """
import logging
import structlog
import structlog_audit
from contextlib import ExitStack
from structlog_audit import AuditBoundLogger, AuditLogger, EventStatus, OperationType, audited, get_audit_logger, instrument
log = get_audit_logger()
"""
"""The imports that every inspected module begins with."""


def catalogue_of(folder: Path, source: str, **others: str) -> Catalogue:
    """Return the catalogue of a module with *source*, beside the modules *others*."""
    package = folder / "app"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()

    for name, text in others.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    main = package / "main.py"
    main.write_text(HEAD + textwrap.dedent(source).lstrip("\n"))
    return catalogue(main)


def operations_of(folder: Path, source: str, **others: str) -> list[str | None]:
    """Return the operations that *source* declares, by line; None for a computed one."""
    found = catalogue_of(folder, source, **others)
    return [declaration.operation for declaration in found.declarations]
