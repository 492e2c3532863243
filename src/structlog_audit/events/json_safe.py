"""Any Python value as plain JSON values: total, bounded, and honest about what it changed.

Plain are ``None``, ``bool``, 64-bit ``int``, finite ``float``, ``str`` without lone surrogates, ``list`` of plain values
and ``dict`` with ``str`` keys and plain values, of exactly these types.

Rules:

* Nothing raises but what is no `Exception`: KeyboardInterrupt, SystemExit, a timeout. Those are not the value's.
* What has a natural JSON form takes it without a mark: tuples and sets, mappings, dataclasses and the like, enums, dates,
  UUIDs, decimals, paths, and keys that are scalars or bytes of ASCII.
* What has none is replaced by a text and marked: ``marks`` maps the path of the value to what was done.
* No text holds a memory address: it would differ from run to run and tell an attacker something.
* Depth, number of values and cycles are bounded, so that no value can exhaust memory or time.
* The methods that a subclass of str, int, float, list or dict overrides are not called: they could do anything.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import math
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from enum import Enum
from typing import Any, TypeVar

MAX_DEPTH = 32
"""Containers inside containers. Engines refuse JSON that is nested hundreds deep, and nobody means it."""

MAX_VALUES = 10_000
"""Values of one event that are looked at one by one. A line of 32,000 bytes holds fewer."""

MAX_MARKS = 20
"""Marks that are listed by path; how many more there were is told under ``…``."""

_MORE = "…"
"""Where the number of those stands."""

MAX_TEXT = 1_000
"""Characters kept of the text of an object that has no JSON form."""

_Item = TypeVar("_Item")

_INT_MIN, _INT_END = -(2**63), 2**64
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


def identifier_text(value: Any) -> str | None:
    """The text of a value that names somebody or something: a string, an integer, a UUID or an Enum of these.

    None for anything else. Integers are how most frameworks number their users; in a trail an identity is text.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool) and _INT_MIN <= int.__index__(value) < _INT_END:
        return str(int.__index__(value))
    return str(value) if type(value) is uuid.UUID else None


def type_name(value: object) -> str:
    """The qualified name of the type of *value*, whatever its metaclass says."""
    kind = type(value)
    name = type.__dict__["__qualname__"].__get__(kind)
    module = type.__dict__["__dict__"].__get__(kind).get("__module__")
    return f"{module}.{name}" if type(module) is str and module != "builtins" else str(name)


def exception_text(error: BaseException) -> str:
    """*error* as its traceback's last line would show it, ``ValueError: …``, without memory addresses."""
    try:
        text = _ADDRESS.sub("", str(error))
    except Exception:  # an exception whose __str__ raises still has a type
        text = "(its text can't be read)"
    name = type.__dict__["__name__"].__get__(type(error))
    return f"{name}: {text}" if text else str(name)


