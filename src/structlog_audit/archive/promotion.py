"""Promoted members of the metadata: text that has a column of its own, so that a query for it reads no JSON.

A member is named by a path with dots, ``request.id``, or by a JSON Pointer (RFC 6901), ``/http.method``, if a key has dots.
The column holds the member only where it is text; everything else stays in the JSON, which has all members anyway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from structlog_audit.archive.actions import PROMOTED_KEY
from structlog_audit.exceptions import AuditReadError, AuditTypeError, AuditValueError

Path = tuple[str, ...]
"""The keys that lead to a member of the metadata."""

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII).fullmatch

_COLUMN = re.compile(r"md_[a-z0-9_]+", re.ASCII).fullmatch
_decode = msgspec.json.Decoder(dict[str, Path]).decode


def parse_path(text: Any) -> Path:
    """Return the keys that *text* names.

    Raises:
        AuditTypeError: It is not text.
        AuditValueError: It names no member.
    """
    if not isinstance(text, str):
        raise AuditTypeError(
            f"promote={text!r}: expected the name of a member of the metadata, got {type(text).__name__}"
        )
    if text.startswith("/"):
        keys = [key.replace("~1", "/").replace("~0", "~") for key in text[1:].split("/")]
    else:
        keys = text.split(".")
    if not all(keys) or "\0" in text:
        raise AuditValueError(
            f"promote={text!r}: expected a member of the metadata, such as tenant, request.id or /http.method"
        )
    return tuple(keys)


def pointer(path: Iterable[str]) -> str:
    """Return *path* as a JSON Pointer."""
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


def json_place(path: Iterable[str]) -> str:
    """Return *path* as DuckDB finds it soonest: a JSON path if its keys are plain names, otherwise a JSON Pointer."""
    keys = tuple(path)
    return "$." + ".".join(keys) if all(map(_PLAIN_NAME, keys)) else pointer(keys)


def promoted_columns(configuration: Mapping[str, str]) -> dict[str, Path]:
    """Return the promoted columns of an archive and the members they hold.

    Raises:
        AuditReadError: They are not as `with_columns` names them. Nothing else gets into SQL.
    """
    text = configuration.get(PROMOTED_KEY, "{}")
    try:
        columns = _decode(text)
    except msgspec.MsgspecError as error:
        raise AuditReadError(
            f"{PROMOTED_KEY}={text!r}: expected the promoted columns of the archive: {error}"
        ) from error

    for name in columns:
        if not _COLUMN(name):
            raise AuditReadError(f"{PROMOTED_KEY}: expected names such as md_tenant, got {name!r}")
    return columns


def with_columns(known: Mapping[str, Path], paths: Iterable[Path]) -> dict[str, Path]:
    """Return *known* and a column for each of *paths* that has none. Names differ by more than case, as SQL needs."""
    columns = dict(known)
    for path in paths:
        if path in columns.values():
            continue
        base = "md_" + re.sub(r"\W", "_", "_".join(path), flags=re.ASCII).lower()
        name, number = base, 1
        while name in columns:
            number += 1
            name = f"{base}_{number}"
        columns[name] = path
    return columns


def encode_columns(columns: Mapping[str, Path]) -> str:
    """Return *columns* as `promoted_columns` reads them."""
    return msgspec.json.encode(columns).decode()
