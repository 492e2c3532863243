"""The source files of a package, found without importing it, for the catalogue.

**Guarantees**

* Nothing is executed, not even the ``__init__.py`` of a parent package.
* An argument that exists as a path is that path. Otherwise it is the name of a module, which is resolved as Python resolves it,
  or from the current directory.
* A folder contributes every ``*.py`` file below it, except those in hidden folders, virtual environments, ``node_modules`` and
  ``site-packages``.
* A module is named as an ``import`` statement names it. Its import root is the nearest parent folder without ``__init__.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec

from structlog_audit.exceptions import AuditReadError, AuditTypeError, AuditValueError

_EXCLUDED_FOLDERS = {"__pycache__", "node_modules", "site-packages"}


def source_files(package: str | os.PathLike[str], onerror: Callable[[OSError], None]) -> list[str]:
    """Return the absolute paths of the source files of *package*, sorted by name.

    Args:
        package: The path of a file or a folder, or the name of a module or a package.
        onerror: Called for each folder that cannot be read, if other files were found.

    Raises:
        AuditTypeError: *package* is neither a non-empty string nor a path.
        AuditValueError: *package* does not exist, or has no source file.
        AuditReadError: *package* is a folder that cannot be read.
    """
    if not isinstance(package, (str, os.PathLike)) or not os.fspath(package):
        raise AuditTypeError(f"package={package!r}: expected the name of a package, or the path of a file or folder")

    given = os.fsdecode(package)
    locations = [given] if os.path.exists(given) else _locations(given)
    errors: list[OSError] = []
    found: list[str] = []
    for location in locations:
        files = _files_below(location, errors.append)
        found += map(os.path.abspath, files)

    if not found:
        if errors:
            raise AuditReadError(f"package={given!r}: the folder cannot be read: {errors[0].strerror}")
        raise AuditValueError(f"package={given!r}: expected at least one Python file, found none")

    for error in errors:
        onerror(error)
    return found


def import_roots(package: str | os.PathLike[str]) -> list[str]:
    """Return further folders in which imports of *package* may start.

    The import root of each file, as `module_name` returns it, comes before these.
    """
    given = os.fsdecode(package)
    if os.path.isdir(given):
        folder = os.path.abspath(given)
        sources = os.path.join(folder, "src")
        return [folder, sources]
    if os.path.exists(given):
        return []

    # The root is as many levels above the module as its name has parts.
    depth = len(given.split("."))
    levels_up = os.path.join(*[os.pardir] * depth)
    roots = []
    for location in _locations(given):
        root = os.path.join(location, levels_up)
        roots.append(os.path.abspath(root))
    return roots


def _files_below(location: str, onerror: Callable[[OSError], None]) -> Iterator[str]:
    if not os.path.isdir(location):
        yield location
        return

    for folder, subfolders, files in os.walk(location, onerror=onerror):
        # os.walk descends only into the folders that this list keeps.
        included = [name for name in subfolders if _is_included(folder, name)]
        subfolders[:] = sorted(included)

        for name in sorted(files):
            if name.endswith(".py"):
                yield os.path.join(folder, name)


def _is_included(folder: str, name: str) -> bool:
    if name.startswith(".") or name in _EXCLUDED_FOLDERS:
        return False
    is_virtual_environment = os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
    return not is_virtual_environment


def _locations(name: str) -> list[str]:
    """Return the file of the module *name*, or the folders of the package."""
    is_dotted_name = all(part.isidentifier() for part in name.split("."))
    spec = _spec(name) if is_dotted_name else None

    if spec is None:
        raise AuditValueError(
            f"package={name!r}: expected an existing path or an installed module, found no such file and no such module; "
            "check the path, or run this where the package is installed"
        )
    if spec.submodule_search_locations is not None:
        return list(spec.submodule_search_locations)
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise AuditValueError(
            f"package={name!r}: expected a module with source, but it has no Python source ({spec.origin}); "
            "pass the path of its source"
        )
    return [spec.origin]


def _spec(name: str) -> ModuleSpec | None:
    """Return the spec of the module *name*, or None if there is no such module."""
    outermost, *inner = name.split(".")
    try:
        spec = find_spec(outermost)
    except (ImportError, ValueError):
        # ``__main__`` has no spec, for example.
        spec = None
    if spec is None:
        spec = PathFinder.find_spec(outermost, [os.getcwd()])

    # find_spec("a.b") would import "a", so inner modules are searched in the folders of their parent.
    dotted = outermost
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        dotted = f"{dotted}.{part}"
        spec = PathFinder.find_spec(dotted, spec.submodule_search_locations)
    return spec


def module_name(path: str) -> tuple[str, str]:
    """Return the import root of the module at *path*, and its dotted name from there."""
    folder, file = os.path.split(path)
    parts = []
    if file != "__init__.py":
        stem, _ = os.path.splitext(file)
        parts.append(stem)

    while _is_package(folder):
        folder, package = os.path.split(folder)
        parts.insert(0, package)
    return folder, ".".join(parts)


def _is_package(folder: str) -> bool:
    # The root of the file system has no name, so it is not a package.
    if not os.path.basename(folder):
        return False
    init_file = os.path.join(folder, "__init__.py")
    return os.path.exists(init_file)


def file_of_module(name: str, roots: Iterable[str]) -> str | None:
    """Return the file of the module *name* below the first of *roots* that has it."""
    parts = name.split(".")
    for root in roots:
        stem = os.path.join(root, *parts)
        module = f"{stem}.py"
        package = os.path.join(stem, "__init__.py")

        for path in (module, package):
            if os.path.isfile(path):
                return path
    return None


def display_path(path: str) -> str:
    """Return *path* relative to the current directory if it is below it."""
    current = os.path.join(os.getcwd(), "")
    return path.removeprefix(current)