class JsonSanitizer:
    """Makes the values of one event plain and remembers in `marks` what it changed."""

    def __init__(self) -> None:
        self.marks: dict[str, str] = {}
        self._left = MAX_VALUES
        self._within: set[int] = set()

    def mark(self, path: str, what: str) -> None:
        """Remember that the value at *path* was changed as *what* says, once per path. One called ``…`` is only counted."""
        if path != _MORE and (len(self.marks) < MAX_MARKS or path in self.marks):
            self.marks[path] = what
        else:
            self.marks[_MORE] = f"{int(self.marks.get(_MORE, '0').split()[0]) + 1} more"

    def sanitize(self, value: Any, path: str, depth: int = 0) -> Any:
        """*value* as plain JSON values. *path* names it in the marks."""
        self._left -= 1
        if self._left < 0:
            return self._replace("", path, f"left out: more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            return self._replace(type_name(value), path, f"replaced: nested deeper than {MAX_DEPTH}")
        if id(value) in self._within:
            return self._replace(type_name(value), path, "replaced: contains itself")
        self._within.add(id(value))
        try:
            return self._convert(value, path, depth)
        except Exception as error:  # a hostile value may raise anything
            return self._replace(type_name(value), path, f"replaced: unreadable ({type_name(error)})")
        finally:
            self._within.discard(id(value))

    def sanitize_text(self, value: str, path: str) -> str:
        """A string of exactly type str that UTF-8 can encode."""
        value = str.__str__(value)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                self.mark(path, "replaced: lone surrogates are written as escapes")
                return value.encode("utf-8", "backslashreplace").decode()
        return value

    def _replace(self, text: str, path: str, what: str) -> str:
        self.mark(path, what)
        return text

    def _convert(self, value: Any, path: str, depth: int) -> Any:
        if value is None or value is True or value is False:
            return value
        for kinds, convert in _SCALARS:
            if isinstance(value, kinds):
                return convert(self, value, path)
        if isinstance(value, Enum):
            return self.sanitize(value.value, path, depth + 1)
        for kind, iterate in _CONTAINERS:
            if isinstance(value, kind):
                return self._items(iterate(value), path, depth)
        members = _members(value)
        if members is not None:
            return self._mapping(members, path, depth)
        return self._text_of(value, path)

    def _items(self, items: Iterable[Any], path: str, depth: int) -> list[Any]:
        taken = enumerate(self._taken(items))
        return [self.sanitize(item, f"{path}[{number}]"[:200], depth + 1) for number, item in taken]

    def _mapping(self, members: Iterable[tuple[Any, Any]], path: str, depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for number, (key, value) in enumerate(self._taken(members)):
            name = self.sanitize_key(key, path)
            while name in plain:  # two keys of one text; the number makes it quick to find a free name
                name += f"_{number}"
            plain[name] = self.sanitize(value, f"{path}.{name}"[:200] if path else name[:200], depth + 1)
        return plain

    def _taken(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Those of *items* that are looked at: as many as are left, and one more, which is marked as left out."""
        for item in items:
            yield item
            if self._left < 0:
                return

    def sanitize_members(self, members: dict[str, Any]) -> dict[str, Any]:
        """*members* with plain values, even when no value is left."""
        return self._mapping(members.items(), "", 0)

    def sanitize_key(self, key: Any, path: str) -> str:
        """*key* of a mapping as a string of exactly type str."""
        if isinstance(key, str) and not isinstance(key, Enum):
            return self.sanitize_text(key, path)
        if isinstance(key, bytes) and bytes.isascii(key):  # a header's, in WSGI and ASGI
            return bytes.decode(key)
        name = self.sanitize(key, f"{path} key" if path else "key")
        return name if isinstance(name, str) else _json_key(name)

    def _text_of(self, value: Any, path: str) -> str:
        """The text of an object without a JSON form; of one that never said how to print it, only the type."""
        name = type_name(value)
        kind: Any = type(value)
        self.mark(path, f"replaced: text of {name}")
        if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
            return f"<{name}>"
        text = self.sanitize_text(_ADDRESS.sub("", str.__str__(str(value))), path)
        if len(text) > MAX_TEXT:
            self.mark(path, f"replaced: first {MAX_TEXT} of {len(text)} characters of the text of {name}")
        return text[:MAX_TEXT]

    def _int(self, value: int, path: str) -> int | str:
        value = int.__index__(value)
        if _INT_MIN <= value < _INT_END:
            return value
        self.mark(path, f"replaced: an integer of {value.bit_length()} bits")
        return f"{value:#x}"[:MAX_TEXT]  # hexadecimal: decimal is limited to 4,300 digits and slow

    def _float(self, value: float, path: str) -> float | str:
        value = float.__float__(value)
        if math.isfinite(value):
            return value
        text = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return self._replace(text, path, "replaced: not a finite number")

    def _bytes(self, value: Any, path: str) -> str:
        return self._replace(base64.b64encode(bytes(value)).decode(), path, "replaced: bytes as base64")


def _json_key(value: Any) -> str:
    """The text of a plain key that is no string, as JSON writes it: ``true``, ``null``, ``1``."""
    return {True: "true", False: "false", None: "null"}[value] if value is None or type(value) is bool else str(value)


def _members(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """The members of a mapping, or of an object whose type declares its fields; None for any other object."""
    if isinstance(value, dict):
        return list(dict.items(value))
    if isinstance(value, Mapping):
        return ((key, value[key]) for key in value)
    if isinstance(value, type):
        return None
    kind = type(value)
    if dataclasses.is_dataclass(value):
        names: Iterable[str] = [field.name for field in dataclasses.fields(value)]
    elif hasattr(kind, "__struct_fields__"):  # msgspec
        names = kind.__struct_fields__
    elif hasattr(kind, "__attrs_attrs__"):  # attrs
        names = [field.name for field in kind.__attrs_attrs__]
    elif hasattr(kind, "__pydantic_fields__"):  # pydantic
        names = list(kind.__pydantic_fields__)
    else:
        return None
    return ((name, getattr(value, name)) for name in names)


_SCALARS: tuple[tuple[Any, Callable[[JsonSanitizer, Any, str], Any]], ...] = (
    (str, JsonSanitizer.sanitize_text),
    (int, JsonSanitizer._int),
    (float, JsonSanitizer._float),
    ((bytes, bytearray, memoryview), JsonSanitizer._bytes),
    ((dt.datetime, dt.date, dt.time), lambda sanitizer, value, path: sanitizer.sanitize_text(value.isoformat(), path)),
    (dt.timedelta, lambda sanitizer, value, path: sanitizer._float(value.total_seconds(), path)),
    ((uuid.UUID, decimal.Decimal), lambda sanitizer, value, path: sanitizer.sanitize_text(str(value), path)),
    (os.PathLike, lambda sanitizer, value, path: sanitizer.sanitize_text(os.fsdecode(value), path)),
    (BaseException, lambda sanitizer, value, path: sanitizer.sanitize_text(exception_text(value), path)),
)

_CONTAINERS: tuple[tuple[Any, Callable[[Any], Iterable[Any]]], ...] = (
    (list, list.__iter__),
    (tuple, tuple.__iter__),
    (set, set.__iter__),
    (frozenset, frozenset.__iter__),
    ((deque, Set), iter),
)
