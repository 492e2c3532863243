"""Tests of `structlog_audit.events.foreign_values`: values of other libraries as parts of events."""

import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.events.conversion import convert
from structlog_audit.events.foreign_values import mapping_items, unwrapped
from structlog_audit.events.json_safe import JsonSanitizer


def plain(value):
    """Return the sanitized *value*, and the marks."""
    sanitizer = JsonSanitizer()
    return sanitizer.sanitize(value, "x"), sanitizer.marks


@pytest.mark.parametrize("kind", ["QueryParams", "FormData", "ImmutableMultiDict", "MultiDict"])
def test_multi_value_mapping_of_starlette_is_whole(kind):
    """A key with several values has a list of them, any other key its value."""
    structures = pytest.importorskip("starlette.datastructures")
    pairs = [("tag", "a"), ("page", "1"), ("tag", "b")]
    assert plain(getattr(structures, kind)(pairs)) == ({"tag": ["a", "b"], "page": "1"}, {})


def test_headers_of_starlette_are_whole():
    """A header that occurs twice has both values."""
    structures = pytest.importorskip("starlette.datastructures")
    headers = structures.Headers(raw=[(b"accept", b"a"), (b"accept", b"b"), (b"host", b"h")])
    assert plain(headers) == ({"accept": ["a", "b"], "host": "h"}, {})


@pytest.mark.system
@pytest.mark.parametrize("module", ["multidict", "httpx"])
def test_multi_value_mapping_of_a_client_is_whole(module):
    """The mappings of aiohttp (multidict) and httpx keep every value of a key."""
    library = importlib.import_module(module)
    make = library.MultiDict if module == "multidict" else library.QueryParams
    assert plain(make([("tag", "a"), ("tag", "b"), ("page", "1")])) == ({"tag": ["a", "b"], "page": "1"}, {})


@pytest.mark.system
def test_multi_value_dictionaries_of_werkzeug_are_whole():
    """The dictionaries of werkzeug have a list for each key, combined ones too."""
    structures = importlib.import_module("werkzeug.datastructures")
    values = structures.MultiDict([("tag", "a"), ("tag", "b")])
    assert plain(values) == ({"tag": ["a", "b"]}, {})
    assert plain(structures.CombinedMultiDict([values])) == ({"tag": ["a", "b"]}, {})


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers())))
def test_every_pair_of_a_multi_value_mapping_is_kept(pairs):
    """For all pairs, each value is below its key, in order."""

    class MultiMapping(dict):
        def lists(self):
            return [(key, [value for name, value in pairs if name == key]) for key in dict(pairs)]

        getlist = None

    items = mapping_items(MultiMapping())
    assert [(key, value) for key, values in items for value in values] == sorted(
        pairs, key=lambda pair: list(dict(pairs)).index(pair[0])
    )


def test_ordinary_mapping_has_no_multiple_values():
    """A dictionary without several values per key is left to its caller."""
    assert mapping_items({"a": [1, 2]}) is None


@pytest.mark.parametrize("method", ["lists", "getlist"])
def test_dictionary_with_one_method_of_a_multi_value_mapping_is_an_ordinary_one(method):
    """Only the two methods together make a dictionary with several values per key."""
    kind = type("Own", (dict,), {method: lambda self: pytest.fail("called")})
    assert mapping_items(kind(a=1)) is None


@pytest.mark.parametrize("method", ["getall", "getlist"])
def test_mapping_with_a_method_for_all_values_is_whole(method):
    """A mapping like those of multidict, which need not be installed, is known by its method."""
    kind = type("Own", (), {method: None, "items": lambda self: [("a", 1), ("b", 2), ("a", 3)]})
    assert mapping_items(kind()) == [("a", [1, 3]), ("b", 2)]


def test_mapping_without_a_method_for_all_values_is_an_ordinary_one():
    """Any other class of mappings is left to its caller."""
    assert mapping_items(type("Own", (), {"items": lambda self: [("a", 1)]})()) is None


def test_scalars_of_numpy_are_plain():
    """Numbers, truth values and texts of numpy are those of Python, without a mark."""
    numpy = pytest.importorskip("numpy")
    values = [numpy.int64(5), numpy.uint8(5), numpy.float32(0.5), numpy.float64(0.5), numpy.longdouble(0.5)]
    values += [numpy.bool_(True), numpy.str_("a"), numpy.array([[1, 2], [3, 4]])]
    found, marks = plain(values)
    assert (found, marks) == ([5, 5, 0.5, 0.5, 0.5, True, "a", [[1, 2], [3, 4]]], {})
    assert [type(value) for value in found[:6]] == [int, int, float, float, float, bool]


def test_scalars_of_numpy_fill_members():
    """Identifiers and durations of numpy are members, without a mark."""
    numpy = pytest.importorskip("numpy")
    fields = {"user_id": numpy.int64(5), "entry_ids": numpy.array([1, 2]), "duration_ms": numpy.float32(0.5)}
    payload = convert({"operation": "X", **fields})
    assert (payload.user_id, payload.entry_ids, payload.duration_ms) == ("5", ["1", "2"], 0.5)
    assert payload.metadata == {}


