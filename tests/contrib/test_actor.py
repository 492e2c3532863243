"""The actor of an event: the rules that the middleware of every framework shares."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import types
import uuid
from functools import partial

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars, unbind_contextvars

from structlog_audit import AuditProcessor, AuditTypeError, get_audit_logger
from structlog_audit.contrib.actor import (
    FIELDS,
    SavedContext,
    bind_actor,
    client_address,
    current_actor,
    own_context,
    request_actor,
    safe_request_id,
    session_digest,
    user_id_of,
)
from structlog_audit.events.addresses import address_text

LEFT = {"user_id": "left", "session_id": "left", "request_id": "left", "client_address": "left", "tenant": "acme"}

texts_or_none = st.none() | st.text(min_size=1, max_size=8)


@given(before=st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, st.text(max_size=3))), data=st.data())
def test_bind_actor_binds_all_fields_and_restores_the_former_ones(before, data):
    """For any actor: in the block the fields are the actor's, afterwards they are those from before."""
    actor = data.draw(st.fixed_dictionaries(dict.fromkeys(FIELDS, texts_or_none)))
    with bind_actor(before):
        outside = get_contextvars()
        with bind_actor(actor):
            assert current_actor() == actor
            bind_contextvars(user_id="bound meanwhile")
        assert get_contextvars() == outside
    assert get_contextvars() == {}


def test_bind_actor_restores_the_former_fields_after_an_exception():
    """An exception restores the former context."""
    bind_contextvars(**LEFT)
    with pytest.raises(KeyboardInterrupt), bind_actor({"user_id": "u1"}):
        raise KeyboardInterrupt
    assert get_contextvars() == LEFT


names = st.sampled_from([*FIELDS, "tenant"])
acts = st.one_of(
    st.builds(partial, st.just(clear_contextvars)),
    st.builds(lambda name: partial(unbind_contextvars, name), names),
    st.builds(lambda name, value: partial(bind_contextvars, **{name: value}), names, st.text(max_size=3)),
)


@given(before=st.lists(acts, max_size=3), inside=st.lists(acts, max_size=3))
def test_nothing_that_a_block_binds_or_clears_is_left_after_it(before, inside):
    """For all ways to change structlog's contextvars: after the block they are what they were before it."""
    clear_contextvars()
    for act in before:
        act()
    outside = get_contextvars()
    with bind_actor({"user_id": "ada"}):
        for act in inside:
            act()
    assert get_contextvars() == outside
    clear_contextvars()


def through_bound_logger():
    get_audit_logger().info("STORE")


def through_logging():
    logging.getLogger("audit").info("STORE")


def through_processor():
    structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[structlog.contextvars.merge_contextvars, AuditProcessor()]
    ).info("STORE", operation="STORE")


def through_chain(last):
    structlog.wrap_logger(
        logging.getLogger("audit"),
        processors=[structlog.contextvars.merge_contextvars, last],
        wrapper_class=structlog.stdlib.BoundLogger,
    ).info("STORE")


ENTRY_POINTS = pytest.mark.parametrize(
    "record",
    [
        through_bound_logger,
        through_logging,
        through_processor,
        partial(through_chain, structlog.stdlib.ProcessorFormatter.wrap_for_formatter),
        partial(through_chain, structlog.stdlib.render_to_log_kwargs),
    ],
    ids=["bound logger", "logging", "processor", "event dict", "extra"],
)


def recorded_actor(handler):
    """Return the actor in the only event."""
    (event,) = handler.query_events()
    address = event.metadata.get("client_address")
    return event.user_id, event.session_id, event.metadata.get("request_id"), address


ADA = {"user_id": "ada", "session_id": "s1", "request_id": "r1", "client_address": "192.0.2.7"}


@ENTRY_POINTS
def test_clearing_contextvars_keeps_the_actor(handler, record):
    """An inner middleware that clears structlog's contextvars, as structlog advises, does not erase the actor."""
    with bind_actor(ADA):
        clear_contextvars()
        record()
    assert recorded_actor(handler) == tuple(ADA.values())


@ENTRY_POINTS
def test_value_bound_around_the_actor_does_not_override_it(handler, record):
    """Another middleware's user, and a field that the actor lacks, are not in events."""
    bind_contextvars(user_id=7, session_id="other", client_address="other")
    with bind_actor({**ADA, "session_id": None}):
        record()
    assert recorded_actor(handler) == ("ada", None, "r1", "192.0.2.7")


