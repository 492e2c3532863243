"""Hypothesis strategies for the fields of events: JSON values, members, and hostile Python objects."""

import collections
import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import gc
import logging
import pathlib
import uuid

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

ORDINARY_EXAMPLES = 100
"""The examples of a property by default, as Hypothesis has it."""


def examples(count: int) -> int:
    """Return the number of examples of a property whose examples take long: *count*, or more if the profile asks for it.

    The profile `thorough` of conftest.py multiplies it. Properties without a number of their own get that of the profile.
    """
    return count * settings.default.max_examples // ORDINARY_EXAMPLES


DANGEROUS = "\x00\x1b\r\n\x7f\x80\x85\x9f\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069"
"""Characters that break a line for some reader or deceive a terminal."""

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.text(st.sampled_from(DANGEROUS + '"\\/é€😀'), max_size=10),
)
"""Strings that UTF-8 can encode."""

unruly_texts = st.text(st.characters(), max_size=20)
"""Strings that may contain lone surrogates."""

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)

keys = texts.filter(lambda key: key != "_audit")

json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
"""JSON values with numbers of 64 bits."""

metadata = st.dictionaries(keys, json_values, max_size=6)
"""Plain metadata of an event."""


def _containers(inner):
    return st.one_of(scalars, st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3))


usual_metadata = st.dictionaries(keys, _containers(_containers(scalars)), max_size=4)
"""Metadata of the usual depth, which the fast path of the conversion accepts."""

operations = st.one_of(st.sampled_from(["STORE", "RECALL", "FORGET", "COMPACT", "EXPORT", "IMPORT"]), texts.filter(len))
statuses = st.sampled_from(["SUCCESS", "FAILURE", "PARTIAL"])
durations = st.floats(0, 1e9) | st.integers(0, 10**9).map(float)

well_typed = st.fixed_dictionaries(
    {"operation": operations},
    optional={
        "user_id": st.none() | texts,
        "session_id": st.none() | texts,
        "entry_ids": st.lists(texts, max_size=5),
        "metadata": metadata,
        "status": st.none() | statuses,
        "error_message": st.none() | texts,
        "duration_ms": st.none() | durations,
    },
)
"""The members of an event, each of its type."""

others = st.dictionaries(keys, json_values, max_size=4)
"""Fields that are not members of an event."""


# --- hostile objects -------------------------------------------------------------------------------------------------


class Fatal(Exception):
    """An error from a method that nothing should call."""


class _Raising:
    def __str__(self):
        raise ValueError("no text")

    __repr__ = __str__
    __bool__ = __len__ = __iter__ = __hash__ = __str__

    def __eq__(self, other):
        raise ValueError("not comparable")


class _Looping:
    def __str__(self):
        return str(self)

    __repr__ = __str__


class _Fatal:
    def __str__(self):
        raise Fatal

    __repr__ = __str__


class _NotText:
    def __str__(self):
        return 5


class _LyingClass:
    @property
    def __class__(self):
        raise RuntimeError("outside of a request")


class _LyingMeta(type):
    def __getattribute__(cls, name):
        raise ValueError(name)


class _OfLyingMeta(metaclass=_LyingMeta):
    pass


class _ErrorOfLyingMeta(Exception, metaclass=_LyingMeta):
    pass


def _refuse(*args, **kwargs):
    raise Fatal("an overridden method was called")


def _raise(*args):
    raise ValueError("a dictionary may compare")


class HostileStr(str):
    """A string with methods that raise. Only ``__eq__``, which dictionaries call, raises an error of an ordinary kind."""

    __slots__ = ()
    __eq__ = _raise
    __str__ = __repr__ = __len__ = __bool__ = __getitem__ = __iter__ = __contains__ = __format__ = _refuse
    upper = strip = encode = isascii = startswith = _refuse
    __hash__ = str.__hash__


class HostileInt(int):
    __str__ = __repr__ = __index__ = __int__ = __float__ = __bool__ = __lt__ = __le__ = __ge__ = __gt__ = _refuse
    __format__ = bit_length = _refuse
    __hash__ = int.__hash__


class HostileFloat(float):
    __str__ = __repr__ = __float__ = __int__ = __bool__ = __lt__ = __le__ = __ge__ = __gt__ = __format__ = _refuse
    __hash__ = float.__hash__


class HostileList(list):
    __iter__ = __len__ = __getitem__ = __bool__ = __repr__ = __contains__ = _refuse


