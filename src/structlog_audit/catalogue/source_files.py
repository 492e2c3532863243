"""The source files of a package, found without importing anything.

Rules:

* What is there as a path is that path; otherwise it is the name of a module, found as Python finds it or in the current
  directory. Nothing is executed, not even ``__init__.py`` of a parent.
* Of a folder every ``*.py`` counts, but not in hidden folders, virtual environments, ``node_modules`` and ``site-packages``.
* A module is called as an ``import`` calls it: its folder is the first one upwards without an ``__init__.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec

from structlog_audit.exceptions import AuditReadError, AuditTypeError, AuditValueError

_NOT_OURS = {"__pycache__", "node_modules", "site-packages"}


def files_of(package: str | os.PathLike[str], onerror: Callable[[OSError], None]) -> list[str]:
    """The source files of *package*, as absolute paths in the order of their names.

    Args:
        package: The path of a file or a folder, or the name of a module or a package.
        onerror: Told of each folder that can't be read.

    Raises:
        AuditTypeError: *package* is neither.
        AuditValueError: There is nothing of that name, or no source.
        AuditReadError: It is a folder that can't be read.
    """
    if not isinstance(package, (str, os.PathLike)) or not os.fspath(package):
        raise AuditTypeError(f"package={package!r}: give the name of a package, or the path of a file or folder")
    given = os.fsdecode(package)
    places = [given] if os.path.exists(given) else _places(given)
    failed: list[OSError] = []
    found = [os.path.abspath(file) for place in places for file in _in_place(place, failed.append)]
    if not found and failed:
        raise AuditReadError(f"package={given!r} can't be read: {failed[0].strerror}")
    for error in failed:
        onerror(error)
    if not found:
        raise AuditValueError(f"package={given!r}: there is no Python file in it")
    return found


def bases_of(package: str | os.PathLike[str]) -> list[str]:
    """The folders that an ``import`` in *package* may begin in, besides those that `named` tells of its files."""
    given = os.fsdecode(package)
    if os.path.exists(given):
        place = os.path.abspath(given)
        return [place, os.path.join(place, "src")] if os.path.isdir(place) else []
    up = [os.pardir] * (given.count(".") + 1)
    return [os.path.abspath(os.path.join(place, *up)) for place in _places(given)]


def _in_place(place: str, onerror: Callable[[OSError], None]) -> Iterator[str]:
    if not os.path.isdir(place):
        yield place
        return
    for folder, folders, files in os.walk(place, onerror=onerror):
        folders[:] = sorted(name for name in folders if _is_ours(folder, name))
        yield from (os.path.join(folder, name) for name in sorted(files) if name.endswith(".py"))


def _is_ours(folder: str, name: str) -> bool:
    if name.startswith(".") or name in _NOT_OURS:
        return False
    return not os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))


def _places(name: str) -> list[str]:
    """Where the module *name* is: one file, or the folders of a package."""
    spec = _spec(name) if all(part.isidentifier() for part in name.split(".")) else None
    if spec is None:
        raise AuditValueError(
            f"package={name!r}: there is no such file, and no such module here; "
            "give the path of a file or folder, or run this where the package is installed"
        )
    if spec.submodule_search_locations is not None:
        return list(spec.submodule_search_locations)
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise AuditValueError(f"package={name!r} has no Python source ({spec.origin}): give the path of its source")
    return [spec.origin]


def _spec(name: str) -> ModuleSpec | None:
    """The spec of the module *name*: the outermost package as Python finds it, the others by the folders of their parent."""
    names = name.split(".")
    try:
        spec = find_spec(names[0])
    except (ImportError, ValueError):  # as of __main__
        spec = None
    spec = spec or PathFinder.find_spec(names[0], [os.getcwd()])
    for number in range(2, len(names) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(names[:number]), spec.submodule_search_locations)
    return spec


def named(path: str) -> tuple[str, str]:
    """The folder that an ``import`` of the module at *path* begins in, and the name of the module."""
    base, file = os.path.split(path)
    names = [] if file == "__init__.py" else [os.path.splitext(file)[0]]
    while os.path.exists(os.path.join(base, "__init__.py")) and os.path.basename(base):
        base, folder = os.path.split(base)
        names.insert(0, folder)
    return base, ".".join(names)


def file_of(module: str, bases: Iterable[str]) -> str | None:
    """The file of *module* below the first of *bases* that has it."""
    for base in bases:
        stem = os.path.join(base, *module.split("."))
        for path in (f"{stem}.py", os.path.join(stem, "__init__.py")):
            if os.path.isfile(path):
                return path
    return None


def shown(path: str) -> str:
    """*path* from the current directory on, if it is below it."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)
