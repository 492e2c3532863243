"""Conversion of any Python value to plain JSON values.

Plain values are ``None``, ``bool``, 64-bit ``int``, finite ``float``, ``str`` without lone surrogates, ``list`` of plain values
and ``dict`` with ``str`` keys and plain values, of exactly these types.

**Guarantees**

* A value with a natural JSON form takes it without a mark: tuples and sets, mappings, dataclasses and the like, enums,
  dates, UUIDs, decimals, paths, and keys that are scalars or ASCII bytes. So do lazy proxies, scalars and arrays of numpy, and
  mappings with several values per key (`foreign_values`). Any other value becomes text with a mark.
* A member that cannot be read is left out and marked; the others stay.
* Depth, number of values and cycles are bounded, so no value can exhaust memory or time.
* No text contains a memory address: it would differ between runs and help an attacker.

**Failure handling**: no value causes an `Exception`. KeyboardInterrupt, SystemExit and the like propagate. Methods that a
subclass of str, int, float, list or dict overrides are not called, because they could do anything.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import functools
import math
import numbers
import operator
import os
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from enum import Enum
from typing import Any, TypeVar

import msgspec

from structlog_audit.events.foreign_values import mapping_items, unwrapped

MAX_DEPTH = 32
"""The limit of nested containers. Query engines reject JSON that is nested hundreds deep."""

MAX_VALUES = 10_000
"""The limit of values per event that are converted one by one. A line of 32,000 bytes holds fewer."""

MAX_MARKS = 20
"""The limit of marks that are listed by path. The number of further ones stands under ``…``."""

MAX_IDENTIFIER = 200
"""The limit of characters of an object that is an identifier."""

MAX_INTEGER_BITS = 14_000
"""The limit of an integer that is an identifier. Python limits decimal texts to 4,300 digits, which is a little more."""

MORE = "…"
"""The key of the number of further marks."""

MAX_TEXT = 1_000
"""The limit of characters of the text of an object without a JSON form."""

MAX_CAUSES = 10
"""The limit of causes that the text of an exception group names."""

_MAX_PATH = 200

_EXCEPTIONS: Any = BaseExceptionGroup.exceptions

_Item = TypeVar("_Item")

_INT_MIN, _INT_END = -(2**63), 2**64
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


def identifier_text(value: Any) -> str | None:
    """Return the text of an identifier, or None for any other value.

    Most frameworks number their users; in a trail an identifier is text. An identifier is a string, an integer of any
    usual size, a UUID, an Enum of these, a proxy of one of these, or an object with a stable text (`_stable_text`).
    """
    # The most frequent type first. The text by msgspec takes a quarter of the time of that by `str`.
    if type(value) is uuid.UUID:
        return msgspec.to_builtins(value)  # type: ignore[no-any-return]

    value = unwrapped(value)
    if isinstance(value, Enum):
        value = value.value

    if isinstance(value, str):
        return str.__str__(value)

    if isinstance(value, numbers.Integral):
        return None if isinstance(value, bool) else _integer_text(value)

    # The method of the class itself: a subclass might return any other text.
    return uuid.UUID.__str__(value) if isinstance(value, uuid.UUID) else _stable_text(value)


def _integer_text(value: Any) -> str | None:
    number = int.__index__(value) if isinstance(value, int) else operator.index(value)
    return str(number) if number.bit_length() <= MAX_INTEGER_BITS else None


def _stable_text(value: Any) -> str | None:
    """Return the text of an object that identifies something, as of bson's ObjectId or a ULID, or None.

    Its class has its own text, and compares and hashes by value. The object holds one value at most, so it is not a record
    such as a Django model. The text is one word of at most `MAX_IDENTIFIER` printable characters.
    """
    kind: Any = type(value)
    if kind.__str__ is object.__str__ or kind.__eq__ is object.__eq__ or kind.__hash__ in (None, object.__hash__):
        return None
    if isinstance(value, _NEVER_IDENTIFIERS) or hasattr(kind, "__pydantic_fields__"):
        return None
    if len(getattr(value, "__dict__", ())) > 1 or len(_field_names(value) or ()) > 1:
        return None

    text = str.__str__(str(value))
    is_word = 0 < len(text) <= MAX_IDENTIFIER and text.isprintable() and not any(map(str.isspace, text))
    return text if is_word and not _ADDRESS.search(text) else None


def type_name(value: object) -> str:
    """Return the qualified name of a type, whatever its metaclass overrides."""
    kind = type(value)

    # The descriptors of `type` itself bypass the __getattribute__ of a metaclass.
    qualname = type.__dict__["__qualname__"].__get__(kind)
    namespace = type.__dict__["__dict__"].__get__(kind)

    module = namespace.get("__module__")
    if type(module) is str and module != "builtins":
        return f"{module}.{qualname}"
    return str(qualname)


def exception_text(error: BaseException) -> str:
    """Format *error* like the last line of its traceback: ``ValueError: …``.

    A group names its causes, up to a limit: ``ExceptionGroup: both (2 sub-exceptions): ValueError: …; KeyError: …``. Memory
    addresses are removed.
    """
    text = _exception_line(error)
    if not isinstance(error, BaseExceptionGroup):
        return text

    causes = []
    for number, leaf in enumerate(leaf_exceptions(error)):
        if number == MAX_CAUSES:
            causes.append(MORE)
            break
        causes.append(_exception_line(leaf))
    return f"{text}: {'; '.join(causes)}"


def leaf_exceptions(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group and in the groups in it, in order, or *error* itself if it is not a group."""
    waiting = [error]
    while waiting:
        first = waiting.pop()
        if isinstance(first, BaseExceptionGroup):
            # The descriptor of the class bypasses an attribute of a subclass.
            waiting += reversed(_EXCEPTIONS.__get__(first))
        else:
            yield first