class HostileDict(dict):
    items = keys = values = get = __iter__ = __len__ = __getitem__ = __bool__ = __repr__ = __contains__ = _refuse


class HostileTuple(tuple):
    __slots__ = ()
    __iter__ = __len__ = __getitem__ = __bool__ = __repr__ = _refuse


class HostileDatetime(dt.datetime):
    def isoformat(self, *args):
        return object()


class HostileTimedelta(dt.timedelta):
    def total_seconds(self):
        return float("nan")


class HostileUUID(uuid.UUID):
    def __str__(self):
        return HostileStr("u")


class HostileMapping(collections.abc.Mapping):
    def __init__(self, error):
        self.error = error

    def __iter__(self):
        raise self.error

    __getitem__ = __len__ = __iter__


class EndlessMapping(collections.abc.Mapping):
    def __iter__(self):
        number = 0
        while True:
            yield (number := number + 1)

    def __getitem__(self, key):
        return key

    def __len__(self):
        return 1


class EndlessSet(collections.abc.Set):
    def __iter__(self):
        while True:
            yield 1

    def __contains__(self, item):
        return True

    def __len__(self):
        return 1


class BadError(Exception):
    def __str__(self):
        raise ValueError("no text")


class FatalError(Exception):
    def __str__(self):
        raise Fatal


class ErrorOfHostileText(Exception):
    def __str__(self):
        return HostileStr("text")


class SameText:
    def __str__(self):
        return "same"


class ObjectId:
    """An identifier as of a database driver: one value, compared and hashed by it."""

    def __init__(self, text):
        self._text = text

    def __str__(self):
        return self._text

    def __eq__(self, other):
        return isinstance(other, ObjectId) and self._text == other._text

    def __hash__(self):
        return hash(self._text)


class Record(ObjectId):
    """A record as of Django's models: compared by its key, but more than an identifier."""

    def __init__(self, text, key):
        super().__init__(text)
        self.key = key


@dataclasses.dataclass(frozen=True)
class UserId:
    value: str

    def __str__(self):
        return self.value


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int = 1
    y: int = 2


class Colour(enum.Enum):
    RED = "red"
    NESTED = ("a", 1)


class LowerStatus(str, enum.Enum):  # noqa: UP042 (the form of older code)
    SUCCESS = "success"
    FAILURE = "failure"


class LowerOperation(str, enum.Enum):  # noqa: UP042
    STORE = "store"
    CUSTOM = "custom_thing"


class Number(enum.IntEnum):
    ONE = 1


@dataclasses.dataclass
class Point:
    x: int = 1
    inner: object = None


class Struct(msgspec.Struct):
    x: int = 1


class LikeAttrs:
    __attrs_attrs__ = (collections.namedtuple("Attribute", "name")("x"),)
    x = 1


class LikePydantic:
    __pydantic_fields__ = {"x": None}  # noqa: RUF012
    x = 1


def deep(levels=100_000, wrap=lambda inner: [inner]):
    """Return containers within each other, made without the garbage collector, which would take ten times as long."""
    value = "bottom"
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(levels):
            value = wrap(value)
    finally:
        if was_enabled:
            gc.enable()
    return value


def cyclic_list():
    value = [1]
    value.append(value)
    return value


def cyclic_dict():
    value = {"a": 1}
    value["self"] = {"again": value}
    return value


def cyclic_object():
    value = Point()
    value.inner = value
    return value


def dag_bomb(levels=40):
    value = ["x"] * 10
    for _ in range(levels):
        value = [value] * 10
    return value


def _named(**factories):
    for name, factory in factories.items():
        factory.__name__ = factory.__qualname__ = name
    return list(factories.values())


