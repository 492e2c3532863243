"""The command ``structlog-audit``, which needs the extra ``cli``. `structlog_audit.cli.exit_codes` lists its exit codes.

No other package of this library imports it. It imports typer and rich only after it has checked that they are installed.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from structlog_audit._version import check_versions
from structlog_audit.exceptions import AuditError


def main() -> None:
    """Run the command line."""
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        sys.stderr.write(f"structlog-audit: the command line needs {names}: pip install 'structlog-audit[cli]'\n")
        raise SystemExit(2)
    # An old typer runs commands that do nothing, with exit code 0.
    try:
        check_versions("cli")
    except AuditError as error:
        sys.stderr.write(f"structlog-audit: {error}\n")
        raise SystemExit(2) from None

    _replace_closed_streams()
    from structlog_audit.cli.app import app

    app(prog_name="structlog-audit")


def _replace_closed_streams() -> None:
    """Open ``/dev/null`` for each standard stream that is closed (``>&-``), before a trail is given its descriptor."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # The system returns the lowest free descriptor: the one of this stream.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
