"""Inherited attributes, parameters and methods that are not used here: setting one is refused, never ignored."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from structlog_audit.exceptions import AuditTypeError


class FixedAttribute:
    """An inherited attribute with a single possible value.

    Args:
        value: That value.
        advice: The reason, and the alternative.
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
        advice: The alternative.
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


def refuse_parameters(owner: type, given: Mapping[str, Any], advice: Mapping[str, str]) -> None:
    """Raise an `AuditTypeError` if a constructor was *given* a parameter that it does not have.

    Args:
        owner: The class.
        given: The parameters that the constructor does not know, with their values.
        advice: The names of inherited parameters, each with the reason and the alternative.
    """
    for name, value in given.items():
        if name in advice:
            raise AuditTypeError(f"{name}={value!r}: expected not to be passed to {owner.__name__}: {advice[name]}")

        *accepted, _ = inspect.signature(owner).parameters
        raise AuditTypeError(f"unknown parameter {name!r} of {owner.__name__}: expected one of {', '.join(accepted)}")


def refuse_overrides(subclass: type, advice: Mapping[str, str]) -> None:
    """Raise an `AuditTypeError` if *subclass* defines a method or an attribute that would never be used.

    Args:
        subclass: The new class.
        advice: The names, each with the reason and the alternative.
    """
    for name in advice.keys() & vars(subclass).keys():
        raise AuditTypeError(f"{subclass.__name__}.{name}: expected not to be overridden: {advice[name]}")