def _exception_line(error: BaseException) -> str:
    try:
        text = _without_addresses(str(error))
    except Exception:
        text = "(its text can't be read)"

    name = type.__dict__["__name__"].__get__(type(error))
    return f"{name}: {text}" if text else str(name)


def _without_addresses(text: str) -> str:
    """Return *text* without memory addresses, of exactly type str. The search takes a tenth of the time of the pattern."""
    text = str.__str__(text)
    return _ADDRESS.sub("", text) if " at 0x" in text else text


class JsonSanitizer:
    """Converts the values of one event to plain ones.

    `marks` lists the changes by path.

    Args:
        is_recorded: Whether the values may be those of a recorded event, which has marks, and texts in place of what was too
            deep or too much: the limits are twice as high, so that none of it is replaced again.
    """

    def __init__(self, *, is_recorded: bool = False) -> None:
        factor = 2 if is_recorded else 1
        self.marks: dict[str, str] = {}
        self._max_values = self._values_left = MAX_VALUES * factor
        self._max_depth = MAX_DEPTH * factor
        self._enclosing_ids: set[int] = set()

    def mark(self, path: str, change: str) -> None:
        """Record *change* for the value at *path*, once per path.

        Beyond the limit, marks are only counted.
        """
        has_room = len(self.marks) < MAX_MARKS or path in self.marks
        if has_room and path != MORE:
            self.marks[path] = change
            return

        count, _, _ = self.marks.get(MORE, "0 more").partition(" ")
        self.marks[MORE] = f"{int(count) + 1} more"

    def sanitize(self, value: Any, path: str, depth: int = 0) -> Any:
        """Return *value* as plain JSON values. *path* names it in the marks."""
        self._values_left -= 1
        if self._values_left < 0:
            return self._replace("", path, f"left out: more than {self._max_values} values")
        if depth > self._max_depth:
            return self._replace(type_name(value), path, f"replaced: nested deeper than {self._max_depth}")
        if id(value) in self._enclosing_ids:
            return self._replace(type_name(value), path, "replaced: contains itself")

        # Values of an application's classes may raise anything.
        self._enclosing_ids.add(id(value))
        try:
            return self._convert(value, path, depth)
        except Exception as error:
            return self._replace(type_name(value), path, f"replaced: unreadable ({type_name(error)})")
        finally:
            self._enclosing_ids.discard(id(value))

    def sanitize_members(self, members: dict[str, Any]) -> dict[str, Any]:
        """Return *members* with plain values, even when the limit of values is reached."""
        return self._sanitize_mapping(members.items(), "", 0)

    def sanitize_text(self, value: str, path: str) -> str:
        """Return *value* as a string of exactly type str that UTF-8 can encode."""
        value = str.__str__(value)
        if value.isascii():
            return value

        try:
            value.encode()
        except UnicodeEncodeError:
            self.mark(path, "replaced: lone surrogates are written as escapes")
            return value.encode("utf-8", "backslashreplace").decode()

        return value

    def sanitize_key(self, key: Any, path: str) -> str:
        """Return the *key* of a mapping as a string of exactly type str."""
        if isinstance(key, str) and not isinstance(key, Enum):
            return self.sanitize_text(key, path)

        # The header names of WSGI and ASGI are bytes.
        if isinstance(key, bytes) and bytes.isascii(key):
            return bytes.decode(key)

        name = self.sanitize(key, f"{path} key" if path else "key")
        if name is None:
            return "null"
        if type(name) is bool:
            return "true" if name else "false"
        return str(name)

    def _replace(self, text: str, path: str, change: str) -> str:
        """Mark *change* and return *text*, the replacement."""
        self.mark(path, change)
        return text

    def _convert(self, value: Any, path: str, depth: int) -> Any:
        """Return *value* as plain values, by its type."""
        behind = unwrapped(value)
        if behind is not value:
            return self.sanitize(behind, path, depth + 1)

        if value is None or value is True or value is False:
            return value

        for types, convert in _SCALARS:
            if isinstance(value, types):
                return convert(self, value, path)

        if isinstance(value, Enum):
            return self.sanitize(value.value, path, depth + 1)

        for types, iterate in _CONTAINERS:
            if isinstance(value, types):
                return self._sanitize_items(iterate(value), path, depth)

        members = self._members_of(value, path)
        if members is not None:
            return self._sanitize_mapping(members, path, depth)

        return self._object_text(value, path)

    def _members_of(self, value: Any, path: str) -> Iterable[tuple[Any, Any]] | None:
        """Return the members of a mapping or of an object with declared fields.

        None for any other object.
        """
        if isinstance(value, Mapping):
            items = mapping_items(value)
            if items is not None:
                return items
            if isinstance(value, dict):
                return list(dict.items(value))
            return self._readable(value, value.__getitem__, path)

        names = _field_names(value)
        if names is None:
            return None

        kept = [name for name in names if not is_excluded(type(value), name)]
        for name in names:
            if name not in kept:
                self.mark(member_path(path, name), "left out: excluded by its class")
        return self._readable(kept, functools.partial(getattr, value), path)

    def _readable(self, names: Iterable[Any], read: Callable[[Any], Any], path: str) -> Iterator[tuple[Any, Any]]:
        """Yield each of *names* with its value, and mark those that cannot be read or are not set."""
        for name in names:
            try:
                value = read(name)
            except Exception as error:
                is_unset = isinstance(error, AttributeError)
                change = "left out: not set" if is_unset else f"left out: unreadable ({type_name(error)})"
            else:
                if value is not msgspec.UNSET:
                    yield name, value
                    continue
                change = "left out: not set"

            self.mark(member_path(path, self.sanitize_key(name, path)), change)
            self._values_left -= 1
            if self._values_left < 0:
                return

    def _sanitize_items(self, items: Iterable[Any], path: str, depth: int) -> list[Any]:
        plain = []
        for number, item in enumerate(self._within_limit(items)):
            plain.append(self.sanitize(item, item_path(path, number), depth + 1))
        return plain

    def _sanitize_mapping(self, members: Iterable[tuple[Any, Any]], path: str, depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for number, (key, value) in enumerate(self._within_limit(members)):
            name = self.sanitize_key(key, path)

            # Two keys may have one text. The number keeps the search short for thousands of such keys.
            while name in plain:
                name += f"_{number}"

            plain[name] = self.sanitize(value, member_path(path, name), depth + 1)
        return plain

    def _within_limit(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield items while values are left, and one more.

        `sanitize` marks the last one as left out.
        """
        for item in items:
            yield item
            if self._values_left < 0:
                return

    def _object_text(self, value: Any, path: str) -> str:
        """Return the text of an object without a JSON form.

        The text of an object that inherits the methods of `object` is its type.
        """
        name = type_name(value)
        self.mark(path, f"replaced: text of {name}")

        kind: Any = type(value)
        if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
            return f"<{name}>"

        text = str.__str__(str(value))
        text = self.sanitize_text(_without_addresses(text), path)
        if len(text) > MAX_TEXT:
            self.mark(path, f"replaced: first {MAX_TEXT} of {len(text)} characters of the text of {name}")
        return text[:MAX_TEXT]

    def _sanitize_int(self, value: int, path: str) -> int | str:
        value = int.__index__(value)
        if _INT_MIN <= value < _INT_END:
            return value

        # Hexadecimal, because Python limits decimal texts to 4,300 digits, and these are slow to make.
        self.mark(path, f"replaced: an integer of {value.bit_length()} bits")
        return f"{value:#x}"[:MAX_TEXT]

    def _sanitize_float(self, value: float, path: str) -> float | str:
        value = float.__float__(value)
        if math.isfinite(value):
            return value

        text = "NaN"
        if math.isinf(value):
            text = "Infinity" if value > 0 else "-Infinity"
        return self._replace(text, path, "replaced: not a finite number")

    def _sanitize_bytes(self, value: Any, path: str) -> str:
        text = base64.b64encode(bytes(value)).decode()
        return self._replace(text, path, "replaced: bytes as base64")


def member_path(path: str, name: str) -> str:
    """Return the path of the member *name* of the mapping at *path*, as marks list it."""
    return f"{path}.{name}"[:_MAX_PATH] if path else name[:_MAX_PATH]


def item_path(path: str, number: int) -> str:
    """Return the path of an item of the list at *path*, as marks list it."""
    return f"{path}[{number}]"[:_MAX_PATH]


def declared_fields(kind: Any) -> list[str] | None:
    """Return the field names of a class of dataclasses, msgspec, attrs or pydantic, or None for any other class."""
    if issubclass(kind, type):
        return None

    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    if hasattr(kind, "__struct_fields__"):
        return list(kind.__struct_fields__)
    if hasattr(kind, "__attrs_attrs__"):
        return [field.name for field in kind.__attrs_attrs__]
    return list(kind.__pydantic_fields__) if hasattr(kind, "__pydantic_fields__") else None


def _field_names(value: Any) -> list[str] | None:
    """Return the field names of a dataclass, msgspec, attrs or pydantic object."""
    names = declared_fields(type(value))
    if names is not None and hasattr(type(value), "__pydantic_fields__"):
        # A model that accepts extra members holds these beside its fields.
        names += getattr(value, "__pydantic_extra__", None) or ()
    return names


def is_excluded(kind: Any, name: str) -> bool:
    """Return whether a model of pydantic declares that the field *name* is never written."""
    field = getattr(kind, "__pydantic_fields__", {}).get(name)
    return bool(getattr(field, "exclude", None))


_NEVER_IDENTIFIERS = (
    *(type, bytes, bytearray, memoryview, numbers.Number, dt.date, dt.time, dt.timedelta, BaseException),
    *(list, tuple, dict, set, frozenset, deque, Mapping, Set),
)
"""Types with a text that identify nothing."""

_SCALARS: tuple[tuple[Any, Callable[[JsonSanitizer, Any, str], Any]], ...] = (
    (str, JsonSanitizer.sanitize_text),
    (int, JsonSanitizer._sanitize_int),
    (float, JsonSanitizer._sanitize_float),
    (numbers.Integral, lambda sanitizer, value, path: sanitizer._sanitize_int(operator.index(value), path)),
    ((bytes, bytearray, memoryview), JsonSanitizer._sanitize_bytes),
    ((dt.datetime, dt.date, dt.time), lambda sanitizer, value, path: sanitizer.sanitize_text(value.isoformat(), path)),
    (dt.timedelta, lambda sanitizer, value, path: sanitizer._sanitize_float(value.total_seconds(), path)),
    ((uuid.UUID, decimal.Decimal), lambda sanitizer, value, path: sanitizer.sanitize_text(str(value), path)),
    (os.PathLike, lambda sanitizer, value, path: sanitizer.sanitize_text(os.fsdecode(value), path)),
    (BaseException, lambda sanitizer, value, path: sanitizer.sanitize_text(exception_text(value), path)),
)
"""Types with a scalar form, and their conversions."""

_CONTAINERS: tuple[tuple[Any, Callable[[Any], Iterable[Any]]], ...] = (
    (list, list.__iter__),
    (tuple, tuple.__iter__),
    (set, set.__iter__),
    (frozenset, frozenset.__iter__),
    ((deque, Set), iter),
)
"""Types that become lists, and iteration that bypasses overridden methods."""
