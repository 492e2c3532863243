"""Mutation tests: does a test fail when the code is wrong?

    pip install -e '.[mutation]'
    python tests/mutation/run.py buffer query              every mutant of two packages: hours
    python tests/mutation/run.py buffer --sample 60 --seed 1    60 of them, drawn at random
    python tests/mutation/run.py buffer/index.py#17        one again, after a test was added

An argument is a package, a module or a mutant of `structlog_audit`; ``--sample`` counts for each argument. For each mutant the
tests mirrored to its module run until the first failure: those files in the mirrored folder that mention the module most come
first. ``--all-tests`` lets the other files of the default suite follow. Exit code 1 if a mutant survives.

All runs use one copy of the checkout, whose tests and modules are as they were at the start. Each mutant is tested in a forked
process, which has the other libraries imported already; child processes of the tests import the mutant as well. A mutant with
a test that takes 40 s, or whose tests take three times as long as those of the unchanged code, and 30 s more, counts as killed.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import os
import py_compile
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

# Imported here, so that no forked process imports them again.
import hypothesis.stateful  # noqa: F401
import msgspec  # noqa: F401
import pytest
import pythonjsonlogger.json  # noqa: F401
import structlog  # noqa: F401
from hypothesis import Phase, settings
from mutants import Mutant, mutants_of

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
PACKAGE = Path("src", "structlog_audit")

_NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", ".*_cache", ".hypothesis", "__pycache__", "dist", "build")
# Hypothesis is imported before pytest could rewrite its assertions.
_OPTIONS = [
    "-x",
    "-n",
    "0",
    "-p",
    "no:cacheprovider",
    "--hypothesis-seed=0",
    "--timeout=40",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
]
# The profile of the tests inherits from this one: a failure counts, whatever its simplest example is.
_WITHOUT_SHRINKING = settings(
    phases=[Phase.explicit, Phase.generate, Phase.target], report_multiple_bugs=False, database=None
)
settings.register_profile("mutation", _WITHOUT_SHRINKING)
settings.load_profile("mutation")

_MOST_MEMORY = 4 * 2**30


def modules_of(package: Path, argument: str) -> list[str]:
    """Return the modules of a package below *package*, or the module itself, each relative to *package*."""
    path = package / argument
    if not path.exists():
        raise SystemExit(f"{argument}: expected a package or a module below {PACKAGE}")
    if path.is_file():
        return [argument]
    return sorted(str(module.relative_to(package)) for module in path.rglob("*.py"))


def chosen(copy: Path, argument: str, sample: int | None, seed: int) -> list[Mutant]:
    """Return the mutants that an *argument* of the command line stands for, in the order of the source."""
    package = copy / PACKAGE
    name, _, number = argument.partition("#")
    found = [mutant for module in modules_of(package, name) for mutant in mutants_of(package, module)]
    if number:
        return [found[int(number)]]
    if sample is None or sample >= len(found):
        return found

    drawn = random.Random(seed).sample(range(len(found)), sample)
    return [found[index] for index in sorted(drawn)]


def tests_of(copy: Path, module: str, *, all_tests: bool) -> list[str]:
    """Return the files of the tests of a *module*, first those that mention it most.

    Args:
        copy: The copy of the checkout.
        module: The path of the module, relative to the package.
        all_tests: Whether the tests of other modules follow.
    """
    tests = copy / "tests"
    name = Path(module).stem
    folder = tests / Path(module).parent

    def order(path: Path) -> tuple[bool, bool, int, str]:
        is_own = path.name == f"test_{name}.py"
        return (folder not in path.parents, not is_own, -path.read_text(encoding="utf-8").count(name), str(path))

    root = tests if all_tests else folder
    return [str(path.relative_to(copy)) for path in sorted(root.rglob("test_*.py"), key=order)]


@contextlib.contextmanager
def copied_checkout() -> Iterator[Path]:
    """Copy the checkout, and compile its modules so that a changed source is noticed by its hash."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(CHECKOUT, copy, ignore=_NOT_COPIED)
        by_hash = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(copy / "src", quiet=1, invalidation_mode=by_hash)
        yield copy


