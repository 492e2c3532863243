"""The mutation tests themselves: which mutants a module has, and that a survivor is reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

HERE = Path(__file__).parent

MODULE = '''"""A module."""

from typing import TypeVar

T = TypeVar("T")
LIMITS = {"least": 1}


def is_valid(number: int | None) -> bool:
    """Return whether *number* is valid."""
    if number is None:
        raise ValueError("expected a number")
    return number >= LIMITS["least"]
'''

TESTS = """from structlog_audit.part.module import is_valid

def test_least():
    assert is_valid(1)

def test_less():
    assert not is_valid(0)
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one module and its tests."""
    module = tmp_path / "src" / "structlog_audit" / "part" / "module.py"
    tests = tmp_path / "tests" / "part" / "test_module.py"
    for path, text in ((module, MODULE), (tests, TESTS)):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (tmp_path / "src" / "structlog_audit" / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return tmp_path


def run(checkout, *arguments):
    """Run the mutation tests of the *checkout*."""
    code = f"import run, pathlib; run.CHECKOUT = pathlib.Path({str(checkout)!r}); run.main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, timeout=300)


def test_mutants_are_in_code_and_tables_and_not_in_sentences_or_types(checkout, monkeypatch):
    """Each mutant is valid code that differs from the module; annotations, type variables and sentences stay."""
    monkeypatch.syspath_prepend(str(HERE))
    from mutants import mutants_of

    found = mutants_of(checkout / "src" / "structlog_audit", "part/module.py")
    sources = [mutant.source() for mutant in found]
    assert MODULE not in sources
    for source in sources:
        compile(source, "module.py", "exec")
        assert 'T = TypeVar("T")' in source
        assert "number: int | None) -> bool" in source
    descriptions = [mutant.description() for mutant in found]
    assert 'line 6:  - LIMITS = {"least": 1}  + LIMITS = {"least": 2}' in descriptions
    assert 'line 12:  - raise ValueError("expected a number")  + pass' in descriptions
    assert not [text for text in descriptions if "XXexpected" in text]


def test_survivors_are_printed_with_line_and_change(checkout):
    """Only mutants that no test notices survive; the exit code is then 1, and the counts are printed."""
    done = run(checkout, "part")
    assert done.returncode == 1, done.stderr
    *survivors, summary = done.stdout.splitlines()
    assert "survived part/module.py" in survivors[0]
    assert all("line 11:" in line or "line 12:" in line for line in survivors), survivors
    killed = [int(word) for word in summary.split() if word.isdigit()]
    assert killed[1] > len(survivors) == killed[2]


def test_sample_is_drawn_by_its_seed_and_a_number_selects_a_mutant(checkout):
    """The same seed draws the same mutants, and MODULE#NUMBER is one of them."""
    first, second = (run(checkout, "part", "--sample", "5", "--seed", "3").stdout for _ in range(2))
    assert first == second
    assert "part: 5 mutants" in first
    assert "part/module.py#0: 1 mutants, 1 killed" in run(checkout, "part/module.py#0").stdout


def test_tests_that_fail_without_a_mutant_end_the_run(checkout):
    """If the tests fail already, their output is shown and no mutant is tested."""
    (checkout / "tests" / "part" / "test_module.py").write_text("def test_wrong():\n    assert False\n")
    done = run(checkout, "part")
    assert done.returncode == 1
    assert "the tests fail without a mutant" in done.stderr
    assert "test_wrong" in done.stderr