class Layer:
    """A proxy like those of lazy-object-proxy, which need not be installed."""

    __factory__ = None
    __wrapped__ = None

    def __init__(self, value):
        self.__wrapped__ = value


def proxies():
    """Return a function that makes a proxy of each library that is installed, by its name."""
    makers = {}
    try:
        from werkzeug.local import LocalProxy

        makers["werkzeug"] = lambda value: LocalProxy(lambda: value)
    except ImportError:
        pass
    try:
        from django.utils.functional import SimpleLazyObject

        makers["django"] = lambda value: SimpleLazyObject(lambda: value)
    except ImportError:
        pass
    try:
        from celery.local import Proxy

        makers["celery"] = lambda value: Proxy(lambda: value)
    except ImportError:
        pass
    try:
        from wrapt import ObjectProxy

        makers["wrapt"] = ObjectProxy
    except ImportError:
        pass
    try:
        from lazy_object_proxy import Proxy as LazyProxy

        makers["lazy-object-proxy"] = lambda value: LazyProxy(lambda: value)
    except ImportError:
        pass
    return [pytest.param(make, id=name) for name, make in makers.items()]


@pytest.mark.parametrize("proxy", proxies())
def test_proxy_counts_as_the_object_behind_it(proxy):
    """A lazy proxy in any member or in the metadata counts as its object, without a mark."""
    fields = {
        "operation": "X",
        "user_id": 42,
        "session_id": "s",
        "entry_ids": ["e1", 2],
        "status": "denied",
        "error_message": "no",
        "duration_ms": 1.5,
        "metadata": {"a": 1},
        "plan": [1, "pro"],
    }
    lazy = {name: proxy(value) for name, value in fields.items()} | {"entry_ids": [proxy("e1"), proxy(2)]}
    assert convert(lazy) == convert(fields)


@pytest.mark.parametrize("proxy", [*proxies(), Layer])
def test_proxy_of_an_exception_is_an_error_message(proxy):
    """An exception behind a lazy proxy is written as any other."""
    payload = convert({"operation": "X", "error_message": proxy(ValueError("no"))})
    assert (payload.error_message, payload.metadata) == ("ValueError: no", {})


@pytest.mark.parametrize("proxy", proxies())
def test_proxy_of_a_proxy_is_unwrapped(proxy):
    """Proxies around proxies are unwrapped too."""
    assert unwrapped(proxy(proxy("u1"))) == "u1"
    assert type(unwrapped(proxy(proxy("u1")))) is str


class Documented:
    """An object with the attribute that `functools.wraps` sets."""

    __wrapped__ = "documented"


class Factory:
    """An object with a factory."""

    __factory__ = "factory"


def layers(count):
    """Return a text within so many proxies."""
    value = "u1"
    for _ in range(count):
        value = Layer(value)
    return value


def test_proxies_are_unwrapped_up_to_a_limit():
    """The object within five proxies is found; of six, one is left, so that endless proxies come to an end."""
    assert [unwrapped(layers(count)) for count in range(6)] == ["u1"] * 6
    assert type(unwrapped(layers(6))) is Layer


@pytest.mark.parametrize("kind", [Documented, Factory])
def test_object_with_one_attribute_of_a_proxy_is_itself(kind):
    """Only the two attributes together make a proxy."""
    value = kind()
    assert unwrapped(value) is value


@pytest.mark.parametrize("module", ["builtins", "wrapt.proxies", "wrapt.wrappers"])
def test_proxy_of_any_version_of_wrapt_is_unwrapped(module):
    """The class is known by the name that each version gives it, also as a base."""
    proxy = type("ObjectProxy", (), {"__module__": module, "__wrapped__": "u1"})
    assert unwrapped(proxy()) == unwrapped(type("Own", (proxy,), {})()) == "u1"


def test_object_of_a_lazy_object_of_django_is_made_once():
    """A lazy object makes its object at the first use only."""
    functional = pytest.importorskip("django.utils.functional")
    made = iter("ab")
    lazy = functional.SimpleLazyObject(lambda: next(made))
    assert [unwrapped(lazy), unwrapped(lazy)] == ["a", "a"]


def test_array_beyond_the_limit_is_no_list():
    """An array of numpy with up to 10,000 values becomes a list; a larger one stays an object."""
    numpy = pytest.importorskip("numpy")
    assert unwrapped(numpy.zeros(10_000)) == [0.0] * 10_000
    large = numpy.zeros(10_001)
    assert unwrapped(large) is large


@pytest.mark.system
def test_proxy_without_an_object_is_marked():
    """A proxy outside of its request is a misfit, and the other members stay."""
    local = importlib.import_module("werkzeug.local")
    unbound = local.Local()("user")
    payload = convert({"operation": "X", "user_id": unbound, "entry_ids": [unbound, "e1"]})
    assert (payload.user_id, payload.entry_ids) == (None, ["e1"])
    assert payload.metadata["_audit"]["user_id"] == "not text, a number or a UUID"


def test_lazy_text_of_django_is_text():
    """A lazy translation of Django is a text."""
    functional = pytest.importorskip("django.utils.functional")
    text = functional.lazy(lambda: "not allowed", str)()
    payload = convert({"operation": "X", "error_message": text, "hint": text})
    assert (payload.error_message, payload.metadata) == ("not allowed", {"hint": "not allowed"})
