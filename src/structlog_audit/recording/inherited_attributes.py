"""Attributes that the handlers inherit from the standard library and do not use: setting one is refused, never ignored."""

from __future__ import annotations

from typing import Any

from structlog_audit.exceptions import AuditTypeError


class FixedAttribute:
    """An inherited attribute with a single possible value.

    Args:
        value: That value.
        advice: The reason, and what to use instead.
    """

    def __init__(self, value: Any, advice: str) -> None:
        self._value = value
        self._advice = advice
        self.__doc__ = f"Always {value!r}: {advice}."

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else self._value

    def __set__(self, instance: object, value: Any) -> None:
        if value != self._value:
            raise AuditTypeError(f"{self._name}={value!r}: expected {self._value!r}: {self._advice}")


class UnusedAttribute:
    """An inherited attribute that does not exist here.

    Args:
        advice: What to use instead.
    """

    def __init__(self, advice: str) -> None:
        self._advice = advice
        self.__doc__ = f"Not used: {advice}."

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        raise AttributeError(f"{type(instance).__name__} has no attribute {self._name!r}: {self._advice}")

    def __set__(self, instance: object, value: Any) -> None:
        raise AuditTypeError(f"{self._name}={value!r}: expected not to be set: {self._advice}")


def refuse_overrides(subclass: type, advice: dict[str, str]) -> None:
    """Raise an `AuditTypeError` if *subclass* defines a method or an attribute that would never be used.

    Args:
        subclass: The new class.
        advice: The names, each with the reason and what to use instead.
    """
    for name in advice.keys() & vars(subclass).keys():
        raise AuditTypeError(f"{subclass.__name__}.{name}: expected not to be overridden: {advice[name]}")
