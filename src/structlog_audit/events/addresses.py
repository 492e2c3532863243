"""IP addresses as text, the same on every Python."""

from __future__ import annotations

import ipaddress


def address_text(text: str) -> str | None:
    """Return the IP address *text* in its canonical form (RFC 5952), or None if it is not an address.

    A scope id is left out: it may be any text, and means something only on the host itself (RFC 4007 §11).
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None

    if isinstance(address, ipaddress.IPv4Address):
        return str(address)

    # Up to Python 3.12, `str` writes the last four bytes of such an address in hexadecimal (RFC 5952 §5).
    mapped = address.ipv4_mapped
    return f"::ffff:{mapped}" if mapped is not None else str(ipaddress.IPv6Address(int(address)))
