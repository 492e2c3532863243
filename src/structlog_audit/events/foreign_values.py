"""Values of other libraries that stand for plain ones: lazy proxies, scalars of numpy, mappings with several values per key.

**Guarantees**

* Classes are recognised by name or by a distinctive method, so no library is imported.
* Nothing here limits what a proxy may raise, such as outside of a request: the caller does.
* A mapping that holds several values per key gives all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_MAX_LAYERS = 5
"""The limit of proxies around one value."""

_MAX_ARRAY = 10_000
"""The limit of values of an array that becomes a list."""

PLAIN_TYPES = frozenset((str, int, float, bool, type(None), list, dict, tuple))
"""Types that are not proxies."""


def unwrapped(value: Any) -> Any:
    """Return the value behind lazy proxies, or the one of Python for a scalar or an array of numpy.

    Any other *value* is returned itself.
    """
    for _ in range(_MAX_LAYERS):
        if type(value) in PLAIN_TYPES:
            return value

        unwrap = _unwrap_function(type(value))
        if unwrap is None:
            return value
        value = unwrap(value)
    return value


def mapping_items(value: Any) -> Iterable[tuple[Any, Any]] | None:
    """Return the items of a mapping that holds several values per key.

    A key with several values has a list. None for any other mapping.
    """
    kind = type(value)
    if has_lists(kind):
        return list(value.lists())
    if isinstance(value, dict):
        return None

    # Starlette and httpx.
    if hasattr(kind, "multi_items"):
        return _grouped(value.multi_items())

    # multidict, and the headers of Starlette.
    if hasattr(kind, "getall") or hasattr(kind, "getlist"):
        return _grouped(value.items())
    return None


def has_lists(kind: type) -> bool:
    """Return whether *kind* is a class of mappings with several values per key by werkzeug or Django.

    A combined one is an empty dictionary itself.
    """
    return hasattr(kind, "lists") and hasattr(kind, "getlist")


def is_wrapper(kind: type) -> bool:
    """Return whether `unwrapped` replaces the values of the class *kind*."""
    return _unwrap_function(kind) is not None


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return *pairs* with each key once; one with several values has a list of them."""
    groups: dict[Any, list[Any]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return [(key, values[0] if len(values) == 1 else values) for key, values in groups.items()]


def _unwrap_function(kind: type) -> Callable[[Any], Any] | None:
    for base in type.__dict__["__mro__"].__get__(kind):
        unwrap = _UNWRAP.get(_qualified_name(base))
        if unwrap is not None:
            return unwrap

        # The proxies of werkzeug and Celery, and those of lazy-object-proxy, have names that differ between versions.
        namespace = _namespace(base)
        if "_get_current_object" in namespace:
            return lambda value: object.__getattribute__(value, "_get_current_object")()
        if "__factory__" in namespace and "__wrapped__" in namespace:
            return _wrapped
    return None


def _qualified_name(kind: type) -> str:
    """Return the module and the name of a class, whatever its metaclass overrides."""
    module = type.__dict__["__module__"].__get__(kind)
    return f"{module}.{type.__dict__['__qualname__'].__get__(kind)}"


def _namespace(kind: type) -> Mapping[str, Any]:
    namespace: Mapping[str, Any] = type.__dict__["__dict__"].__get__(kind)
    return namespace


def _django_object(value: Any) -> Any:
    """Return the object behind a lazy object of Django, which makes it at its first use."""
    if value._wrapped is sys.modules["django.utils.functional"].empty:
        value._setup()
    return value._wrapped


def _numpy_scalar(value: Any) -> Any:
    """Return a scalar of numpy as one of Python. A long double has no equal: it becomes a float."""
    scalar = value.item()
    return float(scalar) if type(scalar) is type(value) else scalar


def _numpy_array(value: Any) -> Any:
    """Return an array of numpy as lists. One beyond the limit stays an object; its text is marked."""
    return value.tolist() if value.size <= _MAX_ARRAY else value


def _wrapped(value: Any) -> Any:
    return value.__wrapped__


_UNWRAP: dict[str, Callable[[Any], Any]] = {
    "django.utils.functional.LazyObject": _django_object,
    "django.utils.functional.Promise": str,
    "numpy.generic": _numpy_scalar,
    "numpy.ndarray": _numpy_array,
    # The class of wrapt's C extension names no module before version 2.
    "builtins.ObjectProxy": _wrapped,
    "wrapt.proxies.ObjectProxy": _wrapped,
    "wrapt.wrappers.ObjectProxy": _wrapped,
}
"""The function that returns the value behind an object, by the qualified name of its class or of a base of it."""
