"""The types of the public names, as four type checkers see them in the modules of an application."""

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
PROGRAMS = Path(sysconfig.get_path("scripts"))
CHECKERS = {
    "mypy": ["mypy", "--strict", "--no-incremental", "--config-file=", f"--python-executable={sys.executable}"],
    "pyright": ["pyright", f"--pythonpath={sys.executable}"],
    "ty": ["ty", "check", "--output-format=concise", f"--python={sys.prefix}"],
    "pyrefly": [
        "pyrefly",
        "check",
        "--preset=strict",
        "--output-format=min-text",
        f"--python-interpreter-path={sys.executable}",
    ],
}
MARK = "  # mistake"

UNREPORTED = {"ty": "count_events(user="}
"""The mistakes that a checker does not see: ty accepts any keyword for `Filters`, on purpose (astral-sh/ty#4212)."""


def check(checker, package, folder):
    """Run a type checker over a copy of a package of these tests, away from the configuration of this repository.

    Returns:
        The exit code and the output.
    """
    shutil.copytree(HERE / package, folder / package)
    program, *options = CHECKERS[checker]
    paths = sorted(str(path.relative_to(folder)) for path in folder.glob("*/*.py"))
    done = subprocess.run(
        [PROGRAMS / program, *options, *paths], cwd=folder, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_application_has_no_type_errors(checker, tmp_path):
    """Modules that use the library as applications do pass the strict checks of each type checker."""
    code, output = check(checker, "typed_application", tmp_path)
    assert code == 0, output


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_mistake_is_reported_and_nothing_else(checker, tmp_path):
    """A type checker reports the mistakes of a user at their lines, and no other line."""
    expected = set()
    for number, line in enumerate((HERE / "typed_mistakes" / "mistakes.py").read_text().splitlines(), 1):
        if line.endswith(MARK) and UNREPORTED.get(checker, MARK * 2) not in line:
            expected.add(number)

    code, output = check(checker, "typed_mistakes", tmp_path)
    errors = [line for line in output.splitlines() if "error" in line.lower()]
    found = re.findall(r"mistakes\.py:(\d+)", "\n".join(errors))
    assert code != 0
    assert set(map(int, found)) == expected, output
