"""The subprocess in which the doctor applies a logging configuration without side effects.

``python -m structlog_audit.cli.doctor.dry_run CONFIG FOLDER`` prints its diagnoses as JSON.

**Guarantees**

* An audit hook (PEP 578), installed before any code of the application runs, refuses all changes outside of FOLDER, an empty
  temporary folder: creating, writing, renaming and deleting files, network connections, and starting processes.
* Handlers create their files in FOLDER, below it at their original path, so the trail itself is neither created nor opened.
  FOLDER is removed from the paths in the output. Nothing is sealed.
* The process exits without running exit handlers of the application.

**Failure handling**: a handler that cannot be created without a refused action is replaced by one that does nothing, and
reported with the code ``not-tried``.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote

from structlog_audit.cli.doctor.config_loading import load_config
from structlog_audit.cli.doctor.configuration import AppliedConfiguration, check_configuration
from structlog_audit.cli.doctor.diagnosis import RatedFinding, error, located, note
from structlog_audit.cli.exit_codes import UnreadableError
from structlog_audit.recording.file_handler import AuditFileHandler

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_FILE_CHANGES = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "os.utime",
}  # fmt: skip
"""Audit events that are allowed inside of the folder only; the first argument is the path."""

_FORBIDDEN = {
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "subprocess.Popen", "os.system", "os.exec",
    "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn",
}  # fmt: skip
"""Audit events that are never allowed."""


class RefusedError(PermissionError):
    """An action that is not allowed in a dry run. The message names the action."""


def refuse_changes(folder: str) -> None:
    """Install an audit hook that refuses all changes outside of *folder*; it cannot be removed."""
    inside = os.path.join(os.path.realpath(folder), "")
    sys.addaudithook(partial(refuse, inside))


def refuse(inside: str, event: str, arguments: tuple[Any, ...]) -> None:
    """Raise `RefusedError` if an audit event would change anything outside of a folder.

    Args:
        inside: The real path of the folder, with a slash at its end.
        event: The name of the audit event (PEP 578).
        arguments: Its arguments.
    """
    if event == "open":
        path, _, flags = arguments
        # An integer is a descriptor that is open already.
        if flags & _WRITE_FLAGS and not isinstance(path, int) and not _is_inside(path, inside):
            raise RefusedError(f"writing to {os.fsdecode(path)}")

    elif event in _FILE_CHANGES:
        path = arguments[0]
        if not _is_inside(path, inside):
            raise RefusedError(f"{event} of {path!r}")

    elif event == "sqlite3.connect":
        # The database of a vault is named by a URI.
        path = unquote(os.fsdecode(arguments[0]).removeprefix("file:").partition("?")[0])
        if not _is_inside(path, inside):
            raise RefusedError(event)

    elif event in _FORBIDDEN:
        raise RefusedError(f"{event} {arguments[-1]!r}" if event.startswith("socket.") else event)


def _is_inside(path: Any, inside: str) -> bool:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return True

    text = os.fsdecode(path)
    return text == os.devnull or os.path.realpath(text).startswith(inside)


class DryRun(logging.config.DictConfigurator):
    """A configurator of logging that places the files of all handlers below a folder."""

    def __init__(self, config: dict[str, Any], folder: str) -> None:
        super().__init__(config)
        self._folder = folder
        self.replaced: list[tuple[str, str]] = []
        """The names of handlers that were replaced, each with the action that was refused."""

    def configure_handler(self, config: Any) -> Any:
        """Return the handler that *config* describes, or a substitute if creating it is refused."""
        name = self._name_of(config)
        for spec, parameter in (
            (config, "filename"),
            (config.get("target"), "filename"),
            (config.get("redactor"), "vault"),
        ):
            if isinstance(spec, dict):
                self._redirect(spec, parameter)

        # The base class takes these members out of the dict.
        level, filters = config.get("level"), config.get("filters")
        try:
            handler = super().configure_handler(config)
            _withhold_seal(handler)
            return handler
        except Exception as failure:
            refused = _refused_in(failure)
            if refused is None:
                raise

        self.replaced.append((name, str(refused)))
        return self._substitute(level, filters)

    def _name_of(self, config: Any) -> str:
        for name, spec in self.config["handlers"].items():
            if spec is config:
                return str(name)
        return "?"

    def _redirect(self, spec: dict[str, Any], parameter: str) -> None:
        """Move the file that the *parameter* in *spec* names into the folder, at its original path below it."""
        filename = spec.get(parameter)
        if not isinstance(filename, (str, os.PathLike)) or str(filename).startswith(self._folder):
            return

        original = os.path.abspath(filename)
        redirected = self._folder + original

        # A missing folder stays missing, so that the handler fails here as it would in the application.
        if os.path.isdir(os.path.dirname(original)):
            os.makedirs(os.path.dirname(redirected), exist_ok=True)
        spec[parameter] = redirected

    def _substitute(self, level: Any, filters: Any) -> logging.Handler:
        """Return a handler that does nothing, with the level and the filters of the one that it replaces."""
        handler = _Substitute()
        if level is not None:
            handler.setLevel(logging._checkLevel(level))  # type: ignore[attr-defined]
        if filters:
            self.add_filters(handler, filters)
        return handler


def _withhold_seal(handler: logging.Handler) -> None:
    """Let neither *handler* nor its target sign what this process records."""
    for each in (handler, getattr(handler, "target", None)):
        if isinstance(each, AuditFileHandler):
            each.withhold_seal()


class _Substitute(logging.Handler):
    """A handler that does nothing, in place of one that cannot be created in a dry run."""

    def emit(self, record: logging.LogRecord) -> None:
        pass


def _refused_in(failure: BaseException) -> RefusedError | None:
    """Return the refused action that caused *failure*, if any."""
    cause: BaseException | None = failure
    while cause is not None and not isinstance(cause, RefusedError):
        cause = cause.__cause__ or cause.__context__
    return cause


def _refusal_of(given: str, failure: BaseException) -> str | None:
    refused = _refused_in(failure)
    if refused is None:
        return None
    return f"{given} cannot be loaded: the doctor does not allow what its import does: {refused}"


def examine(given: str, folder: str) -> dict[str, Any]:
    """Return the answer of a dry run as a JSON object.

    Args:
        given: The configuration, as for `load_config`.
        folder: The folder for the files of its handlers.

    Returns:
        ``findings`` and ``trails`` (paths); or only ``error`` if the configuration cannot be loaded.
    """
    try:
        config = load_config(given)
    except UnreadableError as unreadable:
        return {"error": _refusal_of(given, unreadable) or str(unreadable)}

    run: DryRun | None = None
    failed: list[RatedFinding] = []
    try:
        run = DryRun(config, folder)
        run.configure()
    except Exception as failure:
        # A handler of the application may raise any exception.
        failed.append(_configuration_finding(failure))

    handlers = {} if run is None else dict(run.config.get("handlers", {}))
    applied = AppliedConfiguration(given, config, handlers, folder)

    diagnoses = list(located(given, failed))
    if not failed:
        diagnoses += check_configuration(applied)
    if run is not None:
        diagnoses += located(given, _replaced_findings(run))

    return {"findings": [diagnosis.to_dict() for diagnosis in diagnoses], "trails": applied.trails()}


def _configuration_finding(failure: Exception) -> RatedFinding:
    # dictConfig wraps the exception of a handler in a ValueError that names the handler only.
    message = str(failure) if failure.__cause__ is None else f"{failure}: {failure.__cause__}"
    fix = "correct the configuration; dictConfig raises the same error when the application starts"
    return error("configuration", message, fix)


def _replaced_findings(run: DryRun) -> Iterator[RatedFinding]:
    for name, action in run.replaced:
        message = f"handler {name!r} was not created, because the doctor does not allow this action: {action}"
        yield note("not-tried", message, "none; check this handler by hand")


def main() -> None:
    """Examine the configuration of the command line, and exit without running exit handlers."""
    given, folder = sys.argv[1:]

    # The answer goes to the original stdout; output of the application goes to stderr.
    answer_fd = os.dup(1)
    os.dup2(2, 1)

    # What a module configures while it is imported goes below the folder as well.
    logging.config.dictConfigClass = partial(DryRun, folder=folder)  # type: ignore[assignment]

    refuse_changes(folder)
    answer = examine(given, folder)

    text = json.dumps(answer).replace(folder, "")
    os.write(answer_fd, text.encode())
    os._exit(0)


if __name__ == "__main__":
    main()