HOSTILE = _named(
    raising=lambda: _Raising(),
    looping=lambda: _Looping(),
    fatal=lambda: _Fatal(),
    not_text=lambda: _NotText(),
    lying_class=lambda: _LyingClass(),
    of_lying_meta=lambda: _OfLyingMeta(),
    error_of_lying_meta=lambda: _ErrorOfLyingMeta("x"),
    type_of_lying_meta=lambda: _OfLyingMeta,
    hostile_str=lambda: HostileStr("aé"),
    hostile_surrogates=lambda: HostileStr("a\ud800"),
    hostile_int=lambda: HostileInt(7),
    hostile_huge_int=lambda: HostileInt(2**70),
    hostile_float=lambda: HostileFloat(1.5),
    hostile_nan=lambda: HostileFloat("nan"),
    hostile_list=lambda: HostileList([1, HostileStr("x")]),
    hostile_dict=lambda: HostileDict({HostileStr("k"): HostileInt(1)}),
    hostile_tuple=lambda: HostileTuple((1, 2)),
    hostile_datetime=lambda: HostileDatetime(2025, 1, 1),
    hostile_timedelta=lambda: HostileTimedelta(1),
    hostile_uuid=lambda: HostileUUID(int=1),
    raising_mapping=lambda: HostileMapping(ValueError()),
    fatal_mapping=lambda: HostileMapping(StopIteration()),
    chain_map=lambda: collections.ChainMap({number: number for number in range(20_000)}),
    endless_set=lambda: EndlessSet(),
    bad_error=lambda: BadError("x"),
    fatal_error=lambda: FatalError("x"),
    error_of_hostile_text=lambda: ErrorOfHostileText(),
    error_group=lambda: ExceptionGroup("both", [ValueError("a"), BadError()]),
    surrogates=lambda: "\ud800a\udfff",
    nan=lambda: float("nan"),
    infinity=lambda: -float("inf"),
    huge_int=lambda: 10**5_000,
    nearly_int64=lambda: 2**63,
    below_int64=lambda: -(2**63) - 1,
    huge_decimal=lambda: decimal.Decimal("1E+999999"),
    decimal_nan=lambda: decimal.Decimal("NaN"),
    complex=lambda: 1j,
    deep_list=lambda: deep(),
    deep_dict=lambda: deep(wrap=lambda inner: {"k": inner}),
    deep_tuple=lambda: deep(wrap=lambda inner: (inner,)),
    cyclic_list=cyclic_list,
    cyclic_dict=cyclic_dict,
    cyclic_object=cyclic_object,
    dag_bomb=lambda: dag_bomb(),
    many_values=lambda: list(range(50_000)),
    long_text=lambda: "é\n" * 50_000,
    long_key=lambda: {"k" * 50_000: 1},
    odd_keys=lambda: {1: "a", "1": "b", None: "c", True: "d", (1, 2): "e", 2.5: "f", b"b": "g", "\ud800": "h"},
    same_keys=lambda: {SameText(): number for number in range(9_000)},
    hostile_keys=lambda: {_Fatal(): 1, HostileStr("k"): 2, HostileInt(3): 3},
    bytes=lambda: b"\x00\xff",
    bytearray=lambda: bytearray(b"x"),
    memoryview=lambda: memoryview(b"x"),
    object=lambda: object(),
    function=lambda: deep,
    type=lambda: Point,
    generator=lambda: (number for number in [1]),
    lock=lambda: __import__("threading").Lock(),
    enum=lambda: Colour.NESTED,
    str_enum=lambda: LowerStatus.SUCCESS,
    int_enum=lambda: Number.ONE,
    dataclass=lambda: Point(inner=Point()),
    struct=lambda: Struct(),
    attrs=lambda: LikeAttrs(),
    object_id=lambda: ObjectId("507f1f77bcf86cd799439011"),
    record=lambda: Record("ann", 1),
    unset=lambda: Struct(x=msgspec.UNSET),
    pydantic=lambda: LikePydantic(),
    date=lambda: dt.date(2025, 1, 1),
    uuid=lambda: uuid.UUID(int=1),
    path=lambda: pathlib.Path("/tmp/x"),
    path_of_surrogates=lambda: pathlib.Path("/tmp/\udcff"),
    namespace=lambda: logging.makeLogRecord({}),
    marks=lambda: {"_audit": {"forged": "mark"}},
)
"""Factories of hostile values."""

hostile = st.sampled_from(HOSTILE)

any_fields = st.dictionaries(
    st.one_of(
        st.sampled_from(
            [
                "operation",
                "user_id",
                "session_id",
                "entry_ids",
                "metadata",
                "status",
                "error_message",
                "duration_ms",
                "event_id",
                "timestamp",
                "kind",
                "_audit",
                "message",
            ]
        ),
        unruly_texts,
    ),
    st.one_of(hostile, json_values.map(lambda value: lambda: value), unruly_texts.map(lambda value: lambda: value)),
    max_size=6,
)
"""Any fields that an application could pass, with factories for values."""


def made(fields):
    """Return *fields* with the values of their factories."""
    return {name: make() for name, make in fields.items()}
