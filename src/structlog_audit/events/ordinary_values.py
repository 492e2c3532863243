"""Conversion of ordinary values to plain ones in one pass, for nearly all values of applications.

**Guarantees**

* The result encodes to the JSON that `structlog_audit.events.json_safe.JsonSanitizer` gives, which defines the conversion.
* A value that the sanitizer would mark, shorten or leave out, and one of a rare type, raises `UnusualValueError`. A value of an
  application's class may raise anything else.

**Performance**: the conversion of a type is looked up once per type. UUIDs stay: msgspec encodes them faster than
``str``.
"""

from __future__ import annotations

import datetime as dt
import decimal
import numbers
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set
from enum import Enum
from typing import Any

import msgspec

from structlog_audit.events.foreign_values import has_lists, is_wrapper, unwrapped
from structlog_audit.events.json_safe import declared_fields, exception_text, is_excluded

MAX_DEPTH = 16
"""The limit of nested containers, below that of the sanitizer."""

MAX_VALUES = 5_000
"""The limit of values, below that of the sanitizer."""

_MAX_TYPES = 1_000
"""The limit of types that are remembered: an application may make classes without end."""

_INT_MIN, _INT_END = -(2**63), 2**64


class UnusualValueError(Exception):
    """A value needs the sanitizer."""


Budget = list[int]
"""The number of values that an event may still have, as the only item."""

Convert = Callable[[Any, int, Budget], Any]
"""Takes a value, its depth and the budget, and returns the plain value."""


def plain_members(members: dict[Any, Any], budget: Budget) -> dict[str, Any]:
    """Return *members* with plain values.

    Raises:
        UnusualValueError: A value needs the sanitizer.
    """
    return _plain_mapping(members, 0, budget)


def plain_member(value: Any, budget: Budget) -> Any:
    """Return the *value* of a member as a plain one. The errors are those of `plain_members`."""
    kind = type(value)
    if kind in _KEPT:
        return value

    convert = _CONVERSIONS.get(kind) or _conversion_of(kind)
    return convert(value, 1, budget)


def _plain(value: Any, depth: int, budget: Budget) -> Any:
    kind = type(value)
    if kind in _KEPT:
        return value

    convert = _CONVERSIONS.get(kind) or _conversion_of(kind)
    return convert(value, depth, budget)


def _plain_mapping(members: dict[Any, Any], depth: int, budget: Budget) -> dict[str, Any]:
    budget[0] -= len(members)
    if depth > MAX_DEPTH or budget[0] < 0:
        raise UnusualValueError("too deep, or too many values")

    # A copy, whatever a subclass overrides.
    plain = dict.copy(members)
    for key, value in plain.items():
        if type(key) is not str:
            return _plain_mapping(_with_plain_keys(members), depth, budget)

        # As `_plain`, without a call for nearly all values.
        kind = type(value)
        if kind not in _KEPT and not (kind is int and _INT_MIN <= value < _INT_END):
            convert = _CONVERSIONS.get(kind) or _conversion_of(kind)
            plain[key] = convert(value, depth + 1, budget)
    return plain


def _with_plain_keys(members: dict[Any, Any]) -> dict[str, Any]:
    plain = {key if type(key) is str else _plain_key(key): value for key, value in dict.items(members)}

    # Two keys may have the same text.
    if len(plain) != len(members):
        raise UnusualValueError("equal keys")
    return plain


def _plain_items(items: Iterable[Any], depth: int, budget: Budget) -> list[Any]:
    values = list(items)
    budget[0] -= len(values)
    if depth > MAX_DEPTH or budget[0] < 0:
        raise UnusualValueError("too deep, or too many values")
    if _KEPT.issuperset(map(type, values)):
        return values
    return [_plain(value, depth + 1, budget) for value in values]


def _plain_key(key: Any) -> str:
    if type(key) is int and _INT_MIN <= key < _INT_END:
        return str(key)
    if type(key) is uuid.UUID:
        return msgspec.to_builtins(key)  # type: ignore[no-any-return]
    raise UnusualValueError(type(key))


def _plain_int(value: int, depth: int, budget: Budget) -> int:
    if _INT_MIN <= value < _INT_END:
        return value
    raise UnusualValueError("a large integer")


def _plain_float(value: float, depth: int, budget: Budget) -> float:
    # Infinities and NaN differ from all numbers in this.
    if value - value == 0:
        return value
    raise UnusualValueError("not a finite number")


def _text_by(text_of: Callable[[Any], str]) -> Convert:
    """Return the conversion of values with a text, which is of exactly type str."""
    return lambda value, depth, budget: str.__str__(text_of(value))


def _items_by(iterate: Callable[[Any], Iterable[Any]]) -> Convert:
    """Return the conversion of a collection to a list. Methods that a subclass overrides are not called."""
    return lambda value, depth, budget: _plain_items(iterate(value), depth, budget)


