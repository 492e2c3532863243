"""The errors of this library. Each says what was wrong, where, and what to do.

AuditError
├── AuditReadError          a trail could not be read
├── AuditWriteError         an event could not be recorded
├── AuditTypeError          a parameter of the wrong type, or an unknown one   (also a TypeError)
└── AuditValueError         a parameter with a value that cannot be meant      (also a ValueError)
    └── AuditDecodeError    a line that is not an event
"""

from __future__ import annotations


class AuditError(Exception):
    """Base class of every error that this library raises of its own accord."""


class AuditWriteError(AuditError):
    """An event could not be recorded, and the failure policy says that the caller must know.

    Raised with ``on_error="raise"`` when the target fails, and by a front door when an event reached no
    `AuditHandler`. The event is then neither in the buffer nor pending. The cause, if there is one, is ``__cause__``.
    """


class AuditReadError(AuditError):
    """A trail could not be read at all: it isn't there, the system refuses, or something that unpacks it is missing.

    The message names the path and says what to do. The cause, if there is one, is ``__cause__``.
    """


class AuditTypeError(AuditError, TypeError):
    """A parameter has the wrong type. The message names the parameter, the value and what is accepted."""


class AuditValueError(AuditError, ValueError):
    """A parameter has a value that cannot be meant. The message names the parameter, the value and what to do."""


class AuditDecodeError(AuditValueError):
    """A line is not an event. The message names the line, the member and the reason."""
