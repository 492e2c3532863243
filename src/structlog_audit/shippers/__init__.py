"""Configurations of log shippers for a trail.

Each template beside this module is in the syntax of its shipper; its head comment describes how the shipper treats the files of
a trail. A placeholder ``<<name>>`` stands for a value with the quotes that the syntax requires.

**Guarantees**

* A configuration reads rolled segments only if the shipper identifies a file by its content. It then sends segments that were
  rolled over while it was down. For a shipper that identifies a file by its path, the active segment is the only one.
* A configuration never reads compressed segments.

**Failure handling**: a path that one of the shippers would interpret as a pattern, or that a configuration cannot contain, is
refused, so that no shipper silently reads the wrong files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.trail.segment_names import COMPRESSED_SUFFIXES, base_of

DEFAULT_TO = "/var/log/shipped/audit.jsonl"
"""The destination in configurations that write to a file, as a placeholder for the real one."""

_PLACEHOLDER = re.compile(r"<<(\w+)>>")
_ROLLED_SUFFIX = r"(\.\d{8}T\d{6}\.\d{6}Z)?"
_PATTERN_CHARACTERS = re.compile(r"[*?\[\]{}\\]")


def _quoting(*escapes: tuple[str, str]) -> Callable[[str], str]:
    """Return a function that puts a text in double quotes, with the given replacements of characters."""
    table = str.maketrans(dict(escapes))

    def quote(text: str) -> str:
        return f'"{text.translate(table)}"'

    return quote


_QUOTE = ('"', '\\"')
_BACKSLASH = ("\\", "\\\\")
_BACKQUOTE = ("`", "``")
_DOLLAR = ("$", "$$")

_quote = _quoting(_BACKSLASH, _QUOTE)
"""Quote a text as in JSON, YAML and Go."""

_quote_dollars = _quoting(_BACKSLASH, _QUOTE, _DOLLAR)
"""Quote a text where ``$NAME`` would be replaced by an environment variable."""


@dataclass(frozen=True, slots=True)
class Shipper:
    """A log shipper.

    Args:
        title: The name for listings.
        file: The file name of the template, beside this module.
        is_run: Whether the tests of this library run the shipper with its configuration.
        to: Whether the configuration writes to a file, so that ``to=`` is allowed.
        quote: Puts a text in quotes as the syntax requires.
        refused: A text that paths must not contain, in addition to the characters that are refused for all shippers.
    """

    title: str
    file: str
    is_run: bool = False
    to: bool = False
    quote: Callable[[str], str] = _quote
    refused: str = ""


SHIPPERS = {
    "rsyslog": Shipper("rsyslog", "rsyslog.conf", is_run=True, to=True),
    "syslog-ng": Shipper(
        "syslog-ng", "syslog-ng.conf", is_run=True, to=True, quote=_quoting(_BACKSLASH, _QUOTE, _BACKQUOTE)
    ),
    "lnav": Shipper("lnav, to query a trail with SQL", "lnav.json", is_run=True),
    "fluent-bit": Shipper("Fluent Bit", "fluent-bit.yaml", to=True, refused=","),
    "vector": Shipper("Vector", "vector.yaml", to=True, quote=_quote_dollars, refused="%"),
    "filebeat": Shipper("Elastic Filebeat", "filebeat.yml", to=True),
    "otel-collector": Shipper("OpenTelemetry Collector", "otel-collector.yaml", to=True, quote=_quote_dollars),
    "alloy": Shipper("Grafana Alloy, with Loki as the destination", "alloy.alloy"),
    "datadog": Shipper("Datadog Agent", "datadog.yaml"),
    "cloudwatch": Shipper("Amazon CloudWatch agent", "cloudwatch.json"),
    "splunk": Shipper("Splunk universal forwarder", "splunk.conf", refused="..."),
}
"""The supported shippers, by the name for `configuration`."""


def configuration(name: str, trail: str | os.PathLike[str], *, to: str | None = None) -> str:
    """Return the configuration of a log shipper for a trail.

    Args:
        name: A key of `SHIPPERS`.
        trail: The active segment, which need not exist. A relative path is made absolute.
        to: The file to write to, for a shipper that supports it; `DEFAULT_TO` by default.

    Raises:
        AuditTypeError: *trail* or *to* is not a path.
        AuditValueError: The shipper is unknown or does not write to a file, or a path is invalid; the message names it.
    """
    shipper = _shipper_named(name)
    if to is not None and not shipper.to:
        raise AuditValueError(
            f"to={to!r}: {name} does not ship to a file; replace the destination in its configuration"
        )

    trail_path = _trail_path(trail, shipper)
    target_path = _target_path(DEFAULT_TO if to is None else to, trail_path, shipper)
    values = _values(trail_path, target_path, shipper)

    template = files(__name__) / shipper.file
    text = template.read_text(encoding="utf-8")
    return _PLACEHOLDER.sub(lambda placeholder: values[placeholder[1]], text)


def _shipper_named(name: str) -> Shipper:
    if name not in SHIPPERS:
        raise AuditValueError(f"name={name!r}: expected one of {', '.join(SHIPPERS)}")
    return SHIPPERS[name]


def _trail_path(given: str | os.PathLike[str], shipper: Shipper) -> str:
    path = _absolute_path("trail", given, shipper)

    base = os.path.basename(path)
    active = base_of(base)
    if active != base:
        raise AuditValueError(f"trail={path!r}: expected the active segment, {active}, got a rolled one")
    return path


def _target_path(given: str, trail_path: str, shipper: Shipper) -> str:
    path = _absolute_path("to", given, shipper)

    if path == trail_path or path.startswith(f"{trail_path}."):
        raise AuditValueError(f"to={path!r}: expected a file that is not part of the trail; use another name")
    return path


def _values(trail_path: str, target_path: str, shipper: Shipper) -> dict[str, str]:
    """Return the values of the placeholders, quoted for *shipper*."""
    folder, base = os.path.split(trail_path)
    gzip_suffix, zstd_suffix = COMPRESSED_SUFFIXES
    texts = {
        "trail": trail_path,
        "rolled": f"{trail_path}.*Z",
        "gzip": f"{trail_path}.*{gzip_suffix}",
        "zstd": f"{trail_path}.*{zstd_suffix}",
        "names": rf"(^|/){re.escape(base)}(\.\d.*)?$",
        "to": target_path,
        # In a file name of syslog-ng, $NAME is a value of the event.
        "to_template": target_path.replace("$", "$$"),
        "to_folder": os.path.dirname(target_path),
        "to_name": os.path.basename(target_path),
    }
    values = {key: shipper.quote(text) for key, text in texts.items()}

    # Splunk has no quotes.
    values["folder"] = folder
    values["whitelist"] = f"/{re.escape(base)}{_ROLLED_SUFFIX}$"
    return values


def _absolute_path(name: str, given: str | os.PathLike[str], shipper: Shipper) -> str:
    """Return *given* as an absolute path, if the configuration can contain it.

    Raises:
        AuditTypeError, AuditValueError: It is not a path, or it is refused; the message begins with *name*.
    """
    try:
        path = os.path.abspath(os.fsdecode(given)) if given else ""
    except TypeError:
        raise AuditTypeError(f"{name}={given!r}: expected the path of a file") from None

    if not path or path.endswith("/") or os.path.isdir(path):
        raise AuditValueError(f"{name}={given!r}: expected the path of a file")

    if not path.isprintable() or path != path.strip():
        raise AuditValueError(
            f"{name}={path!r}: expected printable characters and no space at the end; rename the file"
        )

    pattern = _pattern_in(path, shipper)
    if pattern:
        raise AuditValueError(
            f"{name}={path!r}: contains {pattern!r}, which shippers interpret as a pattern; rename the file or folder"
        )
    return path


def _pattern_in(path: str, shipper: Shipper) -> str:
    """Return the first text in *path* that a shipper would interpret as a pattern, or an empty string."""
    found = _PATTERN_CHARACTERS.search(path)
    if found:
        return found[0]
    if shipper.refused and shipper.refused in path:
        return shipper.refused
    return ""
