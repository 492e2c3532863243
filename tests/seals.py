"""Trails with chains, and the simplest sealer: it seals files that nobody writes to."""

from __future__ import annotations

import datetime as dt
import itertools
import os
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ed25519

from structlog_audit.events.codec import encode_payload
from structlog_audit.events.payload import TrailPayload
from structlog_audit.integrity.chain_link import ChainedStamp
from structlog_audit.integrity.merkle import HashFiles, Tree, leaf_hash
from structlog_audit.integrity.notes import ED25519, Checkpoint, VerifierKey, sign_note
from structlog_audit.integrity.standalone.verify_trail import Policy, find_files, verify

ORIGIN = "audit.example/shop/web1"
BEGIN = dt.datetime(2025, 1, 15, 10, 30, 45, tzinfo=dt.UTC)


class SeedSigner:
    """A key from a seed of 32 bytes."""

    def __init__(self, seed=bytes(range(32)), name=ORIGIN, kind=ED25519):
        self._private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        self.key = VerifierKey(name, kind, self._private.public_key().public_bytes_raw())

    def sign(self, message):
        return self._private.sign(message)


SIGNER = SeedSigner()
POLICY = Policy((SIGNER.key,))


def trail_event(operation, **metadata):
    return encode_payload(TrailPayload(operation, metadata=metadata, status="SUCCESS", kind="trail"), 4_096)


class Writer:
    """One process life whose clock advances by *step* seconds per line.

    Args:
        bits: Its random bits.
        step: Seconds between two lines.
    """

    def __init__(self, bits=1, step=0.25, begin=BEGIN, stamp_class=ChainedStamp):
        self._ns = int(begin.timestamp()) * 10**9
        self._step = int(step * 10**9)
        self._stamp = stamp_class(self._tick, lambda count: bits)

    def _tick(self):
        self._ns += self._step
        return self._ns

    def line(self, body):
        return self._stamp.line(body)

    def event(self, number):
        return self.line(b'"operation":"STORE","user_id":"user_%d","status":"SUCCESS"}' % number)

    def opened(self):
        return self.line(trail_event("opened", pid=7))

    def closed(self):
        return self.line(trail_event("closed", pid=7))

    def checkpoint(self, note):
        metadata = {"size": Checkpoint.parse(note.text).size, "note": str(note)}
        payload = TrailPayload("checkpoint", metadata=metadata, status="SUCCESS", kind="checkpoint")
        return self.line(encode_payload(payload, 4_096))


def note_of(size, root, signer=SIGNER, origin=ORIGIN):
    return sign_note(str(Checkpoint(origin, size, root)), [signer])


def lines_of(path):
    data = path.read_bytes()
    return data.split(b"\n")[:-1]


def write_lines(path, lines):
    path.write_bytes(b"".join(line + b"\n" for line in lines))


class Sealer:
    """Seals the files of a trail, in their order. Keeps tree and runs, so that it can seal again what was added.

    Args:
        trail: The path of the active segment.
    """

    def __init__(self, trail, signer=SIGNER, origin=ORIGIN):
        self.trail = trail
        self.folder = trail.parent / f"{trail.name}.seal"
        self.tree = Tree()
        self._signer = signer
        self._origin = origin
        self._numbers = {}
        self._runs = []
        self._sealed = {}

    def seal(self):
        """Seal all lines that are not sealed yet; return the checkpoint."""
        self.folder.mkdir(exist_ok=True)
        for file in find_files(str(self.trail)):
            path = self.trail.parent / file.name
            # The number of a deleted file may be given to another one.
            identity = path.stat().st_ino, *lines_of(path)[:1]
            number = self._numbers.setdefault(identity, len(self._numbers))
            lines = lines_of(path)[self._sealed.get(number, 0) :]
            if lines:
                self._add_run(number, lines, file.name)
            self._rename(number, file.name)

        for level, hashes in self.tree.take_stored().items():
            with (self.folder / f"hashes.{level}").open("ab") as stored:
                stored.write(hashes)
        runs = "".join(f"{' '.join(map(str, run))}\n" for run in self._runs)
        self._replace("segments", runs)

        note = note_of(self.tree.size, self.tree.root(), self._signer, self._origin)
        self._replace("checkpoint", str(note))
        return note

    def _replace(self, name, text):
        beside = self.folder / f"{name}.new"
        beside.write_text(text)
        os.replace(beside, self.folder / name)

    def _add_run(self, number, lines, name):
        size = sum(len(line) + 1 for line in lines)
        last = self._runs[-1] if self._runs else None
        if last is not None and last[0] == number:
            last[2] += len(lines)
            last[3] += size
        else:
            self._runs.append([number, self.tree.size, len(lines), size, name])
        for line in lines:
            self.tree.append(leaf_hash(line))
        self._sealed[number] = self._sealed.get(number, 0) + len(lines)

    def _rename(self, number, name):
        for run in self._runs:
            if run[0] == number:
                run[4] = name

    def hashes(self):
        return HashFiles(str(self.folder))


def rolled_path(trail, second):
    return trail.parent / f"{trail.name}.20250115T10{second // 60:02d}{second % 60:02d}.000000Z"


def make_trail(folder, segments=3, lines=40, step=0.25):
    """Write a trail of one writer with a checkpoint line in each segment; return its sealed form.

    The first lines are ``opened``, and in each segment the checkpoint of everything in front of it; the last is ``closed``.
    """
    trail = folder / "audit.jsonl"
    writer = Writer(step=step)
    sealer = Sealer(trail)
    numbers = itertools.count()
    for segment in range(segments):
        content = [writer.opened()] if segment == 0 else [writer.checkpoint(sealer.seal())]
        content += [writer.event(next(numbers)) for _ in range(lines - 2)]
        content += [writer.closed() if segment == segments - 1 else writer.event(next(numbers))]
        trail.write_bytes(b"".join(content))
        if segment < segments - 1:
            sealer.seal()
            os.rename(trail, rolled_path(trail, segment))
    sealer.seal()
    return sealer


def verified(trail, **options):
    """Return the report of a trail at rest."""
    options.setdefault("max_age", None)
    return verify(str(trail), options.pop("policy", POLICY), **options)


def codes(report):
    return dict(report.counts)


@cache
def other_signer():
    return SeedSigner(bytes(32))
