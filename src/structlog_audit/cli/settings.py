"""Settings: defaults of options from a file, the nearest one upwards from the working folder.

The file is ``structlog-audit.toml``, or a ``pyproject.toml`` with a table ``tool.structlog-audit``; of both in one folder, the
first. Options of the command line win. Paths are relative to the file. An unknown name, or a value of a wrong type, is an
error.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

from structlog_audit._config_files import load_file
from structlog_audit.cli.choices import Output
from structlog_audit.exceptions import AuditTypeError, AuditValueError

_OWN_FILE = "structlog-audit.toml"
_PROJECT_FILE = "pyproject.toml"
_TABLE = "structlog-audit"

_SIGNING = ("seal", "rotate-key", "prove")
"""The commands whose ``--key`` is a private key: the setting names keys that verify."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a file.

    Attributes:
        path: The file; None if there is none.
        trails: The trails for a command line that names none.
        values: The values of options by the names of their parameters.
    """

    path: str | None = None
    trails: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)

    def defaults(self, name: str, command: Any) -> dict[str, Any]:
        """Return the defaults for typer's *command*, or for those of a group by their names."""
        if hasattr(command, "commands"):
            return {word: self.defaults(word, inner) for word, inner in command.commands.items()}

        found = {}
        for parameter in command.params:
            value = self.values.get(parameter.name)
            if parameter.name == "trail" and parameter.param_type_name == "argument" and len(self.trails) == 1:
                found["trail"] = self.trails[0]
            elif (
                value is not None
                and _takes(command, parameter.name, value)
                and (parameter.name, name) not in _EXCEPTIONS
            ):
                found[parameter.name] = value
        return found

    def attribute(self, message: str, names: Iterable[str]) -> str:
        """Return *message* with the file before it if it is about the value of one of the settings *names*."""
        values = {"trail": self.trails, **self.values}

        for name in names:
            if message.startswith((f"--{name}=", f"--{name}:")):
                return f"{self.path!r}: {message.removeprefix('--')}"

            # A choice that another option excludes is not quoted.
            is_mentioned = f"--{name} " in message
            if is_mentioned or any(quoted in message for quoted in _quoted(values[name])):
                return f"{self.path!r}: {message}"

        return message


def _quoted(value: str | Iterable[str]) -> Iterator[str]:
    """Yield the forms that each text of a setting has in error messages."""
    for text in (value,) if isinstance(value, str) else value:
        yield repr(text)
        yield repr(os.path.abspath(text))


_EXCEPTIONS = frozenset(("key", name) for name in _SIGNING)


def _takes(command: Any, name: str, value: Any) -> bool:
    """Return whether *value* is a choice of the parameter *name*: a command may lack an output format."""
    if name != "output":
        return True

    # The attribute with the choices has another name in each release of typer.
    hint = inspect.signature(command.callback, eval_str=True).parameters[name].annotation
    choices, *_ = get_args(hint)
    return value in get_args(choices)


def load_settings() -> Settings:
    """Return the settings of the nearest file upwards from the working folder.

    Raises:
        AuditTypeError, AuditValueError: The file cannot be read, or its content is invalid; the message names the file.
    """
    for path in _candidates():
        folder = os.path.relpath(os.path.dirname(path))
        found = load_file(path, "settings", partial(_settings, path, folder))
        if found is not None:
            return found
    return Settings()


def _candidates() -> Iterator[str]:
    """Yield the files that may have settings, the nearest first."""
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        # The working folder was deleted.
        return

    while True:
        for name in (_OWN_FILE, _PROJECT_FILE):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and (name == _OWN_FILE or _mentions_table(path)):
                yield path
        parent = os.path.dirname(folder)
        if parent == folder:
            return
        folder = parent


def _mentions_table(path: str) -> bool:
    """Return whether the file may have the table: one that has not need not be valid."""
    with open(path, "rb") as file:
        return _TABLE.encode() in file.read()


def _settings(path: str, folder: str, document: Mapping[str, Any]) -> Settings | None:
    """Return the settings in *document*, whose paths are relative to *folder*; None without a table of them."""
    if os.path.basename(path) == _PROJECT_FILE:
        document = document.get("tool", {}).get(_TABLE)
        if document is None:
            return None

    values = {}
    for name, value in document.items():
        convert = _KNOWN.get(name)
        if convert is None:
            raise AuditValueError(f"unknown setting {name!r}, expected one of {', '.join(_KNOWN)}")
        values[name] = convert(name, value, folder)

    trails = values.pop("trail", ())
    return Settings(path, tuple(trails), values)


def _text(name: str, value: Any, folder: str) -> str:
    if not isinstance(value, str) or not value:
        raise AuditTypeError(f"{name}={value!r}: expected a text")
    return value


def _texts(name: str, value: Any, folder: str) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise AuditTypeError(f"{name}={value!r}: expected a text or a list of texts")
    return [_text(name, item, folder) for item in items]


def _output(name: str, value: Any, folder: str) -> str:
    known = get_args(Output)
    if value not in known:
        raise AuditValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    return str(value)


def _path(name: str, value: Any, folder: str) -> str:
    text = _text(name, value, folder)
    if text == "-":
        raise AuditValueError(f"{name}='-': expected a path, got stdin")
    return text if "://" in text else os.path.normpath(os.path.join(folder, text))


def _paths(name: str, value: Any, folder: str) -> list[str]:
    return [_path(name, item, folder) for item in _texts(name, value, folder)]


def _keys(name: str, value: Any, folder: str) -> list[str]:
    """Return verifier keys, of which each is the name of a file or the key itself."""
    keys = _texts(name, value, folder)
    return [path if os.path.exists(path := _path(name, key, folder)) else key for key in keys]


_KNOWN: dict[str, Callable[[str, Any, str], Any]] = {
    "trail": _paths,
    "tz": _text,
    "output": _output,
    "operations": _path,
    "key": _keys,
    "anchor": _paths,
    "vault": _path,
    "rules": _path,
}
"""The settings, with functions that check and convert their values."""
