"""Checks of the seal of a trail: its folder, its keys, its anchors, and lines that are not sealed.

For ``check()`` in the process that records, and for the doctor, which has only the files. Nothing is verified here: that is
what the verifier is for.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from structlog_audit.integrity.anchors import (
    CHECKPOINTS_LOGGER,
    COSIGNED_FILE,
    STAMPED_FILE,
    Anchors,
    AnchorState,
    read_states,
)
from structlog_audit.integrity.signing import KeyFile
from structlog_audit.integrity.standalone.verify_trail import (
    SealError,
    SegmentFile,
    find_files,
    open_file,
    timestamp_in,
)
from structlog_audit.recording.health_checks import Finding

UNSEALED_SECONDS = 10.0
"""The age from which on a line that is not sealed is a finding."""

_RUN = re.compile(rb"[0-9]+ [0-9]+ [0-9]+ ([0-9]+) (.+)")
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""How files that are compressed with gzip or zstd begin. They were closed, and sealed, before."""

_DATE_IN_NAME = r"[-._](?:19|20)\d\d-?[01]\d-?[0-3]\d(?:[-_T.]?\d{2,6})?"
_MOST_HINT_BYTES = 1 << 28
_MAX_LINE_BYTES = 1 << 20


def seal_findings(
    trail: str, now: dt.datetime, *, signers: Sequence[Any] = (), anchors: Anchors | None = None
) -> Iterator[Finding]:
    """Yield the findings about the seal of a trail.

    Args:
        trail: The path of the active segment.
        now: The present time.
        signers: The keys that sign in this process; none if they are not known.
        anchors: The anchors in this process; None for those that the seal folder states.
    """
    folder = f"{trail}.seal"
    yield from _folder_findings(folder)
    yield from _dated_findings(trail)
    for signer in signers:
        yield from _key_findings(signer)
    yield from _recursion_findings(trail)
    yield from _unsealed_findings(trail, folder, now)

    if anchors is None:
        states = read_states(folder)
        files = (os.path.join(folder, name) for name in (COSIGNED_FILE, STAMPED_FILE))
        has_any = bool(states) or any(map(os.path.exists, files))
    else:
        states = {**read_states(folder), **anchors.states()}
        has_any = anchors.has_any
    yield from _anchor_findings(states, has_any=has_any)


def _folder_findings(folder: str) -> Iterator[Finding]:
    try:
        mode = stat.S_IMODE(os.stat(folder).st_mode)
    except OSError:
        # No seal yet: lines that are not sealed are reported as such.
        return
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding("seal-permissions", f"{folder} can be changed by other users (mode {mode:o})", "chmod 700")
    elif mode & (stat.S_IROTH | stat.S_IXOTH):
        message = f"{folder} can be read by all users (mode {mode:o})"
        yield Finding("seal-permissions", message, "chmod 700, or 750 for a group of auditors")


def _dated_findings(trail: str) -> Iterator[Finding]:
    """Yield a finding about files named like the trail with a date, such as ``audit-2026-11-28.jsonl``, without a seal."""
    folder, base = os.path.split(trail)
    stem, suffix = os.path.splitext(base)
    dated = re.compile(rf"{re.escape(stem)}{_DATE_IN_NAME}{re.escape(suffix)}(?:\.gz|\.zst)?", re.ASCII)
    try:
        names = sorted(os.listdir(folder or "."))
    except OSError:
        # Others report that.
        return

    unsealed = [name for name in names if dated.fullmatch(name) and f"{name}.seal" not in names]
    if unsealed:
        named = f"{unsealed[0]} and {len(unsealed) - 1} more" if len(unsealed) > 1 else unsealed[0]
        message = f"files named like this trail with a date are not part of it, and have no seal: {named}"
        yield Finding(
            "dated-unsealed", message, "seal each with an origin of its own, or let AuditFileHandler roll over"
        )