def _plain_datetime(value: dt.datetime, depth: int, budget: Budget) -> Any:
    # msgspec writes the same text five times as fast, except that it writes UTC as "Z", and no seconds of an offset.
    if value.tzinfo is None:
        return value
    if value.tzinfo is dt.UTC:
        return f"{msgspec.to_builtins(value)[:-1]}+00:00"
    return value.isoformat()


def _plain_time(value: dt.time, depth: int, budget: Budget) -> Any:
    return value if value.tzinfo is None else value.isoformat()


def _plain_enum(value: Enum, depth: int, budget: Budget) -> Any:
    return _plain(value.value, depth + 1, budget)


def _plain_usual_enum(value: Enum, depth: int, budget: Budget) -> Any:
    # The property `value` returns this attribute, five times as slowly.
    return _plain(value._value_, depth + 1, budget)


def _plain_wrapped(value: Any, depth: int, budget: Budget) -> Any:
    behind = unwrapped(value)
    if behind is value or depth > MAX_DEPTH:
        raise UnusualValueError(type(value))
    return _plain(behind, depth + 1, budget)


def _members_by(kind: Any, names: list[str]) -> Convert:
    """Return the conversion of objects of a class with declared fields."""
    if any(is_excluded(kind, name) for name in names):
        return _unusual

    def convert(value: Any, depth: int, budget: Budget) -> Any:
        return _plain_mapping({name: getattr(value, name) for name in names}, depth, budget)

    def convert_with_extras(value: Any, depth: int, budget: Budget) -> Any:
        members = {name: getattr(value, name) for name in names} | (getattr(value, "__pydantic_extra__", None) or {})
        return _plain_mapping(members, depth, budget)

    return convert_with_extras if hasattr(kind, "__pydantic_fields__") else convert


def _unusual(value: Any, depth: int, budget: Budget) -> Any:
    raise UnusualValueError(type(value))


def _conversion_of(kind: Any) -> Convert:
    """Return the conversion of values of type *kind*, and remember it."""
    convert = _find_conversion(kind)
    if len(_CONVERSIONS) < _MAX_TYPES:
        _CONVERSIONS[kind] = convert
    return convert


def _find_conversion(kind: Any) -> Convert:
    """Find the conversion of a type, in the order of the sanitizer."""
    if is_wrapper(kind):
        return _plain_wrapped

    for base, convert in _BASES:
        if issubclass(kind, base):
            return _plain_usual_enum if convert is _plain_enum and _has_usual_value(kind) else convert

    if issubclass(kind, dict) and not has_lists(kind):
        return _plain_mapping

    # An object may state another class than its type.
    is_honest = kind.__getattribute__ is object.__getattribute__ and kind.__class__ is type(kind)
    names = declared_fields(kind)
    if names is None or not is_honest or issubclass(kind, (numbers.Number, Mapping, Set)):
        return _unusual
    return _members_by(kind, names)


def _has_usual_value(kind: type[Enum]) -> bool:
    """Return whether the class of an Enum overrides neither ``value`` nor the access to attributes."""
    overrides = [base for base in kind.__mro__ if "value" in base.__dict__]
    return overrides[:1] == [Enum] and kind.__getattribute__ is object.__getattribute__


_KEPT = frozenset((str, bool, type(None), uuid.UUID, decimal.Decimal, dt.date))
"""Types that msgspec encodes as they are, to the text of `str` or ``isoformat``."""

_BASES: tuple[tuple[Any, Convert], ...] = (
    (str, _text_by(str.__str__)),
    (int, lambda value, depth, budget: _plain_int(int.__index__(value), depth, budget)),
    (float, lambda value, depth, budget: _plain_float(float.__float__(value), depth, budget)),
    ((bytes, bytearray, memoryview), _unusual),
    ((dt.datetime, dt.date, dt.time), _text_by(lambda value: value.isoformat())),
    (dt.timedelta, lambda value, depth, budget: _plain_float(value.total_seconds(), depth, budget)),
    ((uuid.UUID, decimal.Decimal), _text_by(str)),
    (os.PathLike, _text_by(os.fsdecode)),
    (BaseException, _text_by(exception_text)),
    (Enum, _plain_enum),
    (list, _items_by(list.__iter__)),
    (tuple, _items_by(tuple.__iter__)),
    (set, _items_by(set.__iter__)),
    (frozenset, _items_by(frozenset.__iter__)),
    (deque, _items_by(iter)),
)
"""The conversions of a class and its subclasses, in the order of the sanitizer."""

_CONVERSIONS: dict[type, Convert] = {
    dict: _plain_mapping,
    list: _plain_items,
    int: _plain_int,
    float: _plain_float,
    dt.datetime: _plain_datetime,
    dt.time: _plain_time,
}
"""The conversions by exact type."""
