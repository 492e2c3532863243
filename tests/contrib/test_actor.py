"""The actor of an event: the rules that the middleware of every framework shares."""

from __future__ import annotations

import ipaddress
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import bind_contextvars, get_contextvars

from structlog_audit import AuditTypeError
from structlog_audit.contrib.actor import (
    FIELDS,
    bind_actor,
    client_address,
    current_actor,
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
    """An exception restores the former fields, and fields that are not part of an actor stay as they are."""
    bind_contextvars(**LEFT)

    def interrupted():
        assert get_contextvars() == {"user_id": "u1", "tenant": "acme"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), bind_actor({"user_id": "u1"}):
        interrupted()
    assert get_contextvars() == LEFT


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