def _key_findings(signer: Any) -> Iterator[Finding]:
    if not isinstance(signer, KeyFile):
        return
    try:
        is_private = signer.is_private
    except OSError:
        # The key is in memory: the file may be gone, or this user may not reach it any more.
        is_private = True
    if not is_private:
        yield Finding(
            "key-readable", f"{signer.path} can be read or changed by users other than its owner", "chmod 600"
        )

    message = f"this process has the key {signer.path}: who controls the process can seal what was never recorded"
    fix = "run structlog-audit seal --watch as another user, or sign by a command of a key service"
    yield Finding("key-in-process", message, fix)


def _recursion_findings(trail: str) -> Iterator[Finding]:
    for handler in logging.getLogger(CHECKPOINTS_LOGGER).handlers:
        target = getattr(handler, "target", handler)
        if os.path.abspath(getattr(target, "baseFilename", "")) == os.path.abspath(trail):
            message = (
                f"logger {CHECKPOINTS_LOGGER!r} has a handler that writes to this trail: each checkpoint causes another"
            )
            yield Finding("checkpoints-recorded", message, "attach handlers to it that send checkpoints to other hosts")


def _anchor_findings(states: dict[str, AnchorState], *, has_any: bool) -> Iterator[Finding]:
    if not has_any:
        message = "no anchor: without a checkpoint outside of this host, a consistent roll-back does not show"
        fix = "set witnesses or timestamps, attach a handler to structlog_audit.checkpoints, or ship the trail"
        yield Finding("no-anchor", message, fix)

    for name, state in states.items():
        if state.refused is not None:
            message = f"{state.refused}: {name} refused a checkpoint: {state.error}"
            yield Finding("anchor-refused", message, "verify the trail; two hosts must not have one origin")
        elif state.error is not None:
            since = "never" if state.time is None else f"last at {dt.datetime.fromtimestamp(state.time, dt.UTC):%FT%TZ}"
            message = f"{name} does not take checkpoints ({state.failures} failures, {since} taken): {state.error}"
            yield Finding("anchor-failing", message, "check the address and the network; recording goes on")


def _unsealed_findings(trail: str, folder: str, now: dt.datetime) -> Iterator[Finding]:
    try:
        files = find_files(trail)
    except (OSError, SealError):
        return

    oldest: dt.datetime | None = None
    for file, sealed in _sealed_bytes(files, folder, os.path.basename(trail)):
        time = _first_unsealed(file, sealed)
        if time is not None and (oldest is None or time < oldest):
            oldest = time

    if oldest is not None and (now - oldest).total_seconds() > UNSEALED_SECONDS:
        age = (now - oldest).total_seconds()
        message = f"lines are not sealed for {age:.0f} s: until they are, a change of them may not show"
        yield Finding("unsealed", message, "run structlog-audit seal, or find out why no process seals the trail")


def _sealed_bytes(files: list[SegmentFile], folder: str, active: str) -> Iterator[tuple[SegmentFile, int]]:
    """Yield each file with the number of bytes at its beginning that are sealed."""
    sealed = _bytes_by_name(folder)
    rolled = [file.name for file in files if file.name != active]

    # The seal may know a segment that was rolled over since by the name of the active segment.
    if rolled and rolled[-1] not in sealed and active in sealed:
        sealed[rolled[-1]] = sealed.pop(active)
    for file in files:
        yield file, sealed[file.name]


def _bytes_by_name(folder: str) -> Counter[str]:
    sealed: Counter[str] = Counter()
    try:
        with open_file(os.path.join(folder, "segments")) as hint:
            for match in map(_RUN.fullmatch, hint.read(_MOST_HINT_BYTES).splitlines()):
                if match is not None:
                    sealed[os.fsdecode(match[2])] += int(match[1])
    except OSError:
        pass
    return sealed


def _first_unsealed(file: SegmentFile, sealed: int) -> dt.datetime | None:
    """Return the time of the first line behind the *sealed* bytes; None if there is no whole line."""
    try:
        with file.open() as segment:
            if segment.read(4).startswith(_PACKED):
                return None
            segment.seek(sealed)
            line, end, _ = segment.read(_MAX_LINE_BYTES).partition(b"\n")
            changed = dt.datetime.fromtimestamp(os.fstat(segment.fileno()).st_mtime, dt.UTC)
    except Exception:
        # The segment was rolled over or deleted meanwhile, or cannot be read: others report that.
        return None
    return (timestamp_in(line) or changed) if end else None
