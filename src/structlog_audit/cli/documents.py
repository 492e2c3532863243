"""Reports of the command line: in one format on stdout, or in several as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from structlog_audit.cli.choices import ReportOutput
from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.cli.output_files import refusing_to_replace, require_free
from structlog_audit.cli.terminal import put
from structlog_audit.export import write_atomically

if TYPE_CHECKING:
    from structlog_audit.reports.report_forms import ReportForms

_FORMS: Mapping[ReportOutput, str] = {"text": "markdown", "json": "json", "html": "html"}
"""The form of a report in each output format."""


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents that a command is to write.

    Attributes:
        paths: The form and the path of each; ``-`` is stdout.
        force: Whether an existing file may be replaced.
    """

    paths: tuple[tuple[str, str], ...]
    force: bool

    def write(self, made: ReportForms) -> None:
        """Write all forms of *made*, after each of them has been made."""
        texts = [(path, _text_of(made, form)) for form, path in self.paths]
        for path, text in texts:
            if path == "-":
                put(text if text.endswith("\n") else f"{text}\n")
                continue
            with refusing_to_replace(path):
                write_atomically(Path(path), [text.encode()], replace=self.force)


def documents(files: Mapping[str, str | None], output: ReportOutput, *, force: bool) -> Documents:
    """Return the documents that options name: the *files*, or one on stdout if there are none.

    Args:
        files: The path of each form, if it is given.
        output: The format on stdout.
        force: Whether an existing file may be replaced.

    Raises:
        UsageError: Two documents have the same path, a file exists already, or there are both files and a format for stdout.
    """
    paths = [(form, path) for form, path in files.items() if path is not None]
    if paths and output != "text":
        form = _FORMS[output]
        raise UsageError(
            f"--output {output} cannot be combined with files: use --{form} - to write it to stdout as well"
        )

    taken = [path for _, path in paths]
    for path in taken:
        if taken.count(path) > 1:
            raise UsageError(f"only one format can be written to {path}: name a file for each of the others")
        require_free(path, force=force)
    return Documents(tuple(paths) or ((_FORMS[output], "-"),), force)


def _text_of(made: ReportForms, form: str) -> str:
    text: str = getattr(made, f"to_{form}")()
    return text
