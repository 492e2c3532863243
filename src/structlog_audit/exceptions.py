"""The errors of this library. Each message names the problem, its place and its remedy.

AuditError
├── AuditReadError          a trail could not be read
├── AuditWriteError         an event could not be recorded
├── AuditVaultError         a vault of subjects could not be opened, read or written
├── AuditSealError          a trail could not be sealed
├── AuditTypeError          a parameter of the wrong type, or an unknown one   (also a TypeError)
└── AuditValueError         a parameter with an invalid value                  (also a ValueError)
    └── AuditDecodeError    a line that is not an event
"""

from __future__ import annotations


class AuditError(Exception):
    """The base class of all errors that this library defines."""


class AuditWriteError(AuditError):
    """An event could not be recorded, and the failure policy requires that the caller knows.

    Raised with ``on_error="raise"`` when the target fails, and by an entry point when an event reached no
    `AuditHandler`. The event is then neither in the buffer nor pending. The cause, if there is one, is ``__cause__``.
    """


class AuditReadError(AuditError):
    """A trail could not be read at all.

    It does not exist, the system denies access, or a package that decompresses it is missing. The message names the path
    and the remedy. The cause, if there is one, is ``__cause__``.
    """


class AuditVaultError(AuditError):
    """A vault of subjects could not be opened, read or written.

    The message names the vault, the reason and the remedy, never a subject or a key. The cause, if there is one, is
    ``__cause__``.
    """


class AuditSealError(AuditError):
    """A trail could not be sealed: a key cannot be used, or the seal cannot be written.

    Events are recorded all the same. The message names the key or the file and the remedy.
    """


class AuditTypeError(AuditError, TypeError):
    """A parameter has the wrong type. The message names the parameter, its value and the accepted types."""


class AuditValueError(AuditError, ValueError):
    """A parameter has an invalid value. The message names the parameter, its value and the accepted values."""


class AuditDecodeError(AuditValueError):
    """A line is not an event. The message names the line, the member and the reason."""
