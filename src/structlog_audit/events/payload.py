"""The members of an event that are not the recorder's, in the order of the line, with the types that a line can hold.

Two structs, so that nothing from outside can claim to be an event of the library's own: only `TrailPayload` has a kind.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

_Int = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Float = Annotated[float, msgspec.Meta(ge=-1.7976931348623157e308, le=1.7976931348623157e308)]  # finite


def _containing(inner: Any) -> Any:
    """Scalars, and containers of *inner* that are small: a value can't be large by containing one thing many times."""
    few = msgspec.Meta(max_length=100)
    scalar = str | _Int | _Float | bool | None
    return scalar if inner is None else scalar | Annotated[list[inner], few] | Annotated[dict[str, inner], few]


_Value: Any = _containing(_containing(_containing(None)))

Metadata: Any = Annotated[dict[str, _Value], msgspec.Meta(max_length=100)]
"""What the metadata of nearly every event is. Everything else is looked at by hand, in `conversion`."""


Status = Literal["SUCCESS", "FAILURE", "PARTIAL"]
"""The values of an `EventStatus`, as text: a member would be asked for its value whenever it is encoded."""


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


msgspec.convert({"operation": "STORE"}, Payload)
"""msgspec compiles the types of a struct when it is first converted to, and crashes (0.22) if a signal handler or a thread
converts to it meanwhile. So it is done here, and no event is the first."""


class TrailPayload(Payload, omit_defaults=True, gc=False):
    """The members of an event of the library's own, or of one that was read, of whatever kind."""

    kind: str | None = None

    @classmethod
    def of(cls, body: Payload, kind: str) -> TrailPayload:
        """*body* as that of an event of this *kind*."""
        return cls(**msgspec.structs.asdict(body), kind=kind)
