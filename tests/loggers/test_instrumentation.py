"""`audited` and `instrument`."""

from __future__ import annotations

import asyncio

import pytest

from structlog_audit import AuditTypeError, AuditValueError, audited, instrument


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


def generate():
    yield


async def generate_async():
    yield


@pytest.mark.parametrize("function", [generate, generate_async])
def test_audited_refuses_a_generator_function(function):
    """A generator function does nothing when it is called, so a record of the call would be wrong."""
    with pytest.raises(AuditTypeError, match="generator"):
        audited("EXPORT")(function)


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
