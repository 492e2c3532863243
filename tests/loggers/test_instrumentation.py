"""`audited` and `instrument`."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit import AuditTypeError, AuditValueError, audited, instrument


def plain(value, *, user_id=None):
    return value


async def coroutine(value, *, user_id=None):
    return value


def generator(value, *, user_id=None):
    yield value


async def async_generator(value, *, user_id=None):
    yield value


@pytest.mark.parametrize("function", [plain, coroutine, generator, async_generator])
def test_audited_function_keeps_its_signature_and_kind(function):
    """The wrapped function is of the same kind, and has the same signature and name."""
    wrapped = audited("STORE")(function)
    for is_kind in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction):
        assert is_kind(wrapped) == is_kind(function)
    assert inspect.signature(wrapped) == inspect.signature(function)
    assert wrapped.__name__ == function.__name__


@pytest.mark.parametrize("descriptor", [staticmethod, classmethod])
@pytest.mark.parametrize("how", ["audited", "instrument"])
def test_static_and_class_methods_stay_what_they_are(handler, how, descriptor):
    """A static or class method is recorded, and called with the same arguments as before."""

    class Store:
        delete = descriptor(lambda *args: args)

    expected = Store.delete("e1")
    if how == "audited":
        Store.delete = audited("FORGET")(vars(Store)["delete"])
    else:
        instrument(Store, {"delete": "FORGET"})
    assert Store().delete("e1") == Store.delete("e1") == expected
    assert handler.count_events(operation="FORGET") == 2


def test_audited_finds_fields_in_keyword_arguments(handler):
    """A field in ``**kwargs`` is found by its name, by instrument too; one that is missing is no field."""

    @audited("STORE", user_id="user", metadata={"tag": "tag", "all": lambda arguments: arguments["tag"]})
    def store(data, **options):
        return data

    class Store:
        def store(self, **options):
            return options

    instrumented = Store()
    instrument(instrumented, {"store": "RECALL"})
    store("x", user="u1", tag="t")
    instrumented.store(user_id="u2", entry_id="e2")
    instrumented.store()
    first, second, third = handler.iter_events()
    assert (first.user_id, first.metadata) == ("u1", {"tag": "t", "all": "t"})
    assert (second.user_id, second.entry_ids) == ("u2", ["e2"])
    assert (third.user_id, third.entry_ids, third.metadata) == (None, [], {})


def test_function_without_a_signature_is_recorded(handler):
    """The keyword arguments of a function in C without a signature are its fields."""
    assert audited("STORE", user_id="user_id")(dict)(user_id="u1") == {"user_id": "u1"}
    assert handler.query_events()[0].user_id == "u1"


@pytest.mark.parametrize("error", [ValueError("bad"), None])
def test_pick_that_raises_changes_neither_call_nor_status(handler, error):
    """The call runs, its outcome is its own, and the field that could not be determined is noted with the exception."""

    @audited("STORE", user_id=lambda arguments: 1 / 0, metadata={"size": lambda arguments: arguments["nope"]})
    def store():
        if error is not None:
            raise error
        return "e1"

    if error is None:
        assert store() == "e1"
    else:
        with pytest.raises(ValueError, match="bad"):
            store()
    (event,) = handler.query_events()
    assert event.status == ("SUCCESS" if error is None else "FAILURE")
    assert event.metadata == {
        "unavailable": {"user_id": "ZeroDivisionError: division by zero", "size": "KeyError: 'nope'"}
    }


def test_on_result_that_raises_changes_neither_result_nor_status(handler):
    """The caller gets the result, the event is a SUCCESS, and the exception is noted."""
    assert audited("STORE", on_result=lambda op, result: result.id)(lambda: 3)() == 3
    (event,) = handler.query_events()
    assert event.status == "SUCCESS"
    assert list(event.metadata["unavailable"]) == ["on_result"]


@pytest.mark.parametrize("how", [audited, lambda name, **options: instrument(Memory(), {"store": name}, **options)])
def test_on_result_that_is_not_a_function_is_refused(how):
    """A wrong type is an error at once, because an exception of on_result is only noted later."""
    with pytest.raises(AuditTypeError, match="on_result=3: expected a function"):
        how("STORE", on_result=3)


def test_audited_function_is_recorded_with_its_arguments(handler):
    """Members come from parameters by name or from a function of the arguments; defaults count."""

    @audited(
        "STORE",
        user_id="user",
        session_id=lambda arguments: arguments["session"].upper(),
        metadata={"size": lambda arguments: len(arguments["data"]), "tag": "tag"},
        on_result=lambda op, result: op.entry_ids.append(result),
    )
    def store(data, user, session="s1", *, tag="none"):
        """Keep it."""
        return f"entry-{data}"

    assert store("abc", "u1") == "entry-abc"
    assert (store.__name__, store.__doc__) == ("store", "Keep it.")
    (event,) = handler.query_events()
    assert (event.operation, event.user_id, event.session_id, event.entry_ids) == ("STORE", "u1", "S1", ["entry-abc"])
    assert event.metadata == {"size": 3, "tag": "none"}
    assert event.duration_ms >= 0


def test_audited_coroutine_function_is_recorded_after_it_ends(handler):
    """The event of an async function has its outcome, and on_result gets its result."""

    @audited("RECALL", entry_ids="ids", on_result=lambda op, result: op.metadata.update(found=result))
    async def recall(ids):
        await asyncio.sleep(0)
        return len(ids)

    assert asyncio.run(recall(["e1", "e2"])) == 2
    (event,) = handler.query_events()
    assert (event.entry_ids, event.metadata) == (["e1", "e2"], {"found": 2})


def test_exception_of_an_audited_function_is_recorded_and_raised(handler):
    """A failing call is a FAILURE, and its exception reaches the caller."""

    @audited("FORGET", entry_ids="entry_id")
    def forget(entry_id):
        raise KeyError(entry_id)

    with pytest.raises(KeyError):
        forget("e1")
    (event,) = handler.query_events()
    assert (event.status, event.entry_ids) == ("FAILURE", ["e1"])


def test_call_with_wrong_arguments_is_recorded_and_raised(handler):
    """A call whose arguments do not fit is a FAILURE without members, and its TypeError reaches the caller."""

    @audited("FORGET", entry_ids="entry_id")
    def forget(entry_id):
        raise AssertionError("it was called")

    with pytest.raises(TypeError):
        forget()
    (event,) = handler.query_events()
    assert (event.status, event.entry_ids) == ("FAILURE", [])


def test_audited_refuses_an_unknown_parameter():
    """An unknown parameter is an error at decoration, and the message lists the parameters."""
    with pytest.raises(AuditValueError, match=r"'usr': expected the name of a parameter of .*, which has user"):
        audited("STORE", user_id="usr")(lambda user: None)


def test_audited_refuses_an_object_that_is_not_callable():
    """Only functions can be decorated."""
    with pytest.raises(AuditTypeError, match="expected a function, got 3"):
        audited("EXPORT")(3)


class Memory:
    """An object of an application."""

    def __init__(self):
        self.entries = {}

    def store(self, data, user_id=None):
        self.entries[data] = user_id
        return data

    async def forget(self, entry_id):
        del self.entries[entry_id]

    def count(self):
        return len(self.entries)


def test_instrumented_methods_are_recorded_with_recognised_parameters(handler):
    """Methods of one object are recorded, with the members that their parameters are named after."""
    memory, other = Memory(), Memory()
    instrument(memory, {"store": "STORE", "forget": "FORGET", "count": "COUNT"})
    memory.store("e1", user_id="u1")
    asyncio.run(memory.forget("e1"))
    assert memory.count() == 0
    other.store("e2")
    assert [(e.operation, e.user_id, e.entry_ids) for e in handler.iter_events()] == [
        ("STORE", "u1", []), ("FORGET", None, ["e1"]), ("COUNT", None, []),
    ]  # fmt: skip


def test_undoing_an_instrumentation_stops_the_recording(handler):
    """The returned function leaves the object as it was, and may be called again."""
    memory = Memory()
    undo = instrument(memory, {"store": "STORE"})
    memory.store("e1")
    undo()
    undo()
    memory.store("e3")
    assert handler.count_events() == 1
    assert "store" not in vars(memory)


def test_undoing_restores_an_attribute_of_the_instance(handler):
    """If the method was an attribute of the object itself, undoing restores that attribute."""
    memory = Memory()
    memory.count = original = lambda: 7
    instrument(memory, {"count": "COUNT"})()
    assert memory.count is original


def test_explicit_picks_override_parameters_found_by_name(handler):
    """Explicit picks win, for the methods that have the parameter."""
    memory = Memory()
    instrument(memory, {"store": "STORE", "count": "COUNT"}, user_id="data", metadata={"who": "user_id"})
    memory.store("e1", user_id="u1")
    memory.count()
    assert [(event.user_id, event.metadata) for event in handler.iter_events()] == [("e1", {"who": "u1"}), (None, {})]


def test_audited_without_an_operation_is_refused():
    """The decorator without its argument is an error that shows how to write it."""
    with pytest.raises(AuditTypeError, match=r'expected the name of an operation: @audited\("document.read"\)'):
        audited(lambda: None)


def test_instrument_refuses_operations_that_are_not_a_mapping():
    """A list of methods is an error that names the parameter."""
    with pytest.raises(AuditTypeError, match=r"operations=\['store'\]: expected a mapping"):
        instrument(Memory(), ["store"])


def test_instrument_refuses_an_unknown_method():
    """A method that the object lacks is an error that names it."""
    with pytest.raises(AuditValueError, match="Memory has no method 'nope'"):
        instrument(Memory(), {"nope": "STORE"})


def test_instrument_refuses_a_method_that_cannot_be_replaced():
    """An object without settable attributes is an error that names the method."""

    class Slotted:
        __slots__ = ()

        def store(self):
            pass

    with pytest.raises(AuditTypeError, match="'store' of Slotted can't be replaced"):
        instrument(Slotted(), {"store": "STORE"})


def test_instrumenting_twice_records_once_with_the_last_options(handler):
    """A method that is instrumented twice for one operation is recorded once."""
    memory = Memory()
    instrument(memory, {"store": "STORE"})
    instrument(memory, {"store": "STORE"}, user_id="data")
    memory.store("e1", user_id="u1")
    assert [event.user_id for event in handler.iter_events()] == ["e1"]


def test_instrumented_audited_method_is_recorded_once(handler):
    """A decorated method that is instrumented for the same operation is recorded once; for another one, twice."""

    class Store:
        @audited("STORE")
        def store(self, user_id):
            return self

    store = Store()
    instrument(store, {"store": "STORE"})
    assert store.store("u1") is store
    assert [event.user_id for event in handler.iter_events()] == ["u1"]
    instrument(store, {"store": "other"})
    store.store("u2")
    assert handler.count_events() == 3


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_instrumentations_can_be_undone_in_any_order(handler, order):
    """The object is as before after the last undo, and recorded until then."""
    memory = Memory()
    undo = [instrument(memory, {"store": "STORE"}) for _ in range(2)]
    undo[order[0]]()
    memory.store("e1")
    undo[order[1]]()
    memory.store("e2")
    assert handler.count_events() == 1
    assert "store" not in vars(memory)


def test_instrument_that_fails_leaves_the_object_as_it_was():
    """If one method can't be instrumented, none is."""
    memory = Memory()
    with pytest.raises(AuditValueError):
        instrument(memory, {"store": "STORE", "nope": "FORGET"})
    assert "store" not in vars(memory)


