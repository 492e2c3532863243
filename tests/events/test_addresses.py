"""Tests of `structlog_audit.events.addresses`: the text of an IP address."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.events.addresses import address_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "::ffff:203.0.113.7"),
        ("::FFFF:cb00:7107", "::ffff:203.0.113.7"),
        ("::ffff:cb00:7107%eth0", "::ffff:203.0.113.7"),
        ("fe80::1%a b=c\n", "fe80::1"),
        ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("64:ff9b::1.2.3.4", "64:ff9b::102:304"),
    ],
)
def test_address_has_its_canonical_text(text, expected):
    """An address is in the form of RFC 5952 on every Python, and has no scope id."""
    assert address_text(text) == expected


@pytest.mark.parametrize(
    "text", ["", "ann", "1.2.3", "01.2.3.4", " 1.2.3.4", "\uff11.2.3.4", "1.2.3.4%eth0", "fe80::1%"]
)
def test_other_text_is_not_an_address(text):
    """A text that is not exactly an address has none."""
    assert address_text(text) is None


@given(st.ip_addresses())
def test_text_of_every_address_names_the_same_address(address):
    """For all addresses, the text can be read back and is its own canonical text."""
    text = address_text(str(address))
    assert ipaddress.ip_address(text) == address
    assert address_text(text) == text
