"""`audited` and `instrument`."""

from __future__ import annotations

import asyncio

import pytest

from structlog_audit import AuditTypeError, AuditValueError, audited, instrument


def test_a_function_is_recorded_with_its_arguments(handler):
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


def test_a_coroutine_function_is_recorded_when_it_is_done(handler):
    """The event of an async function has its outcome, and its result goes to on_result."""

    @audited("RECALL", entry_ids="ids", on_result=lambda op, result: op.metadata.update(found=result))
    async def recall(ids):
        await asyncio.sleep(0)
        return len(ids)

    assert asyncio.run(recall(["e1", "e2"])) == 2
    (event,) = handler.query_events()
    assert (event.entry_ids, event.metadata) == (["e1", "e2"], {"found": 2})


def test_exceptions_are_recorded_and_go_on(handler):
    """A failing call is a FAILURE, also when its arguments do not fit."""

    @audited("FORGET", entry_ids="entry_id")
    def forget(entry_id):
        raise KeyError(entry_id)

    with pytest.raises(KeyError):
        forget("e1")
    with pytest.raises(TypeError):
        forget()
    assert [(event.status, event.entry_ids) for event in handler.query_events()] == [
        ("FAILURE", []), ("FAILURE", ["e1"]),
    ]  # fmt: skip


def test_a_parameter_that_is_not_there_is_an_error():
    """A wrong name is found when the function is decorated, and the message has those that there are."""
    with pytest.raises(AuditValueError, match="no parameter 'usr': it has user"):
        audited("STORE", user_id="usr")(lambda user: None)


def test_generators_are_refused():
    """Calling a generator function does nothing yet, so recording the call would say something untrue."""

    def generate():
        yield

    async def generate_async():
        yield

    for function in (generate, generate_async):
        with pytest.raises(AuditTypeError, match="generator"):
            audited("EXPORT")(function)
    with pytest.raises(AuditTypeError, match="no function"):
        audited("EXPORT")(3)


class Memory:
    """Some object of an application."""

    def __init__(self):
        self.entries = {}

    def store(self, data, user_id=None):
        self.entries[data] = user_id
        return data

    async def forget(self, entry_id):
        del self.entries[entry_id]

    def count(self):
        return len(self.entries)


def test_an_object_is_instrumented_and_set_free_again(handler):
    """Methods are recorded with the members their parameters are called after; undoing leaves the object as it was."""
    memory, other = Memory(), Memory()
    undo = instrument(memory, {"store": "STORE", "forget": "FORGET", "count": "COUNT"})
    memory.store("e1", user_id="u1")
    asyncio.run(memory.forget("e1"))
    assert memory.count() == 0
    other.store("e2")
    assert [(e.operation, e.user_id, e.entry_ids) for e in handler.iter_events()] == [
        ("STORE", "u1", []), ("FORGET", None, ["e1"]), ("COUNT", None, []),
    ]  # fmt: skip
    undo()
    undo()
    memory.store("e3")
    assert handler.count_events() == 3
    assert "store" not in vars(memory)


def test_an_attribute_of_its_own_comes_back(handler):
    """If the method was an attribute of the object itself, undoing sets that back."""
    memory = Memory()
    memory.count = original = lambda: 7
    instrument(memory, {"count": "COUNT"})()
    assert memory.count is original


def test_what_is_given_goes_before_what_names_say(handler):
    """Explicit picks win, for those methods that have the parameter."""
    memory = Memory()
    instrument(memory, {"store": "STORE", "count": "COUNT"}, user_id="data", metadata={"who": "user_id"})
    memory.store("e1", user_id="u1")
    memory.count()
    assert [(event.user_id, event.metadata) for event in handler.iter_events()] == [("e1", {"who": "u1"}), (None, {})]


def test_what_cannot_be_instrumented_is_an_error():
    """A method that is not there or can't be replaced is named."""

    class Slotted:
        __slots__ = ()

        def store(self):
            pass

    with pytest.raises(AuditValueError, match="Memory has no method 'nope'"):
        instrument(Memory(), {"nope": "STORE"})
    with pytest.raises(AuditTypeError, match="'store' of Slotted can't be replaced"):
        instrument(Slotted(), {"store": "STORE"})