@ENTRY_POINTS
def test_value_bound_with_the_actor_overrides_it(handler, record):
    """A user that only the view knows is bound there, and counts, also after the context was cleared."""
    bind_contextvars(user_id=7)
    with bind_actor(ADA):
        clear_contextvars()
        bind_contextvars(user_id="bob")
        record()
    assert recorded_actor(handler) == ("bob", "s1", "r1", "192.0.2.7")


def test_field_of_a_call_overrides_the_actor(handler, log):
    """Fields of the call take precedence, also None, and the very object that another middleware has bound."""
    bind_contextvars(session_id="s2")
    with bind_actor(ADA):
        log.info("STORE", user_id=None, session_id="s2")
    assert recorded_actor(handler) == (None, "s2", "r1", "192.0.2.7")


def test_values_of_another_middleware_stay_as_they_are_bound():
    """What another middleware has bound stays the same object in the application's own log, None included."""
    bound = {"user_id": uuid.UUID(int=7), "session_id": None, "ip": "192.0.2.7"}
    bind_contextvars(**bound)
    with bind_actor(ADA):
        assert get_contextvars() == {**bound, "request_id": "r1", "client_address": "192.0.2.7"}
    assert get_contextvars() == bound


def test_actor_in_the_block_of_another_replaces_what_that_bound():
    """The fields of an outer actor do not stay in the application's own log."""
    with bind_actor(ADA):
        with bind_actor({"user_id": "bob"}):
            assert get_contextvars() == {"user_id": "bob"}
            assert current_actor() == {**dict.fromkeys(FIELDS), "user_id": "bob"}
        assert current_actor() == ADA


class Steps:
    """Awaits several times; collects the context of each step, and how each ended."""

    def __init__(self):
        self.tenants = []

    def note(self):
        self.tenants.append(get_contextvars().get("tenant"))

    async def __call__(self, queue):
        self.note()
        try:
            first = await queue.get()
            self.note()
            return first, await queue.get()
        finally:
            self.note()
            bind_contextvars(tenant="bound outside")


def test_function_around_a_context_runs_each_step_in_it():
    """Its steps see the saved context, the code between them its own, and each keeps what it binds."""

    async def run():
        bind_contextvars(tenant="outside")
        steps = Steps()
        with own_context() as outside:
            bind_contextvars(tenant="inside")
            queue = asyncio.Queue()
            task = asyncio.create_task(outside.around(steps)(queue))
            queue.put_nowait(1)
            queue.put_nowait(2)
            assert await task == (1, 2)
            assert get_contextvars() == {"tenant": "inside"}
        assert steps.tenants == ["outside"] * 3
        assert get_contextvars() == {"tenant": "bound outside"}

    asyncio.run(run())


def test_function_around_a_context_is_a_coroutine_function():
    """Code that creates a task of its result works, also on Python 3.12, which takes no generators for that."""

    async def function():
        pass

    coroutine = SavedContext().around(function)()
    assert type(coroutine) is types.CoroutineType
    coroutine.close()


