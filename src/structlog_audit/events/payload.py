"""The members of an event except id and timestamp, in the order of a line, with the types that a line can hold.

There are two structs so that an application cannot forge an event of the library: only `TrailPayload` has a kind.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

# The bounds exclude infinities and NaN.
_Float = Annotated[float, msgspec.Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]


def _value_type(inner: Any) -> Any:
    """Return the type of scalars and small containers of *inner*.

    The length limit bounds the size of a value that contains the same object many times.
    """
    small = msgspec.Meta(max_length=100)
    scalar = str | _Int | _Float | bool | None
    if inner is None:
        return scalar

    small_list = Annotated[list[inner], small]
    small_dict = Annotated[dict[str, inner], small]
    return scalar | small_list | small_dict


Value: Any = _value_type(_value_type(_value_type(None)))
"""The type of a value in the metadata of nearly every event."""

Metadata: Any = Annotated[dict[str, Value], msgspec.Meta(max_length=100)]
"""The type of the metadata of nearly every event. `refused_values` handles all other metadata value by value."""


Status = Literal["SUCCESS", "FAILURE", "PARTIAL"]
"""The values of `EventStatus` as text: encoding a member of an Enum would look up its value each time."""


class Payload(msgspec.Struct, omit_defaults=True, gc=False, forbid_unknown_fields=True):
    """The members of an application's event."""

    operation: Annotated[str, msgspec.Meta(min_length=1)]
    user_id: str | None = None
    session_id: str | None = None
    entry_ids: list[str] = []
    metadata: Metadata = {}
    status: Status | None = None
    error_message: str | None = None
    duration_ms: _Float | None = None


# msgspec compiles the types of a struct at its first conversion, and crashes (0.22) if a signal handler or another
# thread converts to the struct meanwhile. This conversion completes that during import.
msgspec.convert({"operation": "STORE"}, Payload)


class TrailPayload(Payload, omit_defaults=True, gc=False):
    """The members of an event of any kind: of the library itself, or decoded."""

    kind: str | None = None

    @classmethod
    def of(cls, payload: Payload, kind: str) -> TrailPayload:
        """Return *payload* as one of this *kind*."""
        return cls(**msgspec.structs.asdict(payload), kind=kind)
