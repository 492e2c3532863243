"""Loading of a logging configuration for the doctor, from a file or from Python code.

==============================  =======================================================================================
argument                        configuration
==============================  =======================================================================================
``logging.json``                a JSON file
``logging.yaml``, ``.yml``      a YAML file; needs PyYAML
``settings.py``                 the only dict with ``version: 1`` in a Python file, such as Django's ``LOGGING``
``settings.py:NAME``            an attribute of a Python file
``package.module:NAME``         an attribute of a module
==============================  =======================================================================================

``NAME`` may contain dots; a function without parameters is called. Python files and modules are executed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from structlog_audit._config_files import load_yaml
from structlog_audit.cli.exit_codes import UnreadableError
from structlog_audit.exceptions import AuditValueError

_EXPECTED = "expected a JSON, YAML or Python file, or module:attribute"


def load_config(argument: str) -> dict[str, Any]:
    """Return the configuration that *argument* names.

    Raises:
        UnreadableError: It does not exist, cannot be loaded, or is not a mapping.
    """
    try:
        config = _load(argument)
    except UnreadableError:
        raise
    except Exception as error:
        # Python configurations are executed, so any exception is possible. That of dictConfig names its cause only as such.
        cause = "" if error.__cause__ is None else f": {error.__cause__}"
        raise UnreadableError(f"{argument} cannot be loaded: {type(error).__name__}: {error}{cause}") from error

    if not isinstance(config, Mapping):
        raise UnreadableError(f"{argument}: expected a mapping, got a {type(config).__name__}")
    return dict(config)


def _load(argument: str) -> Any:
    path, _, name = argument.partition(":")
    suffix = os.path.splitext(path)[1].lower()

    if suffix == ".py":
        module = _execute_file(path)
        return _attribute(module, name, argument) if name else _only_config(module, argument)
    if name:
        return _attribute(import_module(path), name, argument)
    return _load_data_file(argument, suffix)


def _load_data_file(path: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(_text_of(path))

    if suffix in (".yaml", ".yml"):
        try:
            return load_yaml(_text_of(path))
        except AuditValueError as error:
            raise UnreadableError(f"{path} cannot be loaded: {error}") from error

    if suffix in (".ini", ".cfg", ".conf"):
        raise UnreadableError(f"{path} is for fileConfig: expected a configuration for dictConfig; {_EXPECTED}")
    raise UnreadableError(f"{path}: {_EXPECTED}")


def _text_of(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _execute_file(path: str) -> ModuleType:
    # As `python path` does, so that the file can import its neighbours.
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))

    spec = spec_from_file_location(os.path.basename(path).removesuffix(".py"), path)
    # There is a spec with a loader for every name that ends in .py.
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101

    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _attribute(module: ModuleType, name: str, argument: str) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            owner = getattr(value, "__name__", value)
            raise UnreadableError(f"{argument}: {owner!r} has no attribute {part!r}")
        value = getattr(value, part)

    return value() if callable(value) else value


def _only_config(module: ModuleType, argument: str) -> Any:
    configs = {name: value for name, value in vars(module).items() if _is_config(value)}

    if len(configs) != 1:
        names = ", ".join(configs) or "none"
        raise UnreadableError(f"{argument}: expected one configuration, got {names}; name it as {argument}:NAME")

    (config,) = configs.values()
    return config


def _is_config(value: Any) -> bool:
    return isinstance(value, dict) and value.get("version") == 1
