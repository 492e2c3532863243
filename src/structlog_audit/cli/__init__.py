"""The command ``structlog-audit``. It needs the extra ``cli``; `structlog_audit.cli.exit_codes` has its exit codes.

Nothing else in this library imports it, and this module imports nothing of typer and rich before it is known that they are
there.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line."""
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"structlog-audit: the command line needs {' and '.join(missing)}: pip install 'structlog-audit[cli]'\n"
        )
        raise SystemExit(2)
    _open_closed()
    from structlog_audit.cli.app import app

    app(prog_name="structlog-audit")


def _open_closed() -> None:
    """Let what the caller closed (``>&-``) be ``/dev/null``, before a trail gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