def test_instrument_refuses_a_special_method_of_an_object():
    """Python looks special methods up in the class, so a replacement in the object would never be called."""

    class Callable:
        def __call__(self):
            pass

    with pytest.raises(AuditValueError, match="'__call__' by the class Callable"):
        instrument(Callable(), {"__call__": "STORE"})


def test_instrument_of_an_object_that_refuses_attributes_is_a_clear_error():
    """Whatever the object raises, the error names the method."""

    class Model:
        def store(self):
            pass

        def __setattr__(self, name, value):
            raise ValueError("no such field")

    with pytest.raises(AuditTypeError, match="'store' of Model can't be replaced: no such field"):
        instrument(Model(), {"store": "STORE"})


FUNCTIONS = [
    lambda a, b=2, *, c=3, d: None,
    lambda a, /, b, *, c=3: None,
    lambda *args, c=3: None,
    lambda a, b=2, **others: None,
    lambda: None,
]
"""Functions with parameters of all kinds."""


@settings(max_examples=300, deadline=None)
@given(
    function=st.sampled_from(FUNCTIONS),
    args=st.lists(st.integers(), max_size=4),
    kwargs=st.dictionaries(st.sampled_from("abcdx"), st.integers(), max_size=4),
)
def test_arguments_of_a_call_are_found_as_python_binds_them(function, args, kwargs):
    """Functions of the arguments see those that Python passes to the parameters; none for a call that Python refuses."""
    seen = []
    wrapped = audited("STORE", user_id=lambda arguments: seen.append(list(arguments.items())))(function)
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        with pytest.raises(TypeError):
            wrapped(*args, **kwargs)
        assert seen == []
        return

    bound.apply_defaults()
    wrapped(*args, **kwargs)
    assert seen == [list((kwargs | bound.arguments).items())]


class Store:
    """An object with a method that is recorded."""

    def put(self, entry_id):
        return entry_id


def test_instrument_as_a_context_manager_records_the_calls_in_its_block(handler):
    """Within the block calls are recorded; behind it, also after an exception, the methods are as before."""
    store = Store()

    def fail_after_a_call():
        with instrument(store, {"put": "store.put"}):
            store.put("e1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_a_call()
    store.put("e2")
    assert [event.entry_ids for event in handler.query_events()] == [["e1"]]
    assert vars(store) == {}
