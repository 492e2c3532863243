"""Configuration files in TOML, JSON or YAML; YAML needs the optional package PyYAML."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from structlog_audit.exceptions import AuditError, AuditTypeError, AuditValueError

Value = TypeVar("Value")


def load_yaml(text: str) -> Any:
    """Return the value of the YAML document *text*, of plain types only.

    Raises:
        AuditValueError: The text is not YAML, or PyYAML is not installed.
    """
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise AuditValueError("YAML needs the package PyYAML: pip install pyyaml, or use another format") from None

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AuditValueError(str(error)) from error


def _load_toml(text: str) -> Any:
    # Imported lazily: only needed for a TOML file.
    import tomllib

    return tomllib.loads(text)


_READERS: dict[str, Callable[[str], Any]] = {
    ".toml": _load_toml,
    ".json": json.loads,
    ".yaml": load_yaml,
    ".yml": load_yaml,
}


def load_file(path: str | os.PathLike[str], content: str, convert: Callable[[Any], Value]) -> Value:
    """Return the content of the file at *path*: ``.toml``, ``.json``, ``.yaml`` or ``.yml``.

    Args:
        path: The file.
        content: The kind of content, for the message of an error: "rules".
        convert: Returns the result from the plain value of the whole file; it may raise an `AuditError`.

    Raises:
        AuditTypeError, AuditValueError: The file cannot be read, or its content is invalid; the message names the file.
    """
    path = os.fspath(path)
    read = _READERS.get(os.path.splitext(path)[1].lower())
    if read is None:
        raise AuditValueError(f"{path!r}: expected a file of {content} with the suffix {', '.join(_READERS)}")

    try:
        with open(path, encoding="utf-8") as file:
            value = read(file.read())
        return convert(value)
    except (OSError, ValueError, AuditError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        kind = AuditTypeError if isinstance(error, AuditTypeError) else AuditValueError
        raise kind(f"{path!r}: {reason}") from error