def run_tests(copy: Path, tests: list[str], seconds: float, *, is_changed: bool = True) -> int | None:
    """Run *tests* in a forked process until the first failure.

    Returns:
        The exit code of pytest, or None after so many *seconds*.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            _become_test_process(copy, is_changed=is_changed)
            code = pytest.main([*_OPTIONS, *tests])
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)

    deadline = time.monotonic() + seconds
    ended, status = 0, 0
    try:
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.02)
    finally:
        # With the child, or after it, the processes that the tests have left behind: they are in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if not ended:
            os.waitpid(child, 0)

    return os.waitstatus_to_exitcode(status) if ended else None


def _become_test_process(copy: Path, *, is_changed: bool) -> None:
    """Let this forked process, and those that it starts, import and write in the *copy* only."""
    os.setsid()
    os.chdir(copy)
    output = os.open(copy.parent / "output.txt", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for descriptor in (0, 1, 2):
        os.dup2(output, descriptor)

    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source = str(copy / "src")
    sys.path[:] = [source, *(entry for entry in sys.path if entry not in (str(HERE), str(CHECKOUT / "src")))]
    os.environ["PYTHONPATH"] = source
    # A process that multiprocessing spawns imports the main module again. It must not find this one.
    sys.modules["__main__"] = types.ModuleType("__main__")
    if is_changed:
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True


def run(arguments: list[str], sample: int | None, seed: int, *, all_tests: bool) -> bool:
    """Test the chosen mutants, print those that survive and the counts, and return whether all were killed."""
    duration_of: dict[tuple[str, ...], float] = {}
    all_killed = True
    with copied_checkout() as copy:
        for argument in arguments:
            counts: Counter[str] = Counter()
            for mutant in chosen(copy, argument, sample, seed):
                tests = tests_of(copy, mutant.module, all_tests=all_tests)
                key = tuple(sorted(tests))
                if key not in duration_of:
                    duration_of[key] = _duration_of_unchanged(copy, tests)

                is_killed = _is_killed(mutant, copy, tests, 3 * duration_of[key] + 30)
                counts["killed" if is_killed else "survived"] += 1
                all_killed &= is_killed
                if not is_killed:
                    print(f"survived {mutant.name}  {mutant.description()}", flush=True)

            print(
                f"{argument}: {counts.total()} mutants, {counts['killed']} killed, {counts['survived']} survived",
                flush=True,
            )
    return all_killed


def _duration_of_unchanged(copy: Path, tests: list[str]) -> float:
    """Return the seconds that *tests* take; they must succeed."""
    begin = time.monotonic()
    code = run_tests(copy, tests, 3_600, is_changed=False)
    if code:
        output = (copy.parent / "output.txt").read_text(encoding="utf-8")
        raise SystemExit(f"{output}\nthe tests fail without a mutant: {' '.join(tests)}")
    return time.monotonic() - begin


def _is_killed(mutant: Mutant, copy: Path, tests: list[str], seconds: float) -> bool:
    """Return whether the *tests* fail, or do not end in so many *seconds*, with the *mutant* in the *copy*."""
    path = copy / PACKAGE / mutant.module
    path.write_text(mutant.source(), encoding="utf-8")
    try:
        return run_tests(copy, tests, seconds) != 0
    finally:
        path.write_text(mutant.tree.code, encoding="utf-8")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", metavar="TARGET", help="a package, a module, or MODULE#NUMBER")
    parser.add_argument("--sample", type=int, help="the number of mutants per target, drawn at random (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the sample (default: %(default)s)")
    parser.add_argument("--all-tests", action="store_true", help="run the other tests of the default suite as well")
    options = parser.parse_args()

    all_killed = run(options.targets, options.sample, options.seed, all_tests=options.all_tests)
    sys.exit(0 if all_killed else 1)


if __name__ == "__main__":
    main()