def test_function_around_a_context_passes_cancellation_and_errors_on():
    """A cancelled task ends its function in the saved context, and an exception reaches the caller."""

    async def fail():
        raise ValueError("no")

    async def run():
        steps = Steps()
        with own_context() as outside:
            bind_contextvars(tenant="inside")
            task = asyncio.create_task(outside.around(steps)(asyncio.Queue()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(ValueError, match="no"):
                await outside.around(fail)()
        assert steps.tenants == [None, None]

    asyncio.run(run())


class User:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Unfinished:
    """A user like Starlette's BaseUser that does not implement `identity`."""

    @property
    def identity(self):
        raise NotImplementedError


ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("user", "found"),
    [
        (None, None),
        (False, None),
        (User(is_authenticated=False, pk=1), None),
        ("u1", "u1"),
        (0, "0"),
        (ID, str(ID)),
        (User(is_authenticated=True, pk=7, username="ada"), "7"),
        (User(pk=None, id="i", identity="j"), "i"),
        (User(identity="j", username="ada"), "j"),
        (User(username="ada"), "ada"),
    ],
)
def test_user_id_of_returns_the_first_id_of_a_user(user, found):
    """An anonymous user has the id None, a plain id is kept, and an object stands for its first id."""
    assert user_id_of(user) == found


@pytest.mark.parametrize("user", [User(email="ada@example.org"), Unfinished()])
def test_user_id_of_refuses_a_user_without_an_id(user):
    """A known user without an id is an error: an event without its user would be wrong evidence."""
    with pytest.raises(
        AuditTypeError, match=r"expected an object with one of pk, id, identity, username, got \w+; pass a user="
    ):
        user_id_of(user)


@given(st.text(max_size=150))
def test_safe_request_id_is_short_and_plain(header):
    """For all headers: the id is the header or a new one, and has only plain characters."""
    found = safe_request_id(header, new=lambda: "new")
    assert found in (header, "new")
    assert 1 <= len(found) <= 128
    assert found.isascii()
    assert not set(found) & set(" \r\n\t\"'<>{}\\;,\x00\x1b")


@pytest.mark.parametrize("header", ["a", "7f3a-01_B.c:d/e+f=", "x" * 128])
def test_safe_request_id_keeps_common_formats(header):
    """UUIDs, ULIDs, trace ids and base64 are kept unchanged."""
    assert safe_request_id(header) == header


@pytest.mark.parametrize("header", [None, "", "x" * 129, "a b", "a\n", "ä", '{"a":1}'])
def test_safe_request_id_replaces_an_unsafe_header(header):
    """A header that is too long or not plain is replaced, by another id each time."""
    assert len({safe_request_id(header), safe_request_id(header), header}) == 3


def test_request_actor_keeps_a_bound_request_id():
    """The trail uses the request id that the application's logs use."""
    options = {"peer": None, "forwarded_for": None, "trusted_proxies": 0}
    bind_contextvars(request_id="outer")
    assert request_actor("u1", "s1", request_id="inner", **options) == {
        "user_id": "u1",
        "session_id": "s1",
        "request_id": "outer",
        "client_address": None,
    }


@pytest.mark.parametrize(
    ("forwarded", "proxies", "found"),
    [
        ("6.6.6.6", 0, "10.0.0.1"),
        (None, 1, "10.0.0.1"),
        ("", 1, "10.0.0.1"),
        ("1.2.3.4", 1, "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4", 1, "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4,10.0.0.9", 2, "1.2.3.4"),
        ("1.2.3.4", 2, "10.0.0.1"),
        ("1.2.3.4:5678", 1, "1.2.3.4"),
        ("[2001:DB8::1]:443", 1, "2001:db8::1"),
        ("[2001:db8::1]", 1, "2001:db8::1"),
        ("2001:db8::1", 1, "2001:db8::1"),
        ("unknown", 1, "10.0.0.1"),
        ("fe80::1%<script>", 1, "10.0.0.1"),
        ("[]:80", 1, "10.0.0.1"),
        ("[]", 1, "10.0.0.1"),
        (":80", 1, "10.0.0.1"),
        ("[1.2.3.4", 1, "10.0.0.1"),
        ("1.2.3.4]:80", 1, "10.0.0.1"),
        ("6.6.6.6,[]:80", 1, "10.0.0.1"),
        ("6.6.6.6,,", 1, "10.0.0.1"),
    ],
)
def test_client_address_trusts_only_entries_of_trusted_proxies(forwarded, proxies, found):
    """The address is as many entries from the right as there are trusted proxies; otherwise it is the peer's."""
    assert client_address("10.0.0.1", forwarded, proxies) == found


@given(forged=st.text(), proxies=st.integers(1, 4), address=st.ip_addresses())
def test_client_address_ignores_entries_that_the_client_forged(forged, proxies, address):
    """Whatever a client sends, the entry of the outermost trusted proxy is used."""
    appended = [str(address), *["10.0.0.2"] * (proxies - 1)]
    assert client_address("10.0.0.1", ",".join([forged, *appended]), proxies) == address_text(str(address))


# Texts of the parts of an address are malformed in more ways than any text.
parts = st.sampled_from(["[", "]", ":", ".", ",", "%", " ", "80", "1.2.3.4", "::1", "a"])
malformed = st.text() | st.lists(parts, max_size=6).map("".join)


@given(header=malformed, proxies=st.integers(0, 3))
def test_client_address_is_always_an_ip_address(header, proxies):
    """For all headers: the recorded address is an IP address, by default the peer's, or none without a peer."""
    assert ipaddress.ip_address(client_address("10.0.0.1", header, proxies))
    assert client_address("", header, 0) is None
    found = client_address(None, header, proxies)
    assert found is None or ipaddress.ip_address(found)


def test_session_digest_hides_the_key():
    """A session key is recorded as its digest, and an absent key as None."""
    assert session_digest("secret") == "2bb80d537b1da3e38bd30361aa855686"
    assert session_digest(None) is None
    assert session_digest("") is None
