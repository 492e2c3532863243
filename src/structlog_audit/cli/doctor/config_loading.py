"""A logging configuration from wherever it is.

==============================  =======================================================================================
given                           what it is
==============================  =======================================================================================
``logging.json``                JSON
``logging.yaml``, ``.yml``      YAML; needs PyYAML
``settings.py``                 the one mapping with a ``version`` at the top of a Python file, such as Django's ``LOGGING``
``settings.py:NAME``            that one
``package.module:NAME``         an attribute of a module; dots go deeper; a function without parameters is called
==============================  =======================================================================================
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

from structlog_audit.cli.exit_codes import UnreadableError

_FORMS = "give a JSON, YAML or Python file, or module:attribute"


def loaded(given: str) -> dict[str, Any]:
    """The configuration that *given* names. Runs what it names, if that is Python.

    Raises:
        UnreadableError: There is none, or it is no configuration.
    """
    try:
        found = _found(given)
    except UnreadableError:
        raise
    except Exception as error:  # a module may raise anything
        raise UnreadableError(f"{given} can't be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping):
        raise UnreadableError(f"{given} is a {type(found).__name__} and no mapping: {_FORMS}")
    return dict(found)


def _found(given: str) -> Any:
    path, _, name = given.partition(":")
    ending = os.path.splitext(path)[1].lower()
    if ending == ".py":
        return _named(_module_at(path), name, given) if name else _only_one(_module_at(path), given)
    if name:
        return _named(import_module(path), name, given)
    if ending in (".yaml", ".yml"):
        with open(given, encoding="utf-8") as file:
            return _yaml(given).safe_load(file)
    if ending in (".ini", ".cfg", ".conf"):
        raise UnreadableError(f"{given} is for fileConfig: the doctor reads configurations for dictConfig; {_FORMS}")
    if ending != ".json":
        raise UnreadableError(f"{given}: what kind of configuration is this? {_FORMS[0].upper()}{_FORMS[1:]}")
    with open(given, encoding="utf-8") as file:
        return json.load(file)


def _yaml(given: str) -> Any:
    try:
        return import_module("yaml")
    except ImportError:
        raise UnreadableError(f"{given} is YAML, which needs PyYAML: pip install pyyaml") from None


def _module_at(path: str) -> Any:
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = spec_from_file_location(os.path.basename(path).removesuffix(".py"), path)
    assert spec is not None  # noqa: S101 (for a name that ends in .py there is one)
    assert spec.loader is not None  # noqa: S101
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _named(module: Any, name: str, given: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UnreadableError(f"{given}: there is no {part!r} in {getattr(found, '__name__', found)!r}")
        found = getattr(found, part)
    return found() if callable(found) else found


def _only_one(module: Any, given: str) -> Any:
    found = {
        name: value for name, value in vars(module).items() if isinstance(value, dict) and value.get("version") == 1
    }
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise UnreadableError(f"{given} has no one configuration ({names}): name it, as {given}:NAME")
    return next(iter(found.values()))
