"""The version of this library, and the check of the packages of its extras, such as ``structlog-audit[cli]``.

The bounds are those of the installed distribution, so that they are written once, in ``pyproject.toml``. A package of a wrong
version may import and then do nothing, so every place that imports a package of an extra checks its version first. A package
that is missing is reported by the import.

**Performance.** The metadata is read once per extra and process: it takes over a millisecond, and archives are opened often.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable

from structlog_audit.exceptions import AuditError

__version__ = "0.1.0"

_DISTRIBUTION = "structlog-audit"

# "typer>=0.26; extra == 'cli'", "backports.zstd>=1.0; python_version < '3.14' and extra == 'zstd'"
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*);.*\bextra\s*==\s*['\"]([\w-]+)['\"]")
_BOUND = re.compile(r"(>=|<=|==|<|>)\s*([\d.]+)$")
_RELEASE = re.compile(r"\d+(?:\.\d+)*")

_COMPARISONS: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}


@functools.cache
def check_versions(extra: str) -> None:
    """Raise an error if a package of an extra is installed in a version that this library does not work with.

    Without the metadata of this distribution, as in some frozen applications, nothing is checked.

    Args:
        extra: The name of an extra in ``pyproject.toml``.

    Raises:
        AuditError: A version is out of bounds; names the package and the command that installs the right one.
    """
    # Imported lazily: it takes 10 ms, which most applications need not spend.
    from importlib import metadata

    try:
        requirements = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return

    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None or match[3] != extra:
            continue

        package, bounds = match[1], match[2].strip()
        installed = _installed_version(package)
        if installed is not None and not _is_within(installed, bounds):
            fix = f"pip install '{_DISTRIBUTION}[{extra}]'"
            raise AuditError(f"expected {package}{bounds}, got {package} {installed}: {fix}")


def _installed_version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _is_within(installed: str, bounds: str) -> bool:
    """Tell whether a version is within bounds. A bound or a version in another form than numbers is not judged."""
    release = _release(installed)
    for text in bounds.split(","):
        bound = _BOUND.match(text.strip())
        if bound is None or not release:
            continue
        if not _COMPARISONS[bound[1]](release, _release(bound[2])):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version without zeros at the end, so that 1.0 equals 1."""
    match = _RELEASE.match(version)
    numbers = [int(number) for number in match[0].split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
