"""Configurations of log shippers for a trail.

Rules:

* A configuration lies beside this module as a file of the shipper's own syntax; ``<<name>>`` stands for a value, with the
  quotes that it needs. What a shipper has to get right with the files of a trail is told at the head of each.
* A shipper that knows a file by its content names rolled segments too, and so sends what was rolled over while it was down.
  One that knows a file by its path names the active segment alone. None ever names a packed one.
* A path that some shipper would take for a pattern, or could not write down, is refused for all of them.
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
"""Where the lines go, of those that write files, until the destination is replaced."""

_PLACE = re.compile(r"<<(\w+)>>")
_ROLLED_NAME = r"(\.\d{8}T\d{6}\.\d{6}Z)?"
_PATTERN = re.compile(r"[*?\[\]{}\\]")


def _escaping(*pairs: tuple[str, str]) -> Callable[[str], str]:
    """What puts a text into double quotes; each of *pairs* says how a character is written in between."""
    table = str.maketrans(dict(pairs))
    return lambda text: f'"{text.translate(table)}"'


_QUOTE = ('"', '\\"')
_BACKSLASH = ("\\", "\\\\")
_plain = _escaping(_BACKSLASH, _QUOTE)  # as JSON, YAML and Go have it
_dollars = _escaping(_BACKSLASH, _QUOTE, ("$", "$$"))  # the same, where $NAME is a variable of the environment


@dataclass(frozen=True, slots=True)
class Shipper:
    """One shipper.

    Args:
        title: Its name in a sentence.
        file: The file of its configuration, beside this module.
        is_run: Whether our tests run it.
        to: Whether its configuration ships to a file, which can be named.
        quote: How it writes a text.
        refused: What else its paths may not contain.
    """

    title: str
    file: str
    is_run: bool = False
    to: bool = False
    quote: Callable[[str], str] = _plain
    refused: str = ""


SHIPPERS = {
    "rsyslog": Shipper("rsyslog", "rsyslog.conf", True, True),
    "syslog-ng": Shipper("syslog-ng", "syslog-ng.conf", True, True, _escaping(_BACKSLASH, _QUOTE, ("`", "``"))),
    "lnav": Shipper("lnav, to read and ask a trail by SQL", "lnav.json", True),
    "fluent-bit": Shipper("Fluent Bit", "fluent-bit.yaml", to=True, refused=","),
    "vector": Shipper("Vector", "vector.yaml", to=True, quote=_dollars, refused="%"),
    "filebeat": Shipper("Elastic Filebeat", "filebeat.yml", to=True),
    "otel-collector": Shipper("the OpenTelemetry Collector", "otel-collector.yaml", to=True, quote=_dollars),
    "alloy": Shipper("Grafana Alloy, to Loki", "alloy.alloy"),
    "datadog": Shipper("the Datadog Agent", "datadog.yaml"),
    "cloudwatch": Shipper("the Amazon CloudWatch agent", "cloudwatch.json"),
    "splunk": Shipper("a Splunk universal forwarder", "splunk.conf", refused="..."),
}
"""The shippers there is a configuration for."""


def configuration(name: str, trail: str | os.PathLike[str], *, to: str | None = None) -> str:
    """The configuration of the shipper called *name* for the trail at *trail*.

    Args:
        name: One of `SHIPPERS`.
        trail: The active segment; it need not be there yet. A relative path is made absolute.
        to: The file that lines go to, for a shipper that writes files; `DEFAULT_TO` if not given.

    Raises:
        AuditTypeError: No path.
        AuditValueError: There is no such shipper, it does not ship to a file, or a path can't be meant.
    """
    shipper = SHIPPERS.get(name)
    if shipper is None:
        raise AuditValueError(f"no configuration for {name!r}; there is one for: {', '.join(SHIPPERS)}")
    if to is not None and not shipper.to:
        raise AuditValueError(
            f"to={to!r}: {name} does not ship to a file; replace the destination in its configuration"
        )
    path = _path("trail", trail, shipper)
    folder, base = os.path.split(path)
    if base_of(base) != base:
        raise AuditValueError(f"trail={path!r} is a rolled segment; give the active one, {base_of(base)}")
    target = _path("to", DEFAULT_TO if to is None else to, shipper)
    if target == path or target.startswith(f"{path}."):
        raise AuditValueError(f"to={target!r} would be taken for a segment of the trail; give a file of another name")
    texts = {
        "trail": path,
        "rolled": f"{path}.*Z",
        "gzip": f"{path}.*{COMPRESSED_SUFFIXES[0]}",
        "zstd": f"{path}.*{COMPRESSED_SUFFIXES[1]}",
        "names": rf"(^|/){re.escape(base)}(\.\d.*)?$",
        "to": target,
        "to_template": target.replace("$", "$$"),  # where $NAME is a value of the event
        "to_folder": os.path.dirname(target),
        "to_name": os.path.basename(target),
    }
    values = {key: shipper.quote(text) for key, text in texts.items()}
    values |= {"folder": folder, "whitelist": f"/{re.escape(base)}{_ROLLED_NAME}$"}  # for Splunk, which quotes nothing
    text = (files(__name__) / shipper.file).read_text(encoding="utf-8")
    return _PLACE.sub(lambda found: values[found[1]], text)


def _path(name: str, given: str | os.PathLike[str], shipper: Shipper) -> str:
    """*given* as an absolute path that the configuration can contain."""
    try:
        path = os.path.abspath(os.fsdecode(given)) if given else ""
    except TypeError:
        raise AuditTypeError(f"{name}={given!r}: give the path of a file") from None
    if not path or path.endswith("/") or os.path.isdir(path):
        raise AuditValueError(f"{name}={given!r} is no file: give the path of one")
    if not path.isprintable() or path != path.strip():
        raise AuditValueError(f"{name}={path!r} has characters that no configuration can contain; rename it")
    found = _PATTERN.search(path)
    taken = found[0] if found else shipper.refused if shipper.refused and shipper.refused in path else None
    if taken is not None:
        raise AuditValueError(f"{name}={path!r} has {taken!r} in it, which shippers take for a pattern; rename it")
    return path
