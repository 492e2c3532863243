"""A logging configuration, tried: the process that the doctor starts for it.

``python -m structlog_audit.cli.doctor.dry_run CONFIG FOLDER`` prints what it finds as JSON. Rules:

* Nothing outside of FOLDER, which is empty and temporary, is written, made, renamed or deleted, nothing is connected to and no
  process is started: an audit hook (PEP 578) refuses. It is there before anything of the application runs.
* The files of handlers are made in FOLDER, at their own path below it, so that a trail is neither made nor opened. In what
  is said, that path is taken off again.
* A handler that can't be made without what is refused is replaced by one that does nothing, and that is said.
* The process ends at once: nothing that the application registered runs.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sys
from functools import partial
from typing import Any

from structlog_audit.cli.doctor.config_loading import loaded
from structlog_audit.cli.doctor.configuration import Configured, looks
from structlog_audit.cli.doctor.findings import Finding
from structlog_audit.cli.exit_codes import UnreadableError
from structlog_audit.cli.options import Severity

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "os.utime",
}  # fmt: skip
_NEVER = {
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "subprocess.Popen", "os.system", "os.exec",
    "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn", "sqlite3.connect",
}  # fmt: skip


class Refused(PermissionError):  # noqa: N818 (nothing is wrong)
    """Something that the doctor does not let happen."""


def refuse_changes(folder: str) -> None:
    """Let nothing in this process change anything outside of *folder*, from now on."""
    sys.addaudithook(partial(refuse, os.path.join(os.path.realpath(folder), "")))


def refuse(inside: str, event: str, arguments: tuple[Any, ...]) -> None:
    """Raise `Refused` if *event* (PEP 578) would change something that is not below *inside*."""
    if event == "open":
        path, _, flags = arguments
        if flags & _WRITING and not isinstance(path, int) and not _is_inside(path, inside):
            raise Refused(f"writing to {os.fsdecode(path)}")
    elif event in _CHANGES:
        if not _is_inside(arguments[0], inside):
            raise Refused(f"{event} of {arguments[0]!r}")
    elif event in _NEVER:
        raise Refused(f"{event} {arguments[-1]!r}" if event.startswith("socket.") else event)


def _is_inside(path: Any, inside: str) -> bool:
    text = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else os.devnull
    return text == os.devnull or os.path.realpath(text).startswith(inside)


class _StandIn(logging.Handler):
    """In the place of a handler that can't be made here."""

    def emit(self, record: logging.LogRecord) -> None:
        pass


class DryRun(logging.config.DictConfigurator):
    """Configures logging with every file below *folder*."""

    def __init__(self, config: dict[str, Any], folder: str) -> None:
        super().__init__(config)
        self._folder = folder
        self.not_made: list[tuple[str, str]] = []
        """The handlers that were replaced, and what they would have done."""

    def configure_handler(self, config: Any) -> Any:
        """Make the handler that *config* describes, or what stands in for it."""
        name = next((name for name, spec in self.config["handlers"].items() if spec is config), "?")
        self._redirect(config)
        level, filters = config.get("level"), config.get("filters")
        try:
            return super().configure_handler(config)
        except Exception as error:
            refused = _cause(error)
            if refused is None:
                raise
            self.not_made.append((name, str(refused)))
            stand_in = _StandIn()
            if level is not None:
                stand_in.setLevel(logging._checkLevel(level))  # type: ignore[attr-defined]
            if filters:
                self.add_filters(stand_in, filters)
            return stand_in

    def _redirect(self, config: Any) -> None:
        """Have the file of a handler, and that of a target described in it, lie in the folder."""
        for spec in (config, config.get("target")):
            filename = spec.get("filename") if isinstance(spec, dict) else None
            if isinstance(filename, (str, os.PathLike)) and not str(filename).startswith(self._folder):
                there = os.path.abspath(filename)
                here = self._folder + there
                if os.path.isdir(os.path.dirname(there)):
                    os.makedirs(os.path.dirname(here), exist_ok=True)
                spec["filename"] = here


def _cause(error: BaseException | None) -> Refused | None:
    """What was refused, if that is why there was an *error*."""
    while error is not None and not isinstance(error, Refused):
        error = error.__cause__ or error.__context__
    return error


def examine(given: str, folder: str) -> dict[str, Any]:
    """What is to be found about the configuration *given*: ``findings`` and ``trails``, or an ``error``."""
    try:
        config = loaded(given)
    except UnreadableError as error:
        return {"error": str(error)}
    run = None
    try:
        run = DryRun(config, folder)
        run.configure()
    except Exception as error:  # a handler may raise anything
        cause = error.__cause__ or error
        why = str(error) if cause is error else f"{error}: {cause}"
        fix = "correct it; dictConfig raises the same error when the application starts"
        made: list[Finding] = [Finding("configuration", Severity.ERROR, given, why, fix)]
    else:
        made = []
    configured = Configured(given, config, {} if run is None else dict(run.config.get("handlers", {})), folder)
    made += looks(configured) if not made else []
    for name, what in [] if run is None else run.not_made:
        message = f"handler {name!r} was not tried: making it does more than the doctor may ({what})"
        made.append(Finding("not-tried", Severity.NOTE, given, message, "nothing; look at it yourself"))
    return {"findings": [finding.to_dict() for finding in made], "trails": configured.trails()}


def main() -> None:
    """Examine, and end without running anything else."""
    given, folder = sys.argv[1:]
    answer = os.dup(1)
    os.dup2(2, 1)  # what the application prints is no answer
    refuse_changes(folder)
    found = examine(given, folder)
    os.write(answer, json.dumps(found).replace(folder, "").encode())
    os._exit(0)


if __name__ == "__main__":
    main()
