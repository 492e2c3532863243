"""What the persons of `days/` have at the beginning of their day: trails of two months, and the keys of their seals."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from structlog_audit import AuditFileHandler, AuditHandler, AuditLogger, Redactor
from structlog_audit.integrity.signing import generate_key
from structlog_audit.testing import FrozenClock

ORIGIN = "audit.example/shop/web1"

MONTHS = (dt.datetime(2025, 1, 1, tzinfo=dt.UTC), dt.datetime(2025, 2, 1, tzinfo=dt.UTC))

USERS = ("ann", "bob", "cleo")


def days_of_a_shop(
    begin: dt.datetime, days: int, exports: int, refused: int
) -> Iterator[tuple[dt.datetime, dict[str, Any]]]:
    """Yield the events of some days with their times: readings, *exports* by bob, and *refused* ones of mallory at night."""
    for number in range(days * 8):
        time = begin + dt.timedelta(days=number // 8, hours=8 + number % 8)
        fields = {"user_id": USERS[number % 3], "entry_ids": [f"order-{number % 50}"], "duration_ms": 2.0 + number % 7}
        yield time, {"operation": "order.read", **fields}

    for number in range(exports):
        time = begin + dt.timedelta(days=number, hours=17)
        yield time, {"operation": "customers.export", "user_id": "bob", "entry_ids": [f"list-{number}"]}

    for number in range(refused):
        time = begin + dt.timedelta(days=days // 2, hours=2, minutes=number)
        yield (
            time,
            {"operation": "customers.export", "user_id": "mallory", "error_message": "PermissionError: no admin"},
        )


def open_target(folder: Path, clock: FrozenClock, size: int = 40_000) -> tuple[AuditFileHandler, str]:
    """Return the target of a sealed trail in a new *folder*, and its verifier key; the private key is beside the folder."""
    folder.mkdir()
    private = str(folder.parent / "audit.pem")
    key = generate_key(private, ORIGIN)
    integrity = {"origin": ORIGIN, "key": private}
    return AuditFileHandler(folder / "audit.jsonl", maxBytes=size, clock=clock.now, integrity=integrity), str(key)


def write_trail(folder: Path, begins: Sequence[dt.datetime] = MONTHS, days: int = 28, size: int = 40_000) -> str:
    """Write a sealed trail of two periods of a shop to *folder*, and return its verifier key."""
    clock = FrozenClock(begins[0])
    target, key = open_target(folder, clock, size)
    before = days_of_a_shop(begins[0], days, exports=3, refused=0)
    after = days_of_a_shop(begins[1], days, exports=4, refused=30)
    with AuditLogger(handler=AuditHandler(target=target, clock=clock)) as audit:
        for time, fields in sorted([*before, *after], key=lambda event: event[0]):
            clock.move_to(time)
            audit.record(**fields)
    return key


def write_customers(folder: Path) -> str:
    """Write a sealed trail with a vault, of two customers and what an employee did with them; return its verifier key."""
    clock = FrozenClock("2025-01-15T09:00:00Z", step=dt.timedelta(seconds=1))
    target, key = open_target(folder, clock)
    paths = {"user_id": "subject", "metadata.customer": "subject"}
    redactor = Redactor(
        keys={"email": "erasable:metadata.customer|user_id"}, paths=paths, vault=str(folder / "audit.vault")
    )
    with AuditLogger(handler=AuditHandler(target=target, redactor=redactor, clock=clock)) as audit:
        for customer in ("ottilie", "grace"):
            mail = f"{customer}@example.org"
            audit.record("account.create", customer, metadata={"email": mail})
            audit.record("order.create", customer, entry_ids=[f"order-of-{len(customer)}"], metadata={"email": mail})
            audit.record("customer.read", "bob", metadata={"customer": customer, "email": mail})
    return key
