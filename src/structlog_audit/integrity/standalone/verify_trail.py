#!/usr/bin/env python3
"""Verify an audit trail against its seal: one file for auditors, which needs Python 3.11 and nothing else.

    python3 verify_trail.py audit.jsonl --key VKEY [--anchor FILE]… [--state FILE] [--max-age S] [--jobs N] [-o json]
    python3 verify_trail.py line.json --proof event.tlog-proof --key VKEY

**Guarantees.** Signed is the root of a hash tree (RFC 6962) whose leaves are all lines. The stored hashes must give this root,
and each sealed line its stored hash, so each damaged line is named. Lines that are not sealed are counted, not judged.
Nothing is changed, except for the file given as ``--state``.

**Failure handling.** Each fault is a finding. The exit code is that of the worst: 1 the trail was changed, 2 it cannot be
verified, 3 a part is not covered by the seal, 0 intact.

**Performance.** The memory is constant. Signatures are verified by the package ``cryptography`` if it is installed.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import datetime as dt
import errno
import gzip
import hashlib
import itertools
import json
import math
import os
import re
import stat
import struct
import sys
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from typing import Any, BinaryIO, NamedTuple

sha256 = hashlib.sha256

EXIT_CODES = {
    "CHANGED": 1,
    "MISSING": 1,
    "INSERTED": 1,
    "MOVED": 1,
    "MISSING_SEGMENT": 1,
    "FOREIGN_SEGMENT": 1,
    "TRUNCATED": 1,
    "ROLLED_BACK": 1,
    "FORKED": 1,
    "GAP": 1,
    "DOUBLE": 1,
    "CHAIN": 1,
    "BAD_SIGNATURE": 1,
    "BAD_SEAL": 1,
    "NO_SEAL": 2,
    "UNKNOWN_KEY": 2,
    "UNREADABLE": 2,
    "UNSEALED": 3,
    "UNANCHORED": 3,
    "STALE": 3,
    "TORN": 3,
    "HASHES_LOST": 3,
    "PRUNED": 0,
}
"""The codes of findings, and the exit code that each causes. 1 takes precedence over 2, and 2 over 3."""

MAX_AGE_SECONDS = 120.0
"""The age from which on lines that are not sealed or not anchored, and an old checkpoint, are findings."""


class SealError(ValueError):
    """A seal, a note, a key or a trail that cannot be used.

    Attributes:
        code: The code of the finding, one of `EXIT_CODES`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[SealError], tuple[str, str]]:
        return SealError, (self.code, str(self))


class NoTrailError(SealError):
    """There is no file of a trail."""


# --- Ed25519 (RFC 8032) ------------------------------------------------------------------------------------------------

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_SQRT_OF_MINUS_1 = pow(2, (_P - 1) // 4, _P)

_Point = tuple[int, int, int, int]
"""A point of the curve in extended coordinates: X, Y, Z, T with x = X/Z, y = Y/Z, xy = T/Z."""

_NEUTRAL: _Point = (0, 1, 1, 0)


def _add(p: _Point, q: _Point) -> _Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P

    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _decode_point(data: bytes) -> _Point | None:
    """Return the point that *data* encodes, or None if it is not the canonical encoding of a point."""
    number = int.from_bytes(data, "little")
    sign = number >> 255
    y = number & (1 << 255) - 1
    if y >= _P:
        return None

    # x² = u/v has a root in the field, or there is no such point (section 5.1.3).
    u = y * y - 1
    v = _D * y * y + 1
    square = u * pow(v, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _SQRT_OF_MINUS_1 % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None

    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _encode_point(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x = point[0] * inverse % _P
    y = point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _is_small_order(point: _Point) -> bool:
    for _ in range(3):
        point = _add(point, point)
    return point[0] == 0 and point[1] == point[2]


_BASE = _decode_point((4 * pow(5, -1, _P) % _P).to_bytes(32, "little")) or _NEUTRAL


def is_strong_key(public_key: bytes) -> bool:
    """Return whether *public_key* is the canonical encoding of a point that has not a small order."""
    point = _decode_point(public_key)
    return point is not None and not _is_small_order(point)


def verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether *signature* is one of *message* by *public_key*, without a package (RFC 8032 §5.1.7)."""
    point = _decode_point(public_key)
    if point is None or _is_small_order(point) or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= _ORDER:
        return False

    # R must be s·B - k·A. Both products share the doublings.
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    k = int.from_bytes(digest, "little") % _ORDER
    negative = (_P - point[0], point[1], point[2], _P - point[3])
    table = (_NEUTRAL, _BASE, negative, _add(_BASE, negative))

    result = _NEUTRAL
    for bit in range(max(s.bit_length(), k.bit_length()) - 1, -1, -1):
        result = _add(result, result)
        index = s >> bit & 1 | (k >> bit & 1) << 1
        if index:
            result = _add(result, table[index])

    return _encode_point(result) == signature[:32]


def verify_signature(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether *signature* is one of *message* by *public_key*, by ``cryptography`` if it is installed."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        return verify_ed25519(public_key, message, signature)

    if not is_strong_key(public_key):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False

    return True


# --- The hash tree (RFC 6962, RFC 9162) --------------------------------------------------------------------------------

HASH_BYTES = 32
TILE = 256
"""The number of hashes that have a common hash in the next level of the stored hashes."""

EMPTY_ROOT = sha256().digest()

ReadHashes = Callable[[int, int, int], bytes]
"""Returns stored hashes, back to back: of a level, from a position on, so many."""


def leaf_hash(line: bytes) -> bytes:
    """Return the leaf of *line*, which is without its LF."""
    return sha256(b"\0" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the node above *left* and *right*."""
    return sha256(b"\1" + left + right).digest()


def leaf_hashes(block: bytes) -> bytes:
    """Return the leaves of all lines in *block*, back to back. The block ends in LF."""
    lines = block[:-1].replace(b"\n", b"\n\0").split(b"\n")
    lines[0] = b"\0" + lines[0]
    return b"".join([sha256(line).digest() for line in lines])


_PAIRS = struct.Struct(f"{2 * HASH_BYTES}s")


def parents(hashes: bytes) -> bytes:
    """Return the nodes above *hashes*, an even number of them, back to back."""
    return b"".join([sha256(b"\1" + pair).digest() for (pair,) in _PAIRS.iter_unpack(hashes)])


def perfect_root(hashes: bytes) -> bytes:
    """Return the root above *hashes*, a power of two of them, back to back."""
    while len(hashes) > HASH_BYTES:
        hashes = parents(hashes)
    return hashes


def fold_right(nodes: list[bytes]) -> bytes:
    """Return the root above *nodes*, perfect subtrees of falling size."""
    root = nodes[-1]
    for node in nodes[-2::-1]:
        root = node_hash(node, root)
    return root


def range_root(read: ReadHashes, begin: int, end: int) -> bytes:
    """Return the root of the leaves from *begin* to *end*, made from stored hashes.

    Args:
        read: Reads stored hashes.
        begin: The first leaf: 0, or a multiple of a power of two that is at least the number of leaves.
        end: The leaf behind the last.
    """
    nodes = []
    while begin < end:
        height = (end - begin).bit_length() - 1
        level, rest = divmod(height, 8)
        nodes.append(perfect_root(read(level, begin >> 8 * level, 1 << rest)))
        begin += 1 << height

    return fold_right(nodes) if nodes else EMPTY_ROOT


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Return whether *proof* shows that *leaf* is at *index* in the tree (RFC 9162 §2.1.3.2)."""
    if not 0 <= index < size:
        return False
    fn, sn = index, size - 1
    r = leaf

    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            r = node_hash(r, p)

        fn >>= 1
        sn >>= 1

    return sn == 0 and r == root


def verify_consistency(first: int, second: int, proof: Sequence[bytes], first_root: bytes, second_root: bytes) -> bool:
    """Return whether *proof* shows that the tree of size *first* is the beginning of the other (RFC 9162 §2.1.4.2)."""
    if first == second:
        return not proof and first_root == second_root
    if not 0 < first < second or not proof:
        return False

    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1

    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr = node_hash(c, fr)
            sr = node_hash(c, sr)
            while not fn & 1 and fn:
                fn >>= 1
                sn >>= 1
        else:
            sr = node_hash(sr, c)

        fn >>= 1
        sn >>= 1

    return sn == 0 and fr == first_root and sr == second_root


class HashFiles:
    """The stored hashes of a tree: the files ``hashes.0``, ``hashes.1``, … of a seal folder.

    File *k* has the roots of the full subtrees of 256**k leaves, back to back.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._files: dict[int, BinaryIO] = {}

    def path_of(self, level: int) -> str:
        """Return the path of the file of *level*."""
        return os.path.join(self._folder, f"hashes.{level}")

    def read(self, level: int, start: int, count: int) -> bytes:
        """Return *count* hashes of *level* from *start* on.

        Raises:
            SealError: The file is missing or too short.
        """
        try:
            file = self._files.get(level)
            if file is None:
                file = self._files[level] = open_file(self.path_of(level))
            file.seek(start * HASH_BYTES)
            data = file.read(count * HASH_BYTES)
        except OSError as error:
            raise SealError("HASHES_LOST", f"{self.path_of(level)} cannot be read: {error.strerror}") from error

        if len(data) < count * HASH_BYTES:
            raise SealError("HASHES_LOST", f"{self.path_of(level)} ends before the hash {start + count}")
        if bytes(HASH_BYTES) in data:
            raise SealError(
                "HASHES_LOST", f"{self.path_of(level)} has a hole between the hashes {start} and {start + count}"
            )

        return data

    def find(self, leaf: bytes, begin: int, end: int) -> int | None:
        """Return the first position of *leaf* among the leaves from *begin* to *end*, or None."""
        while begin < end:
            count = min(end - begin, 1 << 15)
            hashes = self.read(0, begin, count)
            at = hashes.find(leaf)
            while at >= 0 and at % HASH_BYTES:
                at = hashes.find(leaf, at + 1)
            if at >= 0:
                return begin + at // HASH_BYTES
            begin += count

        return None

    def __enter__(self) -> HashFiles:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


# --- Notes, keys, policies and proofs (C2SP) ---------------------------------------------------------------------------

ED25519 = 0x01
"""The type of a key that signs notes (C2SP signed-note)."""

COSIGNATURE = 0x04
"""The type of a key that cosigns checkpoints with a time (C2SP tlog-cosignature)."""

_KEY_OWNERS = {ED25519: "a trail", COSIGNATURE: "a witness"}

MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100
MAX_POLICY_BYTES = 1_000_000
MAX_SIZE = 2**63 - 1

_SIGNATURE_LINE = re.compile("— (\\S+) (\\S+)")
_NUMBER = re.compile("0|[1-9][0-9]{0,18}")
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f]")


def _decode_base64(text: str, what: str) -> bytes:
    """Return the bytes in *text*, which must be canonical base64."""
    with suppress(ValueError, binascii.Error):
        data = base64.b64decode(text, validate=True)
        if base64.b64encode(data).decode() == text:
            return data

    raise SealError("UNREADABLE", f"{what}: expected base64, got {text[:80]!r}")


def decode_hash(text: str, what: str) -> bytes:
    """Return the hash in *text*, canonical base64 of 32 bytes."""
    data = _decode_base64(text, what)
    if len(data) != HASH_BYTES:
        raise SealError("UNREADABLE", f"{what}: expected the base64 of {HASH_BYTES} bytes, got {len(data)} bytes")
    return data


def decode_number(text: str, what: str) -> int:
    """Return the number in *text*, decimal without leading zeros."""
    if not _NUMBER.fullmatch(text) or int(text) > MAX_SIZE:
        raise SealError("UNREADABLE", f"{what}: expected a decimal number without leading zeros, got {text[:80]!r}")
    return int(text)


def is_key_name(name: str) -> bool:
    """Return whether *name* can be the name of a key: not empty, without spaces, plus and control characters."""
    has_space = any(character.isspace() for character in name)
    return bool(name) and "+" not in name and not has_space and not _CONTROLS.search(name)


def key_id_of(name: str, kind: int, public_key: bytes) -> bytes:
    """Return the four bytes that identify a key in notes."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:4]


class VerifierKey(NamedTuple):
    """A public key with its name: a C2SP *vkey*.

    Attributes:
        name: The name of the key; for a trail, its origin.
        kind: `ED25519` or `COSIGNATURE`.
        public_key: 32 bytes.
    """

    name: str
    kind: int
    public_key: bytes

    @classmethod
    def parse(cls, text: str, *kinds: int) -> VerifierKey:
        """Return the key in *text*, of the form ``NAME+ID+KEY``.

        Args:
            text: The text.
            kinds: The expected types; none for both.

        Raises:
            SealError: The text has another form, or the key is not a usable Ed25519 key of the expected type.
        """
        parts = text.split("+", 2)
        if len(parts) != 3 or not is_key_name(parts[0]):
            raise SealError("UNKNOWN_KEY", f"expected a verifier key NAME+ID+KEY, got {text[:80]!r}")

        name, key_id, encoded = parts
        data = _decode_base64(encoded, f"the verifier key {name!r}")
        expected = kinds or tuple(_KEY_OWNERS)
        if len(data) != 33 or data[0] not in expected:
            types = " or ".join(f"{kind} ({_KEY_OWNERS[kind]})" for kind in expected)
            got = f"type {data[0]}" if len(data) == 33 else f"{len(data)} bytes"
            raise SealError(
                "UNKNOWN_KEY", f"the verifier key {name!r}: expected an Ed25519 key of type {types}, got {got}"
            )

        key = cls(name, data[0], data[1:])
        if key_id != key.key_id.hex():
            raise SealError(
                "UNKNOWN_KEY", f"the verifier key {name!r}: expected the id {key.key_id.hex()}, got {key_id!r}"
            )

        if not is_strong_key(key.public_key):
            raise SealError(
                "UNKNOWN_KEY", f"the verifier key {name!r} is not a point of the curve, or has a small order"
            )

        return key

    @property
    def key_id(self) -> bytes:
        """The four bytes that identify the key in notes."""
        return key_id_of(self.name, self.kind, self.public_key)

    def __str__(self) -> str:
        encoded = base64.b64encode(bytes([self.kind]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    def verifies(self, text: str, signature: bytes) -> bool:
        """Return whether *signature* is one of the note *text* by this key."""
        if self.kind == ED25519:
            return verify_signature(self.public_key, text.encode(), signature)
        if len(signature) != 72:
            return False

        (time,) = struct.unpack(">Q", signature[:8])
        return time <= MAX_SIZE and verify_signature(self.public_key, cosigned_message(text, time), signature[8:])


def cosigned_message(text: str, time: int) -> bytes:
    """Return the bytes that a cosignature of the checkpoint *text* at *time*, in seconds since 1970, signs."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


class Signature(NamedTuple):
    """A signature of a note: the name and the id of its key, and the bytes that the key made."""

    name: str
    key_id: bytes
    data: bytes


class Note(NamedTuple):
    """A text with signatures, which are not verified yet."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """Return the note in *data*.

        Raises:
            SealError: The data is not a note (C2SP signed-note).
        """
        if len(data) > MAX_NOTE_BYTES:
            raise SealError("UNREADABLE", f"the note has more than {MAX_NOTE_BYTES} bytes")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise SealError("UNREADABLE", "the note is not UTF-8") from None

        if _CONTROLS.search(text):
            raise SealError("UNREADABLE", "the note has control characters, such as CR")

        body, separator, lines = text.rpartition("\n\n")
        if not separator or not lines.endswith("\n"):
            raise SealError("UNREADABLE", "the note does not end in an empty line and lines of signatures")
        signatures = tuple(map(_parse_signature, lines[:-1].split("\n")))
        if len(signatures) > MAX_SIGNATURES:
            raise SealError(
                "UNREADABLE", f"the note has {len(signatures)} signatures: expected at most {MAX_SIGNATURES}"
            )

        return cls(body + "\n", signatures)

    def __str__(self) -> str:
        lines = [self.text, "\n"]
        for name, key_id, data in self.signatures:
            lines.append(f"— {name} {base64.b64encode(key_id + data).decode()}\n")
        return "".join(lines)

    def signers(self, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
        """Return those of *keys* that have signed the note.

        Raises:
            SealError: A signature that states one of *keys* is not by it.
        """
        by_identity = {(key.name, key.key_id): key for key in keys}
        found = []
        for signature in self.signatures:
            key = by_identity.get(signature[:2])
            if key is None:
                continue
            if not key.verifies(self.text, signature.data):
                raise SealError("BAD_SIGNATURE", f"the signature of {key.name!r} is not one of this text by its key")
            found.append(key)

        return found


def _parse_signature(line: str) -> Signature:
    match = _SIGNATURE_LINE.fullmatch(line)
    if match is None or not is_key_name(match[1]):
        raise SealError("UNREADABLE", f"expected a line with a signature, '— NAME SIGNATURE', got {line[:80]!r}")
    data = _decode_base64(match[2], f"the signature of {match[1]!r}")
    if len(data) < 5:
        raise SealError("UNREADABLE", f"the signature of {match[1]!r} has only {len(data)} bytes")
    return Signature(match[1], data[:4], data[4:])


class Checkpoint(NamedTuple):
    """The head of a tree: the text of a note about a log (C2SP tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return the checkpoint in *text*, the text of a note.

        Raises:
            SealError: The text has another form.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() or not all(lines):
            raise SealError("UNREADABLE", "a checkpoint has an origin, a size, a root and no empty line")
        origin, size, root, *extensions = lines
        return cls(origin, decode_number(size, "the size"), decode_hash(root, "the root"), tuple(extensions))

    def __str__(self) -> str:
        root = base64.b64encode(self.root).decode()
        return "".join(f"{line}\n" for line in (self.origin, self.size, root, *self.extensions))


class Policy(NamedTuple):
    """The keys that a verifier trusts (C2SP tlog-policy).

    Attributes:
        logs: The keys of logs, by their origins.
        witnesses: The keys of witnesses, by their names in the policy.
        groups: By name, the number of members that must have cosigned, and the members.
        quorum: The name of the witness or group that must have cosigned; ``none`` for no witness.
        urls: The addresses of logs and witnesses, by verifier key.
    """

    logs: tuple[VerifierKey, ...]
    witnesses: Mapping[str, VerifierKey] = {}
    groups: Mapping[str, tuple[int, tuple[str, ...]]] = {}
    quorum: str = "none"
    urls: Mapping[str, str] = {}

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Return the policy in *data*.

        Raises:
            SealError: The data is not a policy; the message names the line.
        """
        return _PolicyParser(data).parse()

    @classmethod
    def load(cls, text: str) -> Policy:
        """Return the policy that *text* names: a verifier key, a file with one, or a policy file.

        Raises:
            SealError: It is none of these.
        """
        if not is_there(text):
            return cls((_key_or_no_file(text),))
        try:
            with open(text, "rb") as file:
                data = file.read(MAX_POLICY_BYTES + 1)
        except OSError as error:
            raise SealError("UNREADABLE", f"{text!r} cannot be read: {error.strerror}") from error

        if b" PRIVATE KEY-----" in data:
            raise SealError("UNKNOWN_KEY", f"{text!r} is a private key: expected its public half, the verifier key")
        words = data.split()
        if len(words) == 1:
            return cls((VerifierKey.parse(words[0].decode(errors="replace"), ED25519),))
        return cls.parse(data)

    def is_witnessed(self, cosigners: Iterable[VerifierKey]) -> bool:
        """Return whether *cosigners* are a quorum."""
        present = {key.public_key for key in cosigners}
        return self.quorum == "none" or self._has_cosigned(self.quorum, present)

    def _has_cosigned(self, name: str, present: set[bytes]) -> bool:
        witness = self.witnesses.get(name)
        if witness is not None:
            return witness.public_key in present
        least, members = self.groups[name]
        return sum(self._has_cosigned(member, present) for member in members) >= least

    def check(self, note: Note) -> tuple[Checkpoint, bool]:
        """Return the checkpoint of *note*, and whether a quorum of witnesses has cosigned it.

        Raises:
            SealError: No trusted key has signed it, or a signature is false.
        """
        signers = note.signers(self.logs)
        checkpoint = Checkpoint.parse(note.text)
        origin = checkpoint.origin

        if not signers:
            by_log = [signature for signature in note.signatures if signature.name == origin]
            expected = _names_of(by_log)
            message = f"no given key has signed the checkpoint: expected {expected}, got {_names_of(self.logs)}"
            raise SealError("UNKNOWN_KEY", message)

        if origin not in {key.name for key in signers}:
            message = f"the checkpoint is of {origin!r}, but the key is for {signers[0].name!r}"
            raise SealError("UNKNOWN_KEY", message)

        cosigners = note.signers(self.witnesses.values())
        return checkpoint, self.is_witnessed(cosigners)


def _names_of(keys: Iterable[VerifierKey | Signature]) -> str:
    return " or ".join(f"{key.name}+{key.key_id.hex()}" for key in keys) or "no key of a log"


def _key_or_no_file(text: str) -> VerifierKey:
    """Return the verifier key *text*, which is not the path of a file."""
    if "+" not in text:
        message = (
            f"expected a verifier key NAME+ID+KEY, or a file with one or with a policy; {text[:80]!r} does not exist"
        )
        raise SealError("UNKNOWN_KEY", message)
    return VerifierKey.parse(text, ED25519)


class _PolicyParser:
    """Parses one policy file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._number = 0
        self._logs: list[VerifierKey] = []
        self._witnesses: dict[str, VerifierKey] = {}
        self._groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._grouped: set[str] = set()
        self._quorum: str | None = None
        self._urls: dict[str, str] = {}

    def parse(self) -> Policy:
        if len(self._data) > MAX_POLICY_BYTES or re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", self._data):
            message = f"the policy has control characters, or more than {MAX_POLICY_BYTES} bytes"
            raise SealError("UNREADABLE", message)

        # Names are opaque bytes.
        lines = self._data.decode("utf-8", "surrogateescape").split("\n")
        for number, line in enumerate(lines, 1):
            self._number = number
            words = line.replace("\t", " ").strip(" ").split(" ")
            words = [word for word in words if word]
            if words and not words[0].startswith("#"):
                self._parse_line(words)

        if self._quorum is None:
            raise self._error("expected a line 'quorum NAME', got none")
        return Policy(tuple(self._logs), self._witnesses, self._groups, self._quorum, self._urls)

    def _error(self, message: str) -> SealError:
        return SealError("UNREADABLE", f"line {self._number} of the policy: {message}")

    def _parse_line(self, words: list[str]) -> None:
        keyword, *values = words
        forms: dict[str, tuple[Callable[..., None], float, float]] = {
            "log": (self._add_log, 1, 2),
            "witness": (self._add_witness, 2, 3),
            "group": (self._add_group, 3, math.inf),
            "quorum": (self._set_quorum, 1, 1),
        }
        if keyword not in forms:
            raise self._error(f"expected log, witness, group or quorum, got {keyword[:80]!r}")
        add, least, most = forms[keyword]
        if not least <= len(values) <= most:
            raise self._error(f"{keyword!r} has {len(values)} values")
        add(*values)

    def _key(self, text: str, url: str, kind: int, others: Iterable[VerifierKey]) -> VerifierKey:
        try:
            key = VerifierKey.parse(text, kind)
        except SealError as error:
            raise self._error(str(error)) from error

        if key.public_key in {other.public_key for other in others}:
            raise self._error("the same key was given before")
        if url:
            self._urls[text] = url
        return key

    def _add_log(self, text: str, url: str = "") -> None:
        self._logs.append(self._key(text, url, ED25519, self._logs))

    def _add_witness(self, name: str, text: str, url: str = "") -> None:
        self._check_new(name)
        self._witnesses[name] = self._key(text, url, COSIGNATURE, self._witnesses.values())

    def _add_group(self, name: str, count: str, *members: str) -> None:
        self._check_new(name)
        for member in members:
            if not self._is_known(member):
                raise self._error(f"{member!r} is not defined before")
            if member in self._grouped:
                raise self._error(f"{member!r} is a member already")
            self._grouped.add(member)

        words = {"any": 1, "all": len(members)}
        least = words[count] if count in words else decode_number(count, f"line {self._number} of the policy")
        if not 1 <= least <= len(members):
            raise self._error(f"expected any, all or a number from 1 to {len(members)}, got {count!r}")
        self._groups[name] = least, members

    def _set_quorum(self, name: str) -> None:
        if self._quorum is not None:
            raise self._error("a second quorum")
        if name != "none" and not self._is_known(name):
            raise self._error(f"{name!r} is not defined before")
        self._quorum = name

    def _check_new(self, name: str) -> None:
        if name == "none" or self._is_known(name):
            raise self._error(f"the name {name!r} is used already")

    def _is_known(self, name: str) -> bool:
        return name in self._witnesses or name in self._groups


PROOF_HEADER = "c2sp.org/tlog-proof@v1"


class Proof(NamedTuple):
    """A proof that a line is in a trail (C2SP tlog-proof), which is not verified yet."""

    leaf_index: int
    hashes: tuple[bytes, ...]
    note: Note
    extra: bytes | None = None

    @classmethod
    def parse(cls, data: bytes) -> Proof:
        """Return the proof in *data*.

        Raises:
            SealError: The data has another form.
        """
        head, separator, note = data[: MAX_NOTE_BYTES + 16_384].partition(b"\n\n")
        lines = head.decode(errors="replace").split("\n")
        if not separator or lines.pop(0) != PROOF_HEADER:
            raise SealError(
                "UNREADABLE", f"a proof begins with {PROOF_HEADER!r}, and has an empty line before its checkpoint"
            )

        extra = None
        if lines and lines[0].startswith("extra "):
            extra = _decode_base64(lines.pop(0)[6:], "the line 'extra'")
        if not lines or not lines[0].startswith("index "):
            raise SealError("UNREADABLE", "the proof has no line 'index NUMBER' in its place")
        index = decode_number(lines.pop(0)[6:], "the index")

        if len(lines) > 63:
            raise SealError("UNREADABLE", f"the proof has {len(lines)} hashes: expected at most 63")
        hashes = tuple(decode_hash(line, "a hash of the proof") for line in lines)
        return cls(index, hashes, Note.parse(note), extra)

    def __str__(self) -> str:
        lines = [PROOF_HEADER, f"index {self.leaf_index}"]
        if self.extra is not None:
            lines.insert(1, f"extra {base64.b64encode(self.extra).decode()}")
        lines += [base64.b64encode(digest).decode() for digest in self.hashes]
        return "\n".join([*lines, "", str(self.note)])

    def verifies(self, line: bytes, policy: Policy) -> bool:
        """Return whether the proof shows that *line*, without its LF, is in a trail of *policy*.

        Raises:
            SealError: The checkpoint is not by a trusted key, or lacks cosignatures.
        """
        checkpoint, is_witnessed = policy.check(self.note)
        if not is_witnessed:
            raise SealError("UNANCHORED", "the checkpoint is not cosigned by a quorum of witnesses")
        return verify_inclusion(leaf_hash(line), self.leaf_index, checkpoint.size, self.hashes, checkpoint.root)


# --- The files of a trail and of its seal ------------------------------------------------------------------------------

MAX_LINE_BYTES = 1 << 26
_BLOCK_BYTES = 1 << 18
_PACKED_SUFFIXES = ("", ".gz", ".zst")
_MOST_HINT_BYTES = 1 << 28
_ROLLED = re.compile(r"\.(\d{8}T\d{6}\.\d{6}Z)(?:\.gz|\.zst)?", re.ASCII)
_NUMBERED = re.compile(r"\.(\d{1,3})(?:\.gz|\.zst)?", re.ASCII)
_DATE = r"(?:(?:19|20)\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])(?:[-_T.]?[0-2]\d(?:[-:]?[0-5]\d){0,2})?|\d{10})"
_DATED = re.compile(rf"[-._]({_DATE})(?:\.gz|\.zst)?", re.ASCII)
_RUN = re.compile("([0-9]{1,18}) ([0-9]{1,18}) ([0-9]{1,18}) ([0-9]{1,18}) (.+)")


def open_file(path: str) -> BinaryIO:
    """Open the regular file at *path*: a pipe in its place would block.

    Raises:
        OSError: It cannot be opened, or is not a regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return open(fd, "rb")


class VanishedError(Exception):
    """A segment that existed is gone: retention, or a compression that was under way."""


class SegmentFile(NamedTuple):
    """One file of a trail.

    Attributes:
        path: The path without the suffix of a compression.
        order: The place in the trail, oldest first.
        size: The number of bytes to read, if a writer may still append.
        inode: The device and the inode of the file, if it may be rolled over.
    """

    path: str
    order: tuple[int, str | int]
    size: int | None = None
    inode: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """The name without the suffix of a compression."""
        return os.path.basename(self.path)

    def open(self) -> BinaryIO:
        """Open the file under the name that it has now.

        Raises:
            VanishedError: It has none.
        """
        if self.inode is not None:
            return self._open_inode(self.inode)

        # The last attempt finds a file that was decompressed meanwhile.
        for suffix in (*_PACKED_SUFFIXES, ""):
            with suppress(FileNotFoundError):
                return open_file(self.path + suffix)
        raise VanishedError(self.path)

    def chunks(self) -> Iterator[bytes] | None:
        """Return the decompressed content in pieces if it comes from elsewhere than a file; None for a file."""
        return None

    @property
    def damage(self) -> str:
        """What could not be read of content that comes from elsewhere."""
        return ""

    def changed_at(self) -> dt.datetime:
        """Return when the file was last changed."""
        with self.open() as file:
            return dt.datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, dt.UTC)

    def _open_inode(self, inode: tuple[int, int]) -> BinaryIO:
        """Open the file that was the active segment, which may have been rolled over since."""
        folder = os.path.dirname(self.path)
        for _ in range(3):
            for name in sorted(os.listdir(folder)):
                path = os.path.join(folder, name)
                if name.startswith(self.name) and _identity(path)[:2] == inode:
                    file = open_file(path)
                    if _inode_of(os.fstat(file.fileno())) == inode:
                        return file
                    file.close()

        raise VanishedError(self.path)


class SegmentReader:
    """Reads a segment: plain, gzip or zstd, by its first bytes.

    Args:
        file: Where the segment is.

    Attributes:
        unfinished: The bytes behind the last LF, after all blocks were read.
        damage: The damage of the compressed data, if any.
        has_junk: Whether that is data behind the end of the compressed data.
        position: The number of bytes of the file that were read so far, compressed or not.
    """

    def __init__(self, file: SegmentFile) -> None:
        self._file = file
        self.position = 0
        self.unfinished = b""
        self.damage = ""
        self.has_junk = False

    def blocks(self) -> Iterator[bytes]:
        """Yield blocks of whole lines, each with its LF.

        Raises:
            SealError: The file cannot be read, or has a line of more than `MAX_LINE_BYTES`.
        """
        rest = b""
        for data in self.chunks():
            end = data.rfind(b"\n") + 1
            if end:
                yield rest + data[:end]
                rest = data[end:]
                continue

            rest += data
            if len(rest) > MAX_LINE_BYTES:
                raise SealError("UNREADABLE", f"{self._file.name} has a line of more than {MAX_LINE_BYTES} bytes")

        self.unfinished = rest
        self.damage = self.damage or self._file.damage

    def chunks(self) -> Iterator[bytes]:
        """Yield the decompressed content in pieces.

        Raises:
            SealError: The file cannot be read.
        """
        chunks = self._file.chunks()
        if chunks is not None:
            for data in chunks:
                self.position += len(data)
                yield data
            return

        try:
            with self._file.open() as file:
                for data in self._chunks_of(file):
                    self.position = file.tell()
                    yield data
                self.position = file.tell()
        except OSError as error:
            raise SealError("UNREADABLE", f"{self._file.name} cannot be read: {error.strerror or error}") from error

    def _chunks_of(self, file: BinaryIO) -> Iterator[bytes]:
        head = file.read(4)
        file.seek(0)
        if head.startswith(b"\x1f\x8b"):
            return self._gzip_chunks(file)
        if head == b"\x28\xb5\x2f\xfd":
            return self._zstd_chunks(file)
        return self._plain_chunks(file)

    def _plain_chunks(self, file: BinaryIO) -> Iterator[bytes]:
        left = math.inf if self._file.size is None else self._file.size
        while left > 0 and (data := file.read(int(min(left, _BLOCK_BYTES)))):
            left -= len(data)
            yield data

    def _gzip_chunks(self, file: BinaryIO) -> Iterator[bytes]:
        stream = gzip.GzipFile(fileobj=file)
        try:
            while data := stream.read1(_BLOCK_BYTES):
                yield data
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.damage = str(error)
            self.has_junk = self.damage.startswith("Not a gzipped file")

    def _zstd_chunks(self, file: BinaryIO) -> Iterator[bytes]:
        zstd = _import_zstd(self._file.name)
        stream = zstd.ZstdFile(file)
        try:
            while data := stream.read1(_BLOCK_BYTES):
                yield data
        except (EOFError, zstd.ZstdError) as error:
            self.damage = str(error)
            self.has_junk = "magic" in self.damage or "Unknown frame" in self.damage


def _import_zstd(name: str) -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            message = f"{name} is compressed with zstd: install backports.zstd, use Python 3.14, or decompress it"
            raise SealError("UNREADABLE", message) from None

    return zstd


def find_files(trail: str) -> list[SegmentFile]:
    """Return the files of the *trail*, the path of its active segment, oldest first.

    Raises:
        NoTrailError: There are none.
        SealError: The folder cannot be read.
    """
    folder, base = os.path.split(os.path.abspath(trail))
    for _ in range(100):
        before = _identity(trail)
        try:
            # One listing can miss both names of a segment that is being compressed.
            names = {*os.listdir(folder), *os.listdir(folder)}
        except OSError as error:
            raise SealError("UNREADABLE", f"{folder!r} cannot be listed: {error.strerror}") from error

        if _identity(trail)[:2] == before[:2]:
            break

    found = {}
    for name in names - {base}:
        order = _order_of(base, name)
        if order is not None:
            path = os.path.join(folder, re.sub(r"\.(gz|zst)$", "", name))
            found[path] = SegmentFile(path, order)

    files = sorted(found.values(), key=lambda file: (file.order, file.path))

    if before != _ABSENT:
        files.append(SegmentFile(os.path.join(folder, base), (2, 0), before[2], before[:2]))
    if not files:
        raise NoTrailError("UNREADABLE", f"{trail!r} is not a trail: there is no such file, and no rolled segment")
    return files


_ABSENT = (0, 0, 0)


def _identity(path: str) -> tuple[int, int, int]:
    """Return device, inode and size of the file at *path*; `_ABSENT` if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return _ABSENT
    except OSError as error:
        raise SealError("UNREADABLE", f"{path!r} cannot be read: {error.strerror}") from error

    return *_inode_of(status), status.st_size


def _inode_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _order_of(base: str, name: str) -> tuple[int, str | int] | None:
    """Return the place of the rolled segment *name* in the trail *base*; None for another file."""
    if not name.startswith(base):
        return None
    rolled = _ROLLED.fullmatch(name, len(base))
    if rolled is not None:
        with suppress(ValueError):
            dt.datetime.strptime(rolled[1], "%Y%m%dT%H%M%S.%fZ")
            return 1, rolled[1]

    # Files of other programs come first.
    numbered = _NUMBERED.fullmatch(name, len(base))
    if numbered is not None:
        return 0, -int(numbered[1])
    dated = _DATED.fullmatch(name, len(base))
    if dated is None:
        return None
    return 0, int(re.sub(r"\D", "", dated[1]).ljust(14, "0"))


class Run(NamedTuple):
    """Consecutive lines of a segment that are consecutive leaves of the tree.

    Attributes:
        first: The leaf of the first line.
        lines: The number of lines.
        size: Their number of bytes, with their LFs; None if it is not known.
    """

    first: int
    lines: int
    size: int | None = None


class SealedSegment(NamedTuple):
    """A segment as the seal knows it. Lines that came after the rollover are a further run, later in the tree.

    Attributes:
        number: Its number in the file ``segments``.
        name: The name of its file.
        runs: Its lines.
        is_cut: Whether lines between these or before them were dropped: numbers and chains have holes there.
    """

    number: int
    name: str
    runs: tuple[Run, ...]
    is_cut: bool = False

    @property
    def first(self) -> int:
        """The leaf of the first line."""
        return self.runs[0].first

    @property
    def lines(self) -> int:
        """The number of sealed lines."""
        return sum(run.lines for run in self.runs)

    def leaf_of(self, position: int) -> int:
        """Return the leaf of the line at *position*, counted from 0."""
        for run in self.runs:
            if position < run.lines:
                return run.first + position
            position -= run.lines

        raise IndexError(position)

    def read(self, hashes: HashFiles, position: int, count: int) -> bytes:
        """Return the stored leaves of up to *count* lines from *position* on."""
        found = b""
        for run in self.runs:
            if position < run.lines and count:
                taken = min(count, run.lines - position)
                found += hashes.read(0, run.first + position, taken)
                count -= taken
                position += taken

            position -= run.lines
            if position < 0:
                break

        return found

    def find(self, hashes: HashFiles, leaf: bytes, position: int) -> int | None:
        """Return the first line from *position* on with this *leaf*, or None."""
        before = 0
        for run in self.runs:
            begin = run.first + max(0, position - before)
            found = None
            with suppress(SealError):
                found = hashes.find(leaf, begin, run.first + run.lines)
            if found is not None:
                return before + found - run.first
            before += run.lines
        return None


def parse_segments(data: bytes, size: int) -> list[SealedSegment] | None:
    """Return the segments that the file ``segments`` of a seal names, up to the leaf *size*, in the order of their numbers.

    Each line is a run, in the order of the leaves: ``NUMBER FIRST_LEAF LINES BYTES NAME``. The runs of a segment have its
    number. The file is a hint, which saves reading all lines: None means that it cannot be used.
    """
    runs: dict[int, list[Run]] = {}
    names: dict[int, str] = {}
    end = 0
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        match = _RUN.fullmatch(line)
        if match is None or int(match[2]) != end:
            return None
        number, count = int(match[1]), int(match[3])

        lines = min(count, size - end)
        if lines > 0:
            size_in_bytes = int(match[4]) if lines == count else None
            runs.setdefault(number, []).append(Run(end, lines, size_in_bytes))
            names[number] = match[5]

        end += count

    if end < size:
        return None
    return [SealedSegment(number, names[number], tuple(runs[number])) for number in sorted(runs)]


def read_segments(seal: str, size: int) -> list[SealedSegment] | None:
    """Return the segments that the file in the folder *seal* names, as `parse_segments`; None also if it cannot be read."""
    try:
        with open_file(os.path.join(seal, "segments")) as file:
            return parse_segments(file.read(_MOST_HINT_BYTES), size)
    except OSError:
        return None


def rebuild_segments(files: Sequence[SegmentFile], hashes: HashFiles, size: int) -> list[SealedSegment]:
    """Return the segments of a seal without the file ``segments``, from the lines and the stored hashes."""
    segments = []
    end = 0
    for number, file in enumerate(files):
        builder = _RunBuilder(hashes, size, end)
        for block in SegmentReader(file).blocks():
            builder.feed(leaf_hashes(block))
        end = builder.next
        runs = builder.non_empty_runs()
        if runs:
            segments.append(SealedSegment(number, file.name, runs))

    return segments


def runs_of_lines(blocks: Iterable[bytes], hashes: HashFiles, segment: SealedSegment) -> tuple[Run, ...]:
    """Return the leaves of *segment* that its lines are, some of which were deleted.

    Args:
        blocks: The leaves of the lines.
        hashes: The stored hashes.
        segment: The segment with all its lines.
    """
    builder = _RunBuilder(hashes, max(run.first + run.lines for run in segment.runs), segment.first)
    for leaves in blocks:
        builder.feed(leaves)
    return builder.non_empty_runs()


class _RunBuilder:
    """Finds the runs of one segment: the longest sequences of its lines that are consecutive leaves."""

    MOST_SEARCHES = 1_000

    def __init__(self, hashes: HashFiles, size: int, expected: int) -> None:
        self.runs: list[Run] = []
        self.next = expected
        self._hashes = hashes
        self._size = size
        self._searches = 0

    def non_empty_runs(self) -> tuple[Run, ...]:
        """Return the runs with any line: those of a segment behind the seal have none."""
        return tuple(run for run in self.runs if run.lines)

    def feed(self, leaves: bytes) -> None:
        for at in range(0, len(leaves), HASH_BYTES):
            self._add(leaves[at : at + HASH_BYTES])

    def _add(self, leaf: bytes) -> None:
        if not self.runs or not self._is_at(leaf, self.next):
            found = self._search(leaf)
            if found is not None and (not self.runs or found != self.next):
                self.runs.append(Run(found, 0))
                self.next = found
            elif not self.runs:
                self.runs.append(Run(self.next, 0))

        # A line that is nowhere in the tree was changed, or is not sealed yet.
        run = self.runs[-1]
        if self.next < self._size:
            self.runs[-1] = Run(run.first, run.lines + 1)
            self.next += 1

    def _is_at(self, leaf: bytes, position: int) -> bool:
        with suppress(SealError):
            return position < self._size and self._hashes.read(0, position, 1) == leaf
        return False

    def _search(self, leaf: bytes) -> int | None:
        self._searches += 1
        if self._searches > self.MOST_SEARCHES:
            return None
        with suppress(SealError):
            found = self._hashes.find(leaf, self.next, self._size)
            return self._hashes.find(leaf, 0, self._size) if found is None and not self.runs else found
        return None


# --- Findings ----------------------------------------------------------------------------------------------------------

MOST_FINDINGS = 1_000
"""The number of findings of one code that are kept. Others are counted."""


@dataclass
class Finding:
    """One fault.

    Attributes:
        code: One of `EXIT_CODES`.
        message: The finding in words.
        segment: The name of the segment.
        line: The number of the line in the segment, from 1.
        leaf: The position of the line in the tree.
    """

    code: str
    message: str
    segment: str | None = None
    line: int | None = None
    leaf: int | None = None
    digest: bytes = field(default=b"", repr=False)
    since: tuple[int, int] | None = None
    place: tuple[int, int] | None = None
    after: int | None = None


class Findings:
    """The findings of one check; a bounded number of each code."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.counts: Counter[str] = Counter()

    def add(self, code: str, message: str, **details: Any) -> None:
        """Add a finding."""
        self._keep(Finding(code, message, **details))

    def _keep(self, finding: Finding) -> None:
        self.counts[finding.code] += 1
        if self.counts[finding.code] <= MOST_FINDINGS:
            self.kept.append(finding)

    def merge(self, other: Findings) -> None:
        """Add the findings of *other*."""
        for finding in other.kept:
            self._keep(finding)
        self.counts += other.counts - Counter(finding.code for finding in other.kept)

    def remove(self, is_unwanted: Callable[[Finding], bool]) -> None:
        """Remove findings."""
        unwanted = [finding for finding in self.kept if is_unwanted(finding)]
        self.counts -= Counter(finding.code for finding in unwanted)
        self.kept = [finding for finding in self.kept if finding not in unwanted]


LINE_CODES = frozenset({"CHANGED", "MISSING", "INSERTED", "MOVED", "TRUNCATED"})


# --- Each line against its stored hash ---------------------------------------------------------------------------------

_WINDOW = 512
_MOST_SEARCHES = 100
_TIMESTAMP = re.compile(rb'"timestamp": ?"([0-9T:.Z+-]{19,35})"')


def timestamp_in(line: bytes) -> dt.datetime | None:
    """Return the timestamp in *line*, or None."""
    match = _TIMESTAMP.search(line[:1_000])
    if match is None:
        return None
    try:
        time = dt.datetime.fromisoformat(match[1].decode())
    except ValueError:
        return None

    return time if time.tzinfo else time.replace(tzinfo=dt.UTC)


class LineCheck:
    """Compares the lines of one file with the stored hashes of its segment.

    Where they differ, lines of `_WINDOW` are compared with each other; the rest of the segment is searched a few times.

    Args:
        place: The number of the file in the trail.
        file: The file.
        segment: The sealed segment in it; None if no line is sealed.
        hashes: The stored hashes.
    """

    def __init__(self, place: int, file: SegmentFile, segment: SealedSegment | None, hashes: HashFiles) -> None:
        self.findings = Findings()
        self.lines = 0
        self.unsealed = 0
        self.first_unsealed: tuple[int, dt.datetime | None] | None = None

        self._place = place
        self._name = file.name
        self._segment = segment
        self._total = segment.lines if segment else 0
        self._hashes = hashes

        # The number of leaves that were compared; once lines and leaves differ, the leaves of lines that are held back.
        self._position = 0
        self._held: deque[bytes] | None = None
        self._searches = 0

    def feed(self, block: bytes) -> None:
        """Check the lines in *block*."""
        count = block.count(b"\n")
        left = self._total - self._position
        if left == 0 and not self._held:
            self._count_unsealed(block, count)
        elif self._held is None:
            leaves = leaf_hashes(block)
            expected = self._expected(self._position, min(count, left), leaves)
            if leaves[: len(expected)] != expected:
                self._held = deque()
                self._hold(leaves)
                return

            self._position += min(count, left)
            self.lines += min(count, left)
            if count > left:
                self._count_unsealed(block.split(b"\n", left)[left], count - left)
        else:
            self._hold(leaf_hashes(block))

    def _expected(self, position: int, count: int, default: bytes) -> bytes:
        """Return the stored leaves; *default* where they are lost, which is a finding of the tree."""
        if self._segment is None:
            return b""
        try:
            return self._segment.read(self._hashes, position, count)
        except SealError:
            return default[: count * HASH_BYTES]

    def _count_unsealed(self, block: bytes, count: int) -> None:
        if self.first_unsealed is None:
            self.first_unsealed = self.lines + 1, timestamp_in(block[: block.find(b"\n")])
        self.unsealed += count
        self.lines += count

    def _hold(self, leaves: bytes) -> None:
        held = self._held
        assert held is not None  # noqa: S101 (for the type checker)
        held.extend(leaves[at : at + HASH_BYTES] for at in range(0, len(leaves), HASH_BYTES))
        while len(held) > _WINDOW:
            self._compare(held)

    def _compare(self, held: deque[bytes]) -> None:
        """Compare the first held line with the next leaf. If they differ, find out how."""
        leaf = held[0]
        ahead = self._expected(self._position, min(_WINDOW, self._total - self._position), leaf)
        if not ahead:
            # All sealed lines are compared.
            self._count_unsealed(b"", 1)
            held.popleft()
        elif leaf == ahead[:HASH_BYTES]:
            self._advance(held)
        else:
            self._explain(held, ahead)

    def _advance(self, held: deque[bytes]) -> None:
        held.popleft()
        self.lines += 1
        self._position += 1

    def _explain(self, held: deque[bytes], ahead: bytes) -> None:
        sealed = [ahead[at : at + HASH_BYTES] for at in range(0, len(ahead), HASH_BYTES)]
        inserted = _position_of(sealed[0], list(held))
        missing = _position_of(held[0], sealed)
        if missing is None and inserted is None:
            missing = self._search(held[0], len(sealed))

        if missing is not None and (inserted is None or missing <= inserted):
            self._add_missing(missing)
        elif inserted is not None:
            self._add_inserted(held, inserted)
        else:
            line = self.lines + 1
            message = f"line {line} of {self._name} was changed after it was sealed"
            self._add("CHANGED", message, line=line, at=self._position)
            self._advance(held)

    def _add_missing(self, count: int) -> None:
        """Add a finding for each of the next *count* sealed lines."""
        for leaf in self._leaves_ahead(count):
            message = f"line {self._position + 1} of {self._name} is missing"
            self._add("MISSING", message, leaf, at=self._position)
            self._position += 1

    def _add_inserted(self, held: deque[bytes], count: int) -> None:
        """Add a finding for each of the first *count* held lines."""
        for _ in range(count):
            self.lines += 1
            message = f"line {self.lines} of {self._name} was inserted after the lines around it were sealed"
            self._add("INSERTED", message, held.popleft())

    def _search(self, leaf: bytes, count: int) -> int | None:
        """Return how many sealed lines, more than *count*, are missing in front of the line with *leaf*; None for another."""
        if self._segment is None or self._searches == _MOST_SEARCHES:
            return None
        self._searches += 1
        found = self._segment.find(self._hashes, leaf, self._position + count)
        return None if found is None else found - self._position

    def _leaves_ahead(self, count: int) -> Iterator[bytes]:
        end = self._position + count
        for position in range(self._position, end, _WINDOW):
            yield from _split_hashes(self._expected(position, min(_WINDOW, end - position), b""))

    def _add(
        self, code: str, message: str, digest: bytes = b"", line: int | None = None, at: int | None = None
    ) -> None:
        """Add a finding.

        Args:
            code: Its code.
            message: The finding in words.
            digest: The leaf of the line.
            line: The number of the line, if it is neither the last that was read nor that of the leaf.
            at: The position of its leaf in the segment.
        """
        leaf = None
        if at is not None and self._segment is not None:
            leaf = self._segment.leaf_of(at)

        if line is None:
            line = self.lines if at is None else at + 1

        self.findings.add(
            code,
            message,
            segment=self._name,
            line=line,
            leaf=leaf,
            digest=digest,
            place=(self._place, line),
        )

    def finish(self, reader: SegmentReader) -> None:
        """Check the end of the file, after *reader* has read all of it."""
        while self._held:
            self._compare(self._held)

        left = self._total - self._position
        if left:
            reason = f" ({reader.damage})" if reader.damage else ""
            message = f"{self._name} ends after line {self.lines}, before its sealed end; missing lines: {left}{reason}"
            self._add("TRUNCATED", message, line=self.lines + 1, at=self._position)
        elif reader.has_junk:
            message = f"{self._name} has data behind the end of its compressed data, after line {self.lines}"
            self._add("INSERTED", message, line=self.lines + 1)
        elif reader.damage:
            self._add(
                "UNREADABLE", f"{self._name} is damaged after line {self.lines}: {reader.damage}", line=self.lines
            )


def _position_of(leaf: bytes, leaves: Sequence[bytes]) -> int | None:
    try:
        return leaves.index(leaf)
    except ValueError:
        return None


# --- Numbers and chains ------------------------------------------------------------------------------------------------

_ID_START = b'{"event_id":"evt_'
_ID = re.compile(rb'\{"event_id":"evt_[0-9a-f]{12}7([0-9a-f]{3}[89ab][0-9a-f]{7})([0-9a-f]{8})"')
_WRITER = slice(30, 41)
_NUMBER_DIGITS = slice(41, 49)
_LINK_START = b',"chain":"'
_LINK = re.compile(rb',"chain":"([0-9a-f]{64})"\}$')
_TRAIL_KINDS = (b'"kind":"trail"', b'"kind":"checkpoint"')
_MOST_WRITERS = 50_000


class _Writer:
    """The state of one writer so far.

    Attributes:
        next: The next number.
        chain: The hash of its lines since its last link; None if that is not known.
        since: The place of its last link.
        file: The number of the file with its last line.
        glued: Numbers of lines that were glued to a torn one: the writer writes them once more.
        repeated: The next number of a repetition that is under way, and the finding to report if it ends early.
    """

    __slots__ = ("chain", "file", "glued", "next", "repeated", "since")

    def __init__(self, number: int) -> None:
        self.next = number
        self.chain: Any = None
        self.since = (0, 0)
        self.file = 0
        self.glued: set[int] = set()
        self.repeated: tuple[int, dict[str, Any]] | None = None


class _Lines(NamedTuple):
    """The sealed lines of a block.

    Attributes:
        lines: The lines: empty for torn ones, and without a torn one in front for glued ones.
        glued: The positions of lines that were glued to a torn one.
        links: The positions of lines with a link.
        by_writer: For each writer, the positions of its lines and their numbers.
    """

    lines: Sequence[bytes]
    glued: set[int]
    links: set[int]
    by_writer: dict[bytes, tuple[list[int], list[int]]]

    @classmethod
    def of(cls, block: bytes, lines: list[bytes]) -> _Lines:
        """Return the first *lines* of *block*."""
        glued: set[int] = set()
        are_ours = {line[:17] for line in lines} == {_ID_START}
        are_whole = {line[-1:] for line in lines} == {b"}"} and block.count(_ID_START) == block.count(b"\n")
        if not (are_ours and are_whole):
            lines, glued = _without_torn(lines)

        positions: dict[bytes, list[int]] = {}
        for position, line in enumerate(lines):
            positions.setdefault(line[_WRITER], []).append(position)

        if not (are_ours and are_whole):
            # Lines of other programs, and torn ones, have no writer.
            for writer in list(positions):
                positions[writer] = [position for position in positions[writer] if _ID.match(lines[position])]
                if not positions[writer]:
                    del positions[writer]

        links: set[int] = set()
        if _LINK_START in block:
            links = {position for position, line in enumerate(lines) if _LINK_START in line[-78:]}

        by_writer = {}
        for writer, found in positions.items():
            by_writer[writer] = found, _numbers_in(lines, found)
        return cls(lines, glued, links, by_writer)

    def line_of(self, writer: bytes, number: int, end: int) -> bytes | None:
        """Return the line with this *number*, if it is in front of the position *end*."""
        positions, numbers = self.by_writer.get(writer, ([], []))
        if number not in numbers:
            return None
        position = positions[numbers.index(number)]
        return self.lines[position] if position < end else None


def _numbers_in(lines: Sequence[bytes], positions: Iterable[int]) -> list[int]:
    try:
        return [int(lines[position][_NUMBER_DIGITS], 16) for position in positions]
    except ValueError:
        return []


def _without_torn(lines: Sequence[bytes]) -> tuple[list[bytes], set[int]]:
    """Return *lines* without torn ones, and the positions of those that were glued to a torn one.

    A writer that wrote a line in part, or behind the torn line of another process, writes it once more.
    """
    whole = []
    glued = set()
    for position, line in enumerate(lines):
        start = line.rfind(_ID_START)
        if start > 0 and line[: min(start, 17)] == _ID_START[:start]:
            line = line[start:]
            glued.add(position)
        whole.append(line if line.endswith(b"}") else b"")

    return whole, glued


class PrunedRange(NamedTuple):
    """Leaves that a ``retention`` event names.

    Attributes:
        place: The place of the event.
        time: Its timestamp.
        is_sealed: Whether it is sealed.
        begin, end: The first leaf, and the one behind the last.
    """

    place: tuple[int, int]
    time: dt.datetime | None
    is_sealed: bool
    begin: int
    end: int


class WriterCheck:
    """Checks the numbers and chains of the writers in the sealed lines, in the order of the files.

    Args:
        on_checkpoint: Called with the note in each checkpoint line, its timestamp, its place and the name of its segment.
    """

    def __init__(self, on_checkpoint: Callable[[str, dt.datetime | None, tuple[int, int], str], None]) -> None:
        self.findings = Findings()
        self.pruned: list[PrunedRange] = []
        self.has_retention = False
        self.open_writers: dict[bytes, None] = {}
        self.newest: dt.datetime | None = None

        # Writers whose number 0 was not seen: place, segment, first number.
        self.beginnings: list[tuple[tuple[int, int], str, int]] = []

        self._on_checkpoint = on_checkpoint
        self._writers: dict[bytes, _Writer] = {}
        self._has_forgotten = False

        # The last blocks, in which the lines are found that a writer repeats.
        self._recent: deque[_Lines] = deque(maxlen=8)

        # By writer, the first number of its lines that are not sealed yet, and the one behind the last.
        self._unsealed: dict[bytes, tuple[int, int]] = {}

        self._place = 0
        self._segment: SealedSegment | None = None
        self._name = ""
        self._lines = 0

    def begin(self, place: int, file: SegmentFile, segment: SealedSegment | None) -> None:
        """Begin the file with the number *place*."""
        self._place = place
        self._name = file.name
        self._segment = segment
        self._lines = 0
        if segment is not None and segment.is_cut:
            self._writers.clear()
            self._recent.clear()
            self._has_forgotten = True

    def feed(self, block: bytes) -> None:
        """Check the sealed lines in *block*; look for checkpoints in all."""
        lines = block.split(b"\n")
        lines.pop()
        sealed = self._segment.lines - self._lines if self._segment else 0
        self._check_trail_events(block, lines, sealed)

        checked = lines[: max(0, sealed)]
        if checked and self._segment is not None:
            if not self._segment.is_cut:
                self._check_numbers(block, checked)
            self.newest = timestamp_in(checked[-1]) or self.newest
        self._note_unsealed(lines[len(checked) :])
        self._lines += len(lines)

    def _check_trail_events(self, block: bytes, lines: Sequence[bytes], sealed: int) -> None:
        """Look at the lines that a trail has about itself."""
        if not any(kind in block for kind in _TRAIL_KINDS):
            return
        for number, line in enumerate(lines):
            if any(kind in line for kind in _TRAIL_KINDS):
                with suppress(ValueError, RecursionError):
                    event = json.loads(line)
                    self._check_trail_event(event, line, number, is_sealed=number < sealed)

    def _check_trail_event(self, event: Any, line: bytes, number: int, *, is_sealed: bool) -> None:
        if not isinstance(event, dict):
            return
        metadata = event.get("metadata")
        if not isinstance(metadata, dict):
            metadata = {}
        place = self._place, self._lines + number + 1

        if event.get("kind") == "checkpoint" and isinstance(metadata.get("note"), str):
            self._on_checkpoint(metadata["note"], timestamp_in(line), place, self._name)
        elif event.get("kind") != "trail":
            return
        elif event.get("operation") == "retention":
            self._note_retention(metadata.get("leaves"), PrunedRange(place, timestamp_in(line), is_sealed, 0, 0))
        elif is_sealed and event.get("operation") == "opened":
            self._note_opened(line[_WRITER])
        elif is_sealed and event.get("operation") == "closed":
            self.open_writers.pop(line[_WRITER], None)

    def _note_opened(self, writer: bytes) -> None:
        self.open_writers[writer] = None
        if len(self.open_writers) > _MOST_WRITERS:
            del self.open_writers[next(iter(self.open_writers))]

    def _note_retention(self, ranges: Any, event: PrunedRange) -> None:
        """Note the ranges of leaves that a ``retention`` event names: pairs of the first and the one behind the last."""
        own = MAX_SIZE
        if event.is_sealed and self._segment is not None:
            self.has_retention = True
            own = self._segment.leaf_of(event.place[1] - 1)
        if not isinstance(ranges, list):
            return

        for pair in ranges:
            is_pair = isinstance(pair, list) and len(pair) == 2
            if is_pair and type(pair[0]) is int and type(pair[1]) is int:
                self.pruned.append(event._replace(begin=pair[0], end=min(pair[1], own)))

    def _note_unsealed(self, lines: Sequence[bytes]) -> None:
        """Note the numbers of *lines*, which are not sealed yet.

        A writer whose file another process has rolled over may append to it for a moment. Until the sealer reads that file
        once more, such a line is not sealed, although later lines in the next file are.
        """
        for line in lines:
            match = _ID.match(line)
            if match is None:
                continue
            number = int(match[2], 16)
            first, end = self._unsealed.pop(match[1], (number, number))
            self._unsealed[match[1]] = (first if number == end else number), number + 1
            if len(self._unsealed) > _MOST_WRITERS:
                del self._unsealed[next(iter(self._unsealed))]

    def _are_unsealed(self, writer: bytes, begin: int, end: int) -> bool:
        """Return whether the lines from number *begin* to in front of *end* are there, and only not sealed yet."""
        first, behind = self._unsealed.get(writer, (0, 0))
        return first <= begin and end <= behind

    def _check_numbers(self, block: bytes, lines: list[bytes]) -> None:
        checked = _Lines.of(block, lines)
        self._recent.append(checked)
        for writer in checked.by_writer:
            self._check_writer(writer, checked)

    def _check_writer(self, writer: bytes, checked: _Lines) -> None:
        """Check the lines of one *writer*."""
        known = self._writers.pop(writer, None)
        positions, numbers = checked.by_writer[writer]
        is_regular = (
            known is not None
            and known.repeated is None
            and numbers == list(range(known.next, known.next + len(positions)))
            and not checked.glued
        )
        if known is not None and is_regular:
            self._extend(known, positions, checked.lines, checked.links)
            known.next += len(positions)
        else:
            known = self._check_one_by_one(writer, known, checked)

        if known is not None:
            self._remember(writer, known)

    def _remember(self, writer: bytes, state: _Writer) -> None:
        self._writers[writer] = state
        state.file = self._place
        if len(self._writers) > _MOST_WRITERS:
            del self._writers[next(iter(self._writers))]
            self._has_forgotten = True

    def _check_one_by_one(self, writer: bytes, known: _Writer | None, checked: _Lines) -> _Writer | None:
        """Check the lines of a new writer, or lines whose numbers have gaps or repeat."""
        for position in checked.by_writer[writer][0]:
            match = _ID.match(checked.lines[position])
            if match is None:
                continue
            number = int(match[2], 16)
            if known is None:
                known = self._begin(position, number, writer)

            if number < known.next:
                self._check_repeated(known, writer, number, position, checked)
                continue
            self._end_repetition(known)
            if number > known.next:
                self._check_gap(known, writer, number, position)
                known.chain = None

            self._extend(known, [position], checked.lines, checked.links)
            known.next = number + 1
            known.file = self._place
            if position in checked.glued:
                known.glued.add(number)

        return known

    def _check_gap(self, state: _Writer, writer: bytes, number: int, position: int) -> None:
        """Report the numbers that are missing before *number*, unless their lines are only not sealed yet."""
        if self._are_unsealed(writer, state.next, number):
            return
        is_one = number - state.next == 1
        what = f"the number {state.next}" if is_one else f"the numbers {state.next} to {number - 1}"
        message = f"missing before it: {what} of the writer {writer.decode()}"
        self._add("GAP", position, message, since=state.since, after=state.file)

    def _check_repeated(self, state: _Writer, writer: bytes, number: int, position: int, checked: _Lines) -> None:
        """Check a line whose number was there before.

        After an interrupted write or a failed fsync, a writer writes its last lines once more, byte for byte, up to the last.
        """
        details = self._details("DOUBLE", position, f"the number {number} of the writer {writer.decode()} occurs again")
        if self._recent_line(writer, number, position) != checked.lines[position]:
            self._end_repetition(state)
            self.findings.add(**details)
            state.chain = None
        elif number in state.glued:
            state.glued.discard(number)
        elif state.repeated is None or state.repeated[0] == number:
            first = details if state.repeated is None else state.repeated[1]
            state.repeated = None if number + 1 == state.next else (number + 1, first)
        else:
            self._end_repetition(state)
            self.findings.add(**details)

    def _end_repetition(self, state: _Writer) -> None:
        """Report a repetition that did not reach the last line: its writer would have gone on."""
        if state.repeated is not None:
            self.findings.add(**state.repeated[1])
            state.repeated = None

    def _recent_line(self, writer: bytes, number: int, position: int) -> bytes | None:
        """Return the line with this *number* in front of *position*, if it is recent."""
        end = position
        for checked in reversed(self._recent):
            line = checked.line_of(writer, number, end)
            if line is not None:
                return line
            end = sys.maxsize

        return None

    def _begin(self, number: int, count: int, writer: bytes) -> _Writer:
        state = _Writer(count)
        has_begun = self._has_forgotten or self._are_unsealed(writer, 0, count)
        if count == 0:
            state.chain = sha256()
        elif not has_begun and len(self.beginnings) < MOST_FINDINGS:
            self.beginnings.append(((self._place, self._lines + number + 1), self._name, count))

        state.since = self._place, self._lines + number + 1
        return state

    def _extend(self, state: _Writer, numbers: list[int], lines: Sequence[bytes], links: set[int]) -> None:
        """Add lines to the chain of their writer, and check the links in them."""
        start = 0
        if links:
            for at, number in enumerate(numbers):
                if number in links and (match := _LINK.search(lines[number])):
                    self._add_to_chain(state, numbers[start:at], lines)
                    start = at
                    self._check_link(state, number, match[1].decode(), is_first=state.next == 0 and at == 0)

        if state.chain is None:
            return
        if state.next == 0 and start == 0 and numbers[0] not in links:
            # The first line has no link: this writer has no chain.
            state.chain = None
            return

        self._add_to_chain(state, numbers[start:], lines)

    def _add_to_chain(self, state: _Writer, numbers: Sequence[int], lines: Sequence[bytes]) -> None:
        if numbers and state.chain is not None:
            state.chain.update(b"\n".join([lines[number] for number in numbers]) + b"\n")

    def _check_link(self, state: _Writer, number: int, link: str, *, is_first: bool) -> None:
        here = self._place, self._lines + number + 1
        if state.chain is not None and state.chain.hexdigest() != link:
            if is_first:
                message = "its link is not that of a writer's first line"
            else:
                message = "lines of its writer before it were changed before they were sealed: its link does not fit"

            self._add("CHAIN", number, message, since=state.since)

        state.chain = sha256()
        state.since = here

    def _add(self, code: str, number: int, message: str, **details: Any) -> None:
        self.findings.add(**self._details(code, number, message), **details)

    def _details(self, code: str, number: int, message: str) -> dict[str, Any]:
        line = self._lines + number + 1
        text = f"line {line} of {self._name}: {message}"
        return {"code": code, "message": text, "segment": self._name, "line": line, "place": (self._place, line)}


# --- Notes within the trail and outside of it --------------------------------------------------------------------------


class Frontier:
    """The perfect subtrees of a growing tree, from which its root follows. O(log n) memory.

    Args:
        size: The number of leaves.
        nodes: The roots of the perfect subtrees, the largest first.
    """

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.nodes = list(nodes)

    @classmethod
    def at(cls, size: int, read: ReadHashes) -> Frontier:
        """Return the frontier of the tree of *size* leaves, made from stored hashes."""
        nodes = []
        begin = 0
        while begin < size:
            height = (size - begin).bit_length() - 1
            nodes.append(range_root(read, begin, begin + (1 << height)))
            begin += 1 << height

        return cls(size, nodes)

    def append(self, leaf: bytes) -> None:
        """Add one leaf."""
        self._complete(0, leaf)
        node = leaf
        height = 0
        size = self.size
        while size >> height & 1:
            node = node_hash(self.nodes.pop(), node)
            height += 1
            if not height & 7:
                self._complete(height >> 3, node)

        self.nodes.append(node)
        self.size = size + 1

    def _complete(self, level: int, node: bytes) -> None:
        """Take note of a node that belongs to the stored hashes of *level*."""

    def root(self) -> bytes:
        """Return the root."""
        return fold_right(self.nodes) if self.nodes else EMPTY_ROOT


KEY_STATEMENT = b"structlog-audit key "
"""What every line of the trail with a statement about a key contains."""

KEY_CHANGES = "key-changes"
"""The file of a seal folder with the statements about keys that are not in the trail yet."""

KEY_BEGINS = "structlog-audit key begins "
"""The extension line of the checkpoint from which on a new key counts; the verifier key follows."""

KEY_ENDS = "structlog-audit key ends "
"""The extension line of the last checkpoint for which an old key counts; its name, a plus and its id follow."""

_KeyIdentity = tuple[str, bytes]
"""The name and the id of a key."""


class _SingleSigned(NamedTuple):
    """A note that names one of the trusted keys, and no other of them."""

    size: int
    note: Note
    where: str
    details: dict[str, Any]


class KeyUse:
    """The use of the trusted keys in a trail: for which sizes each counts, and which checkpoints it signed alone.

    A change of the key is stated by a checkpoint with extension lines, in a ``key`` line of the trail. It restricts keys that
    the verifier trusts anyway, and counts only if one of them has signed it; a new key states its beginning itself.

    Args:
        keys: The trusted keys.
    """

    def __init__(self, keys: Iterable[VerifierKey]) -> None:
        self._keys = {(key.name, key.key_id): key for key in keys}
        self._begins: dict[_KeyIdentity, int] = {}
        self._ends: dict[_KeyIdentity, int] = {}

        # By key, the notes with the smallest and the largest size.
        self._alone: dict[_KeyIdentity, tuple[_SingleSigned, _SingleSigned]] = {}
        self._statements = 0

    def trust(self, key: VerifierKey) -> None:
        """Add a trusted key."""
        self._keys[key.name, key.key_id] = key

    def keys_at(self, size: int) -> list[VerifierKey]:
        """Return the trusted keys that have not ended before *size*."""
        return [key for identity, key in self._keys.items() if self._ends.get(identity, MAX_SIZE) >= size]

    def add(self, note: Note, head: Checkpoint, where: str, details: dict[str, Any]) -> None:
        """Take note of the checkpoint *head*, of which *note* is the note."""
        if head.extensions:
            self._add_statement(note, head)

        named = {signature[:2] for signature in note.signatures if signature[:2] in self._keys}
        if len(named) != 1:
            return

        (identity,) = named
        found = _SingleSigned(head.size, note, where, details)
        first, last = self._alone.get(identity, (found, found))

        smallest = min(first, found, key=_size_of)
        largest = max(last, found, key=_size_of)
        self._alone[identity] = smallest, largest

    def _add_statement(self, note: Note, head: Checkpoint) -> None:
        self._statements += 1
        if self._statements > MOST_FINDINGS:
            return
        try:
            signers = {(key.name, key.key_id) for key in note.signers(self._keys.values())}
        except SealError:
            return

        for line in head.extensions if signers else ():
            identity = _key_identity(line.removeprefix(KEY_BEGINS).removeprefix(KEY_ENDS))

            if line.startswith(KEY_BEGINS) and identity in signers:
                self._begins[identity] = min(head.size, self._begins.get(identity, head.size))
            elif line.startswith(KEY_ENDS):
                self._ends[identity] = min(head.size, self._ends.get(identity, head.size))

    def findings(self) -> Iterator[dict[str, Any]]:
        """Yield a finding for each checkpoint that a key alone signed outside of its sizes."""
        for identity, (first, last) in self._alone.items():
            begin = self._begins.get(identity, 0)
            end = self._ends.get(identity, MAX_SIZE)

            if first.size < begin:
                yield self._finding(identity, first, f"it counts from {begin} lines on")
            if last.size > end:
                yield self._finding(identity, last, f"it counts up to {end} lines, and was replaced")

    def _finding(self, identity: _KeyIdentity, found: _SingleSigned, reason: str) -> dict[str, Any]:
        key = f"{identity[0]}+{identity[1].hex()}"
        try:
            found.note.signers([self._keys[identity]])
            message = f"{found.where} covers {found.size} lines, and is signed by the key {key} alone: {reason}"
        except SealError as error:
            message = f"{found.where}: {error}"

        return {"code": "BAD_SIGNATURE", "message": message, **found.details}


def _size_of(found: _SingleSigned) -> int:
    return found.size


def _key_identity(text: str) -> _KeyIdentity:
    """Return the identity of the key in *text*, ``NAME+ID`` or a verifier key; one that no key has if it is neither."""
    name, _, rest = text.partition("+")
    with suppress(ValueError):
        return name, bytes.fromhex(rest.partition("+")[0])
    return name, b""


class NoteCheck:
    """Compares notes with the tree: whether they are heads of its beginnings.

    Args:
        policy: The trusted keys.
        checkpoint: The head of the tree.
        hashes: The stored hashes.
        newest_size: Returns the size of the newest checkpoint of the seal, now.
        key_use: Gets all notes.
    """

    def __init__(
        self,
        policy: Policy,
        checkpoint: Checkpoint,
        hashes: HashFiles,
        newest_size: Callable[[], int],
        key_use: KeyUse,
    ) -> None:
        self.key_use = key_use
        self.findings = Findings()
        self.times: list[tuple[int, dt.datetime]] = []
        self.newest: dt.datetime | None = None
        self.count = 0

        self._policy = policy
        self._checkpoint = checkpoint
        self._hashes = hashes
        self._newest_size = newest_size
        self._known_size = checkpoint.size
        self._frontier = Frontier()

    def check_line(self, text: str, time: dt.datetime | None, place: tuple[int, int], segment: str) -> None:
        """Check the note in a checkpoint line of the trail itself."""
        where = f"the checkpoint in line {place[1]} of {segment}"
        size = self.check(text, where, place=place, segment=segment, line=place[1])
        if size is not None and time is not None:
            self.newest = max(time, self.newest or time)
            self.times.append((size, time))
            if len(self.times) > 4_096:
                del self.times[::2]

    def check(self, text: str, where: str, **details: Any) -> int | None:
        """Check the note *text*, and return its size if it is a head of the beginning of this tree."""
        try:
            note = Note.parse(text.encode())
            head = Checkpoint.parse(note.text)
        except (SealError, UnicodeEncodeError):
            return None

        if head.origin != self._checkpoint.origin:
            return None

        self.count += 1
        self.key_use.add(note, head, where, details)
        if head.size <= self._checkpoint.size:
            root = self._root_at(head.size)
            if root is None:
                return None
            if root == head.root:
                return head.size
        elif head.size <= self._known_size:
            return None

        return self._judge(note, head, where, details)

    def _judge(self, note: Note, head: Checkpoint, where: str, details: dict[str, Any]) -> int | None:
        """Judge a note that does not fit: it counts only if its signature is right."""
        try:
            signers = note.signers(self._policy.logs)
        except SealError as error:
            self.findings.add("BAD_SIGNATURE", f"{where}: {error}", **details)
            return None

        if not signers:
            return None

        if head.size <= self._checkpoint.size:
            reason = "there are two versions of this trail, or two trails with its origin"
            message = f"{where} has another root for its {head.size} lines: {reason}"
            self.findings.add("FORKED", message, **details)
            return None

        # The seal of a living trail has grown meanwhile.
        self._known_size = max(self._known_size, self._newest_size())
        if head.size > self._known_size:
            message = f"{where} covers {head.size} lines, the seal only {self._known_size}: lines were taken away"
            self.findings.add("ROLLED_BACK", message, **details)
            self._known_size = head.size

        return None

    def _root_at(self, size: int) -> bytes | None:
        """Return the root of the first *size* leaves; None if the stored hashes are lost."""
        try:
            frontier = self._frontier
            if not 0 <= size - frontier.size <= 1_024:
                self._frontier = frontier = Frontier.at(size, self._hashes.read)
            leaves = self._hashes.read(0, frontier.size, size - frontier.size)
            for at in range(0, len(leaves), HASH_BYTES):
                frontier.append(leaves[at : at + HASH_BYTES])
            return frontier.root()
        except SealError:
            self._frontier = Frontier()
            return None


_ESCAPES = re.compile(rb"\\+n|#012|\\+u2014")
_CUT_ESCAPE = re.compile(rb"(?:\\+(?:u[0-9]{0,3})?|#0?1?)\Z")
_ESCAPED = {b"n": b"\n", b"2": b"\n", b"4": "—".encode()}
_NOTE_AFTER_ORIGIN = (
    rb"\n[0-9]{1,19}\n[A-Za-z0-9+/]{43}=\n(?:[^\n]+\n)*\n"
    rb"(?:\xe2\x80\x94 [^\s+]+ [A-Za-z0-9+/]+={0,2}(?![A-Za-z0-9+/=])\n?)+(?=[^A-Za-z0-9+/=])"
)
_OVERLAP_BYTES = 1 << 16


def is_there(path: str) -> bool:
    """Return whether *path* exists.

    Raises:
        SealError: This user may not know.
    """
    try:
        os.stat(path)
    except PermissionError as error:
        raise SealError("UNREADABLE", f"{path!r} cannot be read: {error.strerror}") from error
    except (OSError, ValueError):
        return False

    return True


def notes_in(path: str, origin: str) -> Iterator[str]:
    """Yield the notes of *origin* in any file: text, JSON, or syslog with its ``#012``; plain, gzip or zstd.

    Raises:
        SealError: The file cannot be read.
    """
    if not is_there(path):
        raise SealError("UNREADABLE", f"{path!r} does not exist: expected a file with checkpoints")
    yield from _notes_of(SegmentFile(path, (0, 0)), origin)


def _notes_of(file: SegmentFile, origin: str) -> Iterator[str]:
    """Yield the notes of *origin* in *file*.

    Raises:
        SealError: The file cannot be read.
        VanishedError: There is none.
    """
    note = re.compile(rb"(?<![^\s\"'>:=])" + re.escape(origin.encode()) + _NOTE_AFTER_ORIGIN)
    reader = SegmentReader(file)
    yield from _matches_in(reader.chunks(), note)

    if reader.damage:
        raise SealError("UNREADABLE", f"{file.path!r} is damaged: {reader.damage}")


def _matches_in(blocks: Iterable[bytes], note: re.Pattern[bytes]) -> Iterator[str]:
    """Yield the notes in *blocks*. A match near the end of a block is left to the next one: it may be cut there."""
    text = raw = b""
    for block in itertools.chain(blocks, (None,)):
        raw += b"\n" if block is None else block
        cut_escape = _CUT_ESCAPE.search(raw, max(0, len(raw) - 64))
        cut = cut_escape.start() if cut_escape else len(raw)
        text += _ESCAPES.sub(lambda match: _ESCAPED[match[0][-1:]], raw[:cut])
        raw = raw[cut:]

        certain = len(text) if block is None else len(text) - _OVERLAP_BYTES
        end = 0
        for match in note.finditer(text):
            if match.end() <= certain:
                end = match.end()
                yield match[0].decode("utf-8", "replace").rstrip("\n") + "\n"

        text = text[max(end, certain - _OVERLAP_BYTES, 0) :]


# --- The verification --------------------------------------------------------------------------------------------------

_TILES_PER_TASK = 2_048
_DAMAGE_CODES = LINE_CODES | {"MISSING_SEGMENT", "FOREIGN_SEGMENT", "BAD_SEAL"}


Progress = Callable[[int], None]
"""Called with the number of bytes of files that were read so far."""


def _ignore_progress(count: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Job:
    """The common state of the parts of a verification. They may run in other processes.

    Attributes:
        trail: The path of the active segment.
        seal: The seal folder.
        files: The files of the trail, oldest first.
        segments: For each file, the sealed segment in it, or None.
        checkpoint: The head of the tree.
        policy: The trusted keys.
    """

    trail: str
    seal: str
    files: tuple[SegmentFile, ...]
    segments: tuple[SealedSegment | None, ...]
    checkpoint: Checkpoint
    policy: Policy


class LineResult(NamedTuple):
    """The result of `LineCheck` for one file."""

    findings: Findings
    unsealed: int
    first_unsealed: tuple[int, dt.datetime | None] | None
    unfinished: bool
    size: int


class WriterResult(NamedTuple):
    """The result of `WriterCheck` and of the trail's own notes."""

    findings: Findings
    pruned: list[PrunedRange]
    has_retention: bool
    beginnings: list[tuple[tuple[int, int], str, int]]
    open_writers: int
    newest: dt.datetime | None
    sealed_until: dt.datetime | None
    times: list[tuple[int, dt.datetime]]
    key_use: KeyUse


def check_all(job: Job, progress: Progress) -> tuple[list[LineResult], WriterResult]:
    """Check lines and writers, and read each file once."""
    results = []
    done = 0
    with HashFiles(job.seal) as hashes:
        notes, writers = _writer_check(job, hashes)
        for place, file in enumerate(job.files):
            lines = LineCheck(place, file, job.segments[place], hashes)
            writers.begin(place, file, job.segments[place])
            reader = SegmentReader(file)
            for block in reader.blocks():
                lines.feed(block)
                writers.feed(block)
                progress(done + reader.position)
            done += reader.position
            results.append(_line_result(lines, reader))

    return results, _writer_result(notes, writers)


def check_lines(job: Job, place: int) -> LineResult:
    """Check the lines of one file."""
    with HashFiles(job.seal) as hashes:
        lines = LineCheck(place, job.files[place], job.segments[place], hashes)
        reader = SegmentReader(job.files[place])
        for block in reader.blocks():
            lines.feed(block)
        return _line_result(lines, reader)


def check_writers(job: Job) -> WriterResult:
    """Check the writers of all files."""
    with HashFiles(job.seal) as hashes:
        notes, writers = _writer_check(job, hashes)
        for place, file in enumerate(job.files):
            writers.begin(place, file, job.segments[place])
            for block in SegmentReader(file).blocks():
                writers.feed(block)

    return _writer_result(notes, writers)


def _writer_check(job: Job, hashes: HashFiles) -> tuple[NoteCheck, WriterCheck]:
    def newest_size() -> int:
        with suppress(SealError):
            return job.policy.check(read_checkpoint(job.seal))[0].size
        return 0

    notes = NoteCheck(job.policy, job.checkpoint, hashes, newest_size, KeyUse(job.policy.logs))
    return notes, WriterCheck(notes.check_line)


def _line_result(lines: LineCheck, reader: SegmentReader) -> LineResult:
    lines.finish(reader)
    return LineResult(lines.findings, lines.unsealed, lines.first_unsealed, bool(reader.unfinished), reader.position)


def _writer_result(notes: NoteCheck, writers: WriterCheck) -> WriterResult:
    writers.findings.merge(notes.findings)
    newest = notes.newest or writers.newest
    open_writers = len(writers.open_writers)
    return WriterResult(
        writers.findings,
        writers.pruned,
        writers.has_retention,
        writers.beginnings,
        open_writers,
        newest,
        writers.newest,
        notes.times,
        notes.key_use,
    )


def check_tiles(seal: str, level: int, begin: int, end: int) -> list[int]:
    """Return the tiles of *level*, from *begin* to *end*, that do not give the hash in the next level."""
    bad = []
    with HashFiles(seal) as hashes:
        for tile in range(begin, end):
            try:
                root = perfect_root(hashes.read(level, tile * TILE, TILE))
                is_bad = root != hashes.read(level + 1, tile, 1)
            except SealError:
                is_bad = True

            if is_bad:
                bad.append(tile)

    return bad


def read_checkpoint(seal: str) -> Note:
    """Return the note in the file ``checkpoint`` of a seal folder, not verified.

    Raises:
        SealError: There is none, or it cannot be read.
    """
    path = os.path.join(seal, "checkpoint")
    try:
        with open_file(path) as file:
            data = file.read(MAX_NOTE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise SealError(
            "NO_SEAL",
            f"{path!r} does not exist: the trail is not sealed, its seal was removed, or this is not its active segment",
        ) from None
    except OSError as error:
        raise SealError("UNREADABLE", f"{path!r} cannot be read: {error.strerror}") from error

    try:
        return Note.parse(data)
    except SealError as error:
        raise SealError(error.code, f"{path!r} is not a checkpoint: {error}") from error


def match_segments(
    files: Sequence[SegmentFile], segments: Sequence[SealedSegment], hashes: HashFiles
) -> list[SealedSegment | None]:
    """Return the segment in each of *files*: that with its name and first line, else with its first line, else its name.

    A file may have been rolled over since its name was noted.
    """
    first_leaves = [first_leaf(file) for file in files]
    matched: list[SealedSegment | None] = [None] * len(files)
    left = {segment.number: segment for segment in segments}
    newest = max(left, default=None)

    def has_first_line(place: int, segment: SealedSegment) -> bool:
        with suppress(SealError):
            return segment.read(hashes, 0, 1) == first_leaves[place]
        return False

    def has_name(place: int, segment: SealedSegment) -> bool:
        return _plain_name(segment.name) == files[place].name

    def is_successor(place: int, segment: SealedSegment) -> bool:
        # An active segment that was rolled over since, and whose first line was changed.
        is_rolled = files[place].order[0] == 1 and first_leaves[place] is not None
        return is_rolled and segment.number == newest and not any(matched[place:])

    tests = (
        lambda place, segment: has_name(place, segment) and has_first_line(place, segment),
        has_first_line,
        lambda place, segment: has_name(place, segment) and files[place].order[0] != 2,
        is_successor,
        lambda place, segment: has_name(place, segment) and first_leaves[place] is not None,
    )
    for test in tests:
        for place in range(len(files)):
            if matched[place] is None:
                found = [segment for segment in left.values() if test(place, segment)]
                if found:
                    matched[place] = left.pop(found[-1].number)

    return matched


def _plain_name(name: str) -> str:
    return re.sub(r"\.(gz|zst)$", "", name)


def first_leaf(file: SegmentFile) -> bytes | None:
    """Return the leaf of the first line of *file*; None if it has none."""
    for block in SegmentReader(file).blocks():
        return leaf_hash(block[: block.find(b"\n")])
    return None


@dataclass
class Report:
    """The result of a verification.

    Attributes:
        trail: The path of the trail.
        findings: The faults that were found, and segments that retention has deleted.
        counts: The number of findings of each code, those that were not kept included.
        origin: The origin in the checkpoint; None if it could not be verified.
        size: The number of sealed lines.
        unsealed: The number of lines that are not sealed yet.
        pruned: The number of sealed lines that retention has deleted.
        unarchived: The number of sealed lines that are not in the archive yet, if the trail is one.
        anchored: The number of lines that an outside note or a quorum of witnesses covers; None if none was asked for.
        open_writers: The number of writers that have not recorded their end.
        signed_by: The trusted keys that have signed the checkpoint.
        sealed_until: The time in the newest sealed line, if it has one.
    """

    trail: str
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    origin: str | None = None
    size: int = 0
    root: str | None = None
    unsealed: int = 0
    pruned: int = 0
    unarchived: int = 0
    anchored: int | None = None
    open_writers: int = 0
    signed_by: list[str] = field(default_factory=list)
    sealed_until: str | None = None

    @property
    def exit_code(self) -> int:
        """The exit code: that of the worst finding."""
        return worst_exit_code(EXIT_CODES[code] for code in self.counts)

    @property
    def verdict(self) -> str:
        """The verdict in one word."""
        return ("INTACT", "CHANGED", "NOT VERIFIED", "NOT COVERED")[self.exit_code]

    def to_json(self) -> str:
        """Return the report as a JSON document."""
        findings = []
        for finding in self.findings:
            members = {"code": finding.code, "message": finding.message, "segment": finding.segment}
            findings.append({**members, "line": finding.line, "leaf": finding.leaf})
        document = {"verdict": self.verdict, "exit_code": self.exit_code, **asdict(self), "findings": findings}
        return json.dumps(document, indent=1)

    def lines_of_findings(self) -> list[str]:
        """Return a line of text for each finding, and the numbers of those that were not kept."""
        lines = [f"{finding.code}  {finding.message}" for finding in self.findings]
        kept = Counter(finding.code for finding in self.findings)
        lines += [f"{code}  {count - kept[code]} more" for code, count in self.counts.items() if count > kept[code]]
        return lines

    def to_text(self) -> str:
        """Return the report as lines of text."""
        lines = self.lines_of_findings()
        if self.origin is not None:
            lines.append(f"origin: {self.origin}")
            lines.append(
                f"sealed lines: {self.size}; not sealed yet: {self.unsealed}; deleted by retention: {self.pruned}"
            )
        if self.unarchived:
            lines.append(f"sealed lines that are not archived yet: {self.unarchived}")

        if self.open_writers:
            lines.append(f"writers that have not recorded their end: {self.open_writers}")
        if self.anchored is not None:
            lines.append(f"lines covered by checkpoints outside of the host: {self.anchored}")
        lines.append(f"{self.verdict}  {self.trail}")
        return "".join(f"{_printable(line)}\n" for line in lines)


def worst_exit_code(codes: Iterable[int]) -> int:
    """Return the exit code of several: 1 takes precedence over 2, and 2 over 3."""
    found = set(codes)
    return next((code for code in (1, 2, 3) if code in found), 0)


def _printable(text: str) -> str:
    """Return *text* without characters that deceive a terminal."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def verify(
    trail: str | TrailFolder,
    policy: Policy,
    *,
    anchors: Sequence[str] = (),
    state: str | None = None,
    max_age: float | None = MAX_AGE_SECONDS,
    jobs: int = 1,
    now: dt.datetime | None = None,
    progress: Progress | None = None,
) -> Report:
    """Verify the *trail* against the seal beside it.

    Args:
        trail: The path of the active segment; the seal is the folder ``TRAIL.seal``. Or where both are.
        policy: The keys that are trusted.
        anchors: Files from outside of the host that have checkpoints of the trail in any form.
        state: A file in which this function keeps the newest checkpoint that it has verified, and which may only grow.
        max_age: The age in seconds from which on lines that are not covered are findings; None for never.
        jobs: The number of processes.
        now: The current time.
        progress: Called with the number of bytes of segments that were read so far, compressed or not.

    Returns:
        The report. Nothing that is wrong with trail, seal or anchors raises an exception.
    """
    source = TrailFolder(trail) if isinstance(trail, str) else trail
    report = Report(source.trail)
    try:
        now = now or dt.datetime.now(dt.UTC)
        verification = _Verification(source, policy, report, max_age, now, progress or _ignore_progress)
        verification.run(anchors, state, jobs)
    except SealError as error:
        report.findings.append(Finding(error.code, str(error)))
        report.counts[error.code] = report.counts.get(error.code, 0) + 1

    return report


class TrailFolder:
    """The files of a trail, and the seal folder beside them: what a verification reads. An archive has them elsewhere.

    Args:
        trail: The path of the active segment.

    Attributes:
        trail: The path as it was given.
        path: The path of the active segment.
        seal: The seal folder.
        unarchived: Ranges of leaves that are not here yet.
    """

    def __init__(self, trail: str) -> None:
        self.trail = trail
        self.path = os.path.abspath(trail)
        self.seal = f"{self.path}.seal"
        self.unarchived: Sequence[Run] = ()

    def files(self) -> list[SegmentFile]:
        """Return the files, oldest first.

        Raises:
            SealError: There are none, or they cannot be read.
        """
        return find_files(self.path)

    def present(
        self, files: Sequence[SegmentFile], segments: list[SealedSegment], hashes: HashFiles, size: int
    ) -> list[SealedSegment]:
        """Return *segments*, of a tree of *size* leaves, without the lines that nobody expects in *files*."""
        return segments

    def reason(self, number: int | None, run: Run, pruned: Sequence[tuple[int, int]]) -> str | None:
        """Return who deleted the lines of *run*; None if that is not recorded.

        Args:
            number: The number of their segment, if it is known.
            run: The lines.
            pruned: The ranges of leaves that ``retention`` events name.
        """
        stop = run.first + run.lines
        return "retention" if any(first <= run.first and stop <= last for first, last in pruned) else None


class _Verification:
    """One verification, which fills its *report*."""

    def __init__(
        self,
        source: TrailFolder,
        policy: Policy,
        report: Report,
        max_age: float | None,
        now: dt.datetime,
        progress: Progress,
    ) -> None:
        self._source = source
        self._trail = source.path
        self._seal = source.seal
        self._hashes = HashFiles(self._seal)
        self._policy = policy
        self._report = report
        self._max_age = max_age
        self._now = now
        self._progress = progress
        self._findings = Findings()
        self._key_use = KeyUse(policy.logs)
        # The lines that retention has deleted.
        self._pruned: list[Run] = []

    def run(self, anchors: Sequence[str], state: str | None, jobs: int) -> None:
        try:
            for _ in range(5):
                # Retention or a compression may take files away meanwhile: begin again with a new checkpoint.
                with suppress(VanishedError):
                    self._run(anchors, state, jobs)
                    return

            raise SealError("UNREADABLE", "segments vanish while they are read")
        finally:
            self._hashes.close()

    def _run(self, anchors: Sequence[str], state: str | None, jobs: int) -> None:
        self._findings = Findings()

        # The checkpoint comes first: everything that it covers is on the disk already.
        self._note = read_checkpoint(self._seal)
        self._checkpoint, is_witnessed = self._policy.check(self._note)
        report = self._report
        report.origin = self._checkpoint.origin
        report.size = self._checkpoint.size
        report.signed_by = [str(key) for key in self._note.signers(self._policy.logs)]
        report.root = base64.b64encode(self._checkpoint.root).decode()

        files = self._source.files()
        segments = read_segments(self._seal, self._checkpoint.size)
        is_rebuilt = segments is None
        self._attempt(files, segments, jobs)
        if not is_rebuilt and self._count_line_findings():
            # Perhaps only the hint is wrong.
            damaged, self._findings = self._findings, Findings()
            counted = dict(vars(report))
            self._attempt(files, None, jobs)
            if self._count_line_findings():
                self._findings = damaged
                vars(report).update(counted)

        self._check_anchors(anchors, state, is_witnessed)
        self._check_keys()
        report.findings = self._findings.kept
        report.counts = dict(self._findings.counts)
        if state is not None and report.exit_code in (0, 3):
            self._write_state(state)

    def _count_line_findings(self) -> int:
        counts = self._findings.counts
        return sum(counts[code] for code in (*LINE_CODES, "MISSING_SEGMENT", "FOREIGN_SEGMENT"))

    def _attempt(self, files: list[SegmentFile], segments: list[SealedSegment] | None, jobs: int) -> None:
        if segments is None:
            segments = rebuild_segments(files, self._hashes, self._checkpoint.size)
        segments = self._source.present(files, segments, self._hashes, self._checkpoint.size)
        matched = match_segments(files, segments, self._hashes)
        self._job = Job(self._trail, self._seal, tuple(files), tuple(matched), self._checkpoint, self._policy)

        bad_tiles, line_results, writers = self._check(jobs)
        for result in line_results:
            self._findings.merge(result.findings)
        self._join_moved()
        self._check_places(files, matched)

        pruned = self._trusted_pruned(writers)
        self._check_tree(bad_tiles, pruned)
        self._check_missing_segments(segments, matched, pruned)
        self._add_writers(writers)
        self._add_unsealed(line_results)
        self._add_stale(writers)
        self._add_times(writers.times)
        self._key_use = writers.key_use
        until = writers.sealed_until
        self._report.sealed_until = None if until is None else until.isoformat()

    def _check(self, jobs: int) -> tuple[list[tuple[int, int]], list[LineResult], WriterResult]:
        """Return the bad tiles, each with its level, and the results of all checks, made in *jobs* processes."""
        tiles = []
        level = 0
        while (count := self._checkpoint.size >> 8 * (level + 1)) > 0:
            begins = range(0, count, _TILES_PER_TASK)
            tiles += [(level, begin, min(count, begin + _TILES_PER_TASK)) for begin in begins]
            level += 1

        if jobs == 1:
            bad = [(task[0], tile) for task in tiles for tile in check_tiles(self._seal, *task)]
            return bad, *check_all(self._job, self._progress)

        try:
            return self._check_in_processes(jobs, tiles)
        except BrokenProcessPool as error:
            raise SealError("UNREADABLE", "a process of the verification was ended: try fewer of them") from error

    def _check_in_processes(
        self, jobs: int, tiles: Sequence[tuple[int, int, int]]
    ) -> tuple[list[tuple[int, int]], list[LineResult], WriterResult]:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            # The check of the writers takes longest, so it comes first.
            writers = pool.submit(check_writers, self._job)
            places = range(len(self._job.files))
            lines = [pool.submit(check_lines, self._job, place) for place in places]
            trees = [pool.submit(check_tiles, self._seal, *task) for task in tiles]

            results = []
            for future in lines:
                results.append(future.result())
                self._progress(sum(result.size for result in results))

            bad = []
            for task, tree in zip(tiles, trees, strict=True):
                bad += [(task[0], tile) for tile in tree.result()]
            return bad, results, writers.result()

    def _join_moved(self) -> None:
        """Join a missing and an inserted line that are the same to one that was moved."""
        missing = {finding.digest: finding for finding in self._findings.kept if finding.code == "MISSING"}
        for finding in self._findings.kept:
            origin = missing.pop(finding.digest, None) if finding.code == "INSERTED" and finding.digest else None
            if origin is not None:
                self._findings.counts["MOVED"] += 1
                self._findings.counts["INSERTED"] -= 1
                finding.code = "MOVED"
                finding.leaf = origin.leaf
                finding.message = (
                    f"line {finding.line} of {finding.segment} was sealed as line {origin.line} of {origin.segment}"
                )
                self._findings.remove(lambda other, origin=origin: other is origin)  # type: ignore[misc]

        self._findings.counts = +self._findings.counts

    def _check_places(self, files: Sequence[SegmentFile], matched: Sequence[SealedSegment | None]) -> None:
        """Check that the files have the order of their segments, with no other file between them."""
        places = [place for place, segment in enumerate(matched) if segment is not None]
        last_sealed = places[-1] if places else -1
        newest = -1
        for place, segment in enumerate(matched):
            name = files[place].name
            if segment is None:
                if place < last_sealed and first_leaf(files[place]) is not None:
                    message = f"{name} lies between sealed segments, and none of its lines is sealed"
                    self._findings.add("FOREIGN_SEGMENT", message, segment=name, place=(place, 1))
            elif segment.first <= newest:
                message = (
                    f"{name} has the lines that were sealed as {segment.name}, before those of the file in front of it"
                )
                self._findings.add("MOVED", message, segment=name, line=1, leaf=segment.first, place=(place, 1))
            else:
                newest = segment.first

    def _trusted_pruned(self, writers: WriterResult) -> list[tuple[int, int]]:
        """Return the ranges of leaves that ``retention`` events name, merged.

        A damaged event does not count. One that is not sealed yet counts as long as it is no finding that it is not.
        """
        damaged = {finding.place for finding in self._findings.kept if finding.code in LINE_CODES}
        ranges = []
        for event in writers.pruned:
            is_recent = self._max_age is not None and not self._is_old(event.time)
            if event.place not in damaged and (event.is_sealed or is_recent):
                ranges.append((event.begin, event.end))
        ranges.sort()

        merged: list[tuple[int, int]] = []
        for begin, end in ranges:
            if merged and begin <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((begin, end))

        return merged

    def _check_missing_segments(
        self,
        segments: Sequence[SealedSegment],
        matched: Sequence[SealedSegment | None],
        pruned: Sequence[tuple[int, int]],
    ) -> None:
        present = {segment.number for segment in matched if segment is not None}
        gone: list[tuple[int | None, str, Run]] = []
        for segment in segments:
            if segment.number not in present:
                gone += [(segment.number, segment.name, run) for run in segment.runs]

        # Without hints, no run covers a segment that is gone.
        end = 0
        runs = [run for segment in segments for run in segment.runs]
        runs += self._source.unarchived
        runs.append(Run(self._checkpoint.size, 0))
        for run in sorted(runs, key=lambda run: run[:2]):
            if run.first > end:
                gone.append((None, "a segment", Run(end, run.first - end)))
            end = max(end, run.first + run.lines)

        self._pruned.clear()
        self._report.pruned = 0
        self._report.unarchived = sum(run.lines for run in self._source.unarchived)
        for number, name, run in gone:
            stop = run.first + run.lines
            what = f"{name} with the lines that were sealed as leaves {run.first} to {stop - 1}"
            reason = self._source.reason(number, run, pruned)

            if reason is not None:
                self._pruned.append(run)
                self._report.pruned += run.lines
                self._findings.add("PRUNED", f"{what} was deleted by {reason}", segment=name, leaf=run.first)
            else:
                message = f"{what} is missing, and no retention event names these leaves"
                self._findings.add("MISSING_SEGMENT", message, segment=name, leaf=run.first)

    # The tree: are the stored hashes those that were signed?

    def _check_tree(self, bad_tiles: list[tuple[int, int]], pruned: Sequence[tuple[int, int]]) -> None:
        """Compare the stored hashes with the signed root. Where they differ, make them from the lines."""
        bad = {tile for level, tile in bad_tiles if level == 0}
        bad -= {tile for tile in bad if self._is_gone(tile * TILE, (tile + 1) * TILE, pruned)}
        is_upper_bad = any(level for level, _ in bad_tiles)
        has_root = self._root(self._hashes.read) == self._checkpoint.root
        if has_root and not bad and not is_upper_bad:
            return

        if self._root_of_leaves(self._stored_leaves()) == self._checkpoint.root:
            self._add_lost("the stored hashes above the leaves do not give the signed root, the leaves do")
        elif has_root and not is_upper_bad:
            self._judge_tiles(bad)
        else:
            self._judge_all()

    def _is_gone(self, begin: int, end: int, pruned: Sequence[tuple[int, int]]) -> bool:
        """Return whether retention has deleted all lines of these leaves."""
        if not any(first <= begin and end <= stop for first, stop in pruned):
            return False
        runs = [run for segment in self._job.segments if segment is not None for run in segment.runs]
        return not any(run.first < end and begin < run.first + run.lines for run in runs)

    def _root(self, read: ReadHashes) -> bytes | None:
        with suppress(SealError):
            return range_root(read, 0, self._checkpoint.size)
        return None

    def _root_of_leaves(self, leaves: Iterator[bytes]) -> bytes | None:
        frontier = Frontier()
        with suppress(SealError):
            for leaf in leaves:
                frontier.append(leaf)
            return frontier.root()

        return None

    def _stored_leaves(self, begin: int = 0, end: int | None = None) -> Iterator[bytes]:
        end = self._checkpoint.size if end is None else end
        while begin < end:
            count = min(end - begin, 8_192)
            yield from _split_hashes(self._hashes.read(0, begin, count))
            begin += count

    def _leaves_of_lines(self) -> Iterator[bytes]:
        """Yield all leaves in order, made from the lines; stored ones where a segment is gone."""
        runs = []
        for file, segment in zip(self._job.files, self._job.segments, strict=True):
            position = 0
            for run in segment.runs if segment else ():
                runs.append((run, position, file))
                position += run.lines

        end = 0
        for run, position, file in sorted(runs, key=lambda item: item[0]):
            yield from self._stored_leaves(end, run.first)
            yield from _leaves_in(file, position, run.lines)
            end = run.first + run.lines

        yield from self._stored_leaves(end)

    def _judge_all(self) -> None:
        self._remove_line_findings()
        if self._root_of_leaves(self._leaves_of_lines()) == self._checkpoint.root:
            self._add_lost("the stored hashes do not give the signed root, the lines do")
        else:
            message = (
                "neither the stored hashes nor the lines give the signed root: lines and stored hashes were changed"
            )
            self._findings.add("BAD_SEAL", message)

    def _judge_tiles(self, bad: set[int]) -> None:
        """Judge the tiles of leaves that do not give their stored root, which is authentic."""
        self._remove_line_findings(bad)

        roots = self._tile_roots_of_lines(bad)
        lost = [tile for tile in sorted(bad) if roots.get(tile) == self._hashes.read(1, tile, 1)]

        if lost:
            self._add_lost(f"stored hashes of {len(lost) * TILE} lines are damaged, the lines are right")

        for tile in sorted(bad - set(lost)):
            segment, first = self._line_of(tile * TILE)
            last_segment, last = self._line_of(tile * TILE + TILE - 1)
            where = f"between line {first} of {segment} and line {last} of {last_segment}"
            message = f"{where}, a line and its stored hash were changed"
            self._findings.add("BAD_SEAL", message, segment=segment, line=first, leaf=tile * TILE)

    def _tile_roots_of_lines(self, wanted: set[int]) -> dict[int, bytes]:
        roots = {}
        tile: list[bytes] = []
        for number, leaf in enumerate(self._leaves_of_lines()):
            if number // TILE in wanted:
                tile.append(leaf)
                if len(tile) == TILE:
                    roots[number // TILE] = perfect_root(b"".join(tile))
                    tile = []

        return roots

    def _remove_line_findings(self, tiles: set[int] | None = None) -> None:
        """Remove the findings by hashes that are not authentic: those in *tiles*, or all."""

        def is_unwanted(finding: Finding) -> bool:
            if tiles is None:
                return finding.code == "CHANGED" or bool(finding.digest)
            is_within = finding.leaf is not None and finding.leaf // TILE in tiles
            return is_within and finding.code in ("CHANGED", "MISSING", "MOVED")

        self._findings.remove(is_unwanted)

    def _add_lost(self, message: str) -> None:
        fix = (
            "move the files hashes.* out of the seal folder, and 'structlog-audit seal' makes them again from the lines"
        )
        self._findings.add("HASHES_LOST", f"{message}: {fix}")

    def _line_of(self, leaf: int) -> tuple[str, int]:
        """Return the segment and the number of the line that was sealed as *leaf*."""
        for segment in self._job.segments:
            position = 0
            for run in segment.runs if segment else ():
                if run.first <= leaf < run.first + run.lines:
                    return segment.name if segment else "", position + leaf - run.first + 1
                position += run.lines

        return "a missing segment", leaf

    # The contents of the lines, and the hashes that cover them.

    def _add_writers(self, writers: WriterResult) -> None:
        self._report.open_writers = writers.open_writers
        damage = [(finding.place, finding.code) for finding in self._findings.kept if finding.place]
        damaged = [place for place, code in damage if code in LINE_CODES]
        changed = [place for place, code in damage if code == "CHANGED"]
        inserted = [place for place, code in damage if code == "INSERTED"]
        # Without authentic hashes, earlier roots are not known.
        has_hashes = not (self._findings.counts["BAD_SEAL"] or self._findings.counts["HASHES_LOST"])

        def is_explained(finding: Finding) -> bool:
            since, place = finding.since, finding.place
            if finding.code == "FORKED" or since is None or place is None:
                return finding.code == "FORKED" and not has_hashes
            if finding.after is not None and self._has_pruned(finding.after, place[0]):
                return True
            if finding.code == "CHAIN":
                # A link does not fit if a line before it was changed later: that line is named already.
                return any(since <= other <= place for other in damaged)

            # The number of a changed line is not known, and inserted lines push others out of those that are judged.
            is_changed = any(since <= other <= place for other in changed)
            return is_changed or any(since[0] <= other[0] < place[0] for other in inserted)

        writers.findings.remove(is_explained)
        self._findings.merge(writers.findings)

        if not (self._report.pruned or writers.has_retention or changed):
            self._add_missing_beginnings(writers)

    def _add_missing_beginnings(self, writers: WriterResult) -> None:
        """Add a finding for each writer whose first lines are not there."""
        for place, segment, count in writers.beginnings:
            what = "the first line" if count == 1 else f"the first {count} lines"
            line = place[1]
            message = f"line {line} of {segment}: missing before it: {what} of its writer"
            self._findings.add("GAP", message, segment=segment, line=line, place=place)

    def _has_pruned(self, after: int, before: int) -> bool:
        """Return whether retention has deleted lines between the files with these numbers, of which the first was restored."""
        last, first = self._job.segments[after], self._job.segments[before]
        if last is None or first is None:
            return False
        begin = max(run.first + run.lines for run in last.runs)
        return any(begin <= run.first < first.first for run in self._pruned)

    def _is_old(self, time: dt.datetime | None) -> bool:
        if self._max_age is None:
            return False
        # A time in the future is not a recent one.
        return time is None or abs((self._now - time).total_seconds()) > self._max_age

    def _add_unsealed(self, results: Sequence[LineResult]) -> None:
        self._report.unsealed = sum(result.unsealed for result in results)
        for file, result in zip(self._job.files, results, strict=True):
            name = file.name

            if result.first_unsealed is not None:
                line, time = result.first_unsealed
                since = time or file.changed_at()
                if self._is_old(since):
                    message = f"{name} is not sealed from line {line} on; lines: {result.unsealed}"
                    self._findings.add("UNSEALED", message, segment=name, line=line)

            if result.unfinished and self._is_old(file.changed_at()):
                self._findings.add("TORN", f"{name} ends in a line without an end", segment=name)

    def _add_stale(self, writers: WriterResult) -> None:
        # Newer checkpoints are among the lines that are not here yet.
        is_current = not self._report.unarchived
        if is_current and writers.newest is not None and writers.open_writers and self._is_old(writers.newest):
            time = f"{writers.newest:%Y-%m-%dT%H:%M:%SZ}"
            self._findings.add("STALE", f"the newest checkpoint in the trail is of {time}, and a writer is open")

    def _add_times(self, times: Sequence[tuple[int, dt.datetime]]) -> None:
        """Add to each damaged line when it was sealed at the latest."""
        for finding in self._findings.kept:
            if finding.code in LINE_CODES and finding.leaf is not None:
                covering = [time for size, time in times if size > finding.leaf]
                if covering:
                    finding.message += f" (sealed at {min(covering):%Y-%m-%dT%H:%M:%SZ} at the latest)"

    def _check_anchors(self, anchors: Sequence[str], state: str | None, is_witnessed: bool) -> None:
        """Compare the tree with the notes outside of the host."""
        has_quorum = self._policy.quorum != "none"
        if not anchors and state is None and not has_quorum:
            return

        sources: list[tuple[str, Iterable[str]]] = [(path, notes_in(path, self._checkpoint.origin)) for path in anchors]
        if state is not None and is_there(state):
            sources.append((state, self._notes_of_state(state)))
        anchored = 0
        if has_quorum:
            anchored = self._checkpoint.size if is_witnessed else self._cosigned_size()
        noted = 0
        for path, notes in sources:
            size, count = self._newest_note(path, notes)
            anchored = max(anchored, size)
            noted += count if path in anchors else 0

        self._report.anchored = anchored
        if has_quorum and not anchored:
            self._findings.add("UNANCHORED", "no checkpoint is cosigned by a quorum of witnesses")
        elif anchors and not noted:
            message = (
                f"the anchors have no checkpoint of {self._checkpoint.origin} by a given key: expected at least one"
            )
            self._findings.add("UNANCHORED", f"{message}; perhaps they are of another trail")
        elif (anchors or has_quorum) and anchored < self._checkpoint.size and self._is_old_line(anchored):
            left = self._checkpoint.size - anchored
            self._findings.add("UNANCHORED", f"sealed lines without a checkpoint outside of the host: {left}")

    def _cosigned_size(self) -> int:
        """Return the size of the newest checkpoint that a quorum cosigned; 0 if there is none.

        The cosignatures of witnesses come later than the checkpoint, and are in a file of their own until the next one.
        """
        path = os.path.join(self._seal, "cosigned")
        if not os.path.exists(path):
            return 0

        def is_witnessed(text: str) -> bool:
            with suppress(SealError):
                return self._policy.check(Note.parse(text.encode()))[1]
            return False

        return self._newest_note(path, filter(is_witnessed, notes_in(path, self._checkpoint.origin)))[0]

    def _notes_of_state(self, state: str) -> list[str]:
        is_small = os.path.getsize(state) <= MAX_NOTE_BYTES
        notes = list(notes_in(state, self._checkpoint.origin)) if is_small else []
        if not any(map(self._names_key, notes)):
            message = f"{state!r} has no checkpoint of {self._checkpoint.origin} by a given key"
            expected = "expected one of an earlier verification with one of the keys, or a file that does not exist yet"
            raise SealError("UNREADABLE", f"{message}: {expected}")

        return notes

    def _names_key(self, text: str) -> bool:
        """Return whether *text* is a checkpoint with a signature that states one of the trusted keys."""
        trusted = {(key.name, key.key_id) for key in self._policy.logs}
        with suppress(SealError, UnicodeEncodeError):
            note = Note.parse(text.encode())
            Checkpoint.parse(note.text)
            return any(signature[:2] in trusted for signature in note.signatures)
        return False

    def _newest_note(self, path: str, notes: Iterable[str]) -> tuple[int, int]:
        """Check all *notes* in the file at *path* that state a trusted key.

        Returns:
            The size of the newest that is right and signed, and their number.
        """
        check = NoteCheck(self._policy, self._checkpoint, self._hashes, lambda: self._checkpoint.size, self._key_use)
        newest_size, newest_text = 0, ""
        for text in filter(self._names_key, notes):
            size = check.check(text, f"a checkpoint in {path}")
            if size is not None and size >= newest_size:
                newest_size, newest_text = size, text

        if self._findings.counts["BAD_SEAL"] or self._findings.counts["HASHES_LOST"]:
            # Without authentic hashes, earlier roots are not known.
            check.findings.remove(lambda finding: finding.code == "FORKED")
        self._findings.merge(check.findings)

        if not newest_text:
            return 0, check.count
        try:
            is_signed = bool(Note.parse(newest_text.encode()).signers(self._policy.logs))
        except SealError as error:
            self._findings.add("BAD_SIGNATURE", f"a checkpoint in {path}: {error}")
            is_signed = False
        return newest_size if is_signed else 0, check.count

    def _is_old_line(self, leaf: int) -> bool:
        """Return whether the line that was sealed as *leaf* is old. One that is not archived yet is newer than all others."""
        is_here = not any(run.first <= leaf < run.first + run.lines for run in self._source.unarchived)
        return is_here and self._is_old(self._time_of(leaf))

    def _check_keys(self) -> None:
        """Check that each trusted key signed only where it counts, as the trail states."""
        self._key_use.add(self._note, self._checkpoint, "the checkpoint of the seal", {})

        # A sealer that cannot write to the trail keeps its statements in the seal folder.
        path = os.path.join(self._seal, KEY_CHANGES)
        with suppress(VanishedError):
            self._newest_note(path, _notes_of(SegmentFile(path, (0, 0)), self._checkpoint.origin))

        for finding in self._key_use.findings():
            self._findings.add(**finding)

    def _time_of(self, leaf: int) -> dt.datetime | None:
        """Return the timestamp of the line that was sealed as *leaf*."""
        for file, segment in zip(self._job.files, self._job.segments, strict=True):
            position = 0
            for run in segment.runs if segment else ():
                if run.first <= leaf < run.first + run.lines:
                    return _time_in(file, position + leaf - run.first)
                position += run.lines

        return None

    def _write_state(self, state: str) -> None:
        """Replace the file *state* by the verified checkpoint."""
        temporary = f"{state}.{os.getpid()}.tmp"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(str(self._note))
                file.flush()
                os.fsync(file.fileno())

            os.replace(temporary, state)
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary)
            raise SealError("UNREADABLE", f"{state!r} cannot be written: {error.strerror}") from error


def _split_hashes(hashes: bytes) -> Iterator[bytes]:
    for at in range(0, len(hashes), HASH_BYTES):
        yield hashes[at : at + HASH_BYTES]


def _leaves_in(file: SegmentFile, position: int, count: int) -> Iterator[bytes]:
    """Yield the leaves of *count* lines of *file* from *position* on."""
    for block in SegmentReader(file).blocks():
        lines = block.count(b"\n")
        if position < lines and count > 0:
            leaves = leaf_hashes(block)[position * HASH_BYTES : (position + count) * HASH_BYTES]
            count -= len(leaves) // HASH_BYTES
            yield from _split_hashes(leaves)

        position = max(0, position - lines)
        if count <= 0:
            return


def _time_in(file: SegmentFile, position: int) -> dt.datetime | None:
    for block in SegmentReader(file).blocks():
        lines = block.split(b"\n")
        if position < len(lines) - 1:
            return timestamp_in(lines[position])
        position -= len(lines) - 1

    return None


# --- Proofs by a key that took the place of another one -----------------------------------------------------------------


def follow_keys(policy: Policy, files: Sequence[str], origin: str) -> tuple[Policy, KeyUse]:
    """Return *policy* with the keys that took the place of its keys, and for which sizes each of them counts.

    A new key is trusted if it and a key that is trusted and has not ended have signed the statement that names it. That trusts
    it no more than the old key, whose owner could sign anything.

    Args:
        policy: The keys that are trusted.
        files: Files with statements about keys, in any form: ``key`` lines of the trail, or a copy of it.
        origin: The name of the trail.

    Raises:
        SealError: A file cannot be read, or has no statement of this trail, or one that is damaged.
    """
    use = KeyUse(policy.logs)
    statements = [statement for path in files for statement in _statements_in(path, origin)]
    for note, head in sorted(statements, key=lambda statement: statement[1].size):
        # One that states the end of a key must not be left out because it is damaged.
        note.signers(use.keys_at(0))
        for key in _new_keys(note, head, use.keys_at(head.size)):
            use.trust(key)
        use.add(note, head, "a statement", {})

    return policy._replace(logs=tuple(use.keys_at(0))), use


def _statements_in(path: str, origin: str) -> list[tuple[Note, Checkpoint]]:
    """Return the statements about keys of *origin* in the file at *path*, each once."""
    found: dict[str, tuple[Note, Checkpoint]] = {}
    for text in notes_in(path, origin):
        # Other checkpoints have no extension line.
        if text.split("\n", 4)[3] and len(found) < MOST_FINDINGS:
            note = Note.parse(text.encode())
            found[text] = note, Checkpoint.parse(note.text)

    if not found:
        raise SealError(
            "UNREADABLE", f"{path!r} has no statement about a key of {origin}: expected 'key' lines of its trail"
        )
    return list(found.values())


def _new_keys(note: Note, head: Checkpoint, trusted: Sequence[VerifierKey]) -> Iterator[VerifierKey]:
    """Yield the keys that begin with a statement which they and a trusted key have signed."""
    for line in head.extensions:
        if line.startswith(KEY_BEGINS):
            with suppress(SealError):
                key = VerifierKey.parse(line.removeprefix(KEY_BEGINS), ED25519)
                if key.name == head.origin and note.signers([key]) and note.signers(trusted):
                    yield key


# --- The command line --------------------------------------------------------------------------------------------------


def verify_proof(proof: str, line_file: str, policy: Policy, statements: Sequence[str] = ()) -> tuple[int, str]:
    """Verify the *proof* of the first line in *line_file*.

    Args:
        proof: The path of the proof.
        line_file: The path of a file that begins with the line.
        policy: The keys that are trusted.
        statements: Files with statements about keys, as for `follow_keys`.

    Returns:
        The exit code, and the result in words.
    """
    try:
        parsed = _read_proof(proof)
        with open(line_file, "rb") as file:
            line, _, rest = file.read(MAX_LINE_BYTES).partition(b"\n")

        head = Checkpoint.parse(parsed.note.text)
        policy, use = follow_keys(policy, statements, head.origin)
        is_right = parsed.verifies(line, policy)
    except SealError as error:
        return EXIT_CODES[error.code], f"{error.code}  {error}"
    except OSError as error:
        return 2, f"UNREADABLE  {error.filename!r} cannot be read: {error.strerror}"

    use.add(parsed.note, head, "the checkpoint of the proof", {})
    for finding in use.findings():
        return EXIT_CODES[finding["code"]], f"{finding['code']}  {finding['message']}"
    if is_right:
        what = "the first line" if rest else "the line"
        unchecked = "; what follows it in the file was not checked" if rest else ""
        return 0, f"INTACT  {what} is leaf {parsed.leaf_index} of {head.origin}{unchecked}"
    return 1, "CHANGED  the proof does not show that this line is in the trail"


def _read_proof(path: str) -> Proof:
    with open(path, "rb") as file:
        data = file.read(2 * MAX_NOTE_BYTES)
    try:
        return Proof.parse(data)
    except SealError as error:
        raise SealError(error.code, f"{path!r} is not a proof: {error}") from error


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="verify_trail.py",
        description="Verify an audit trail against its seal. Exit code: 0 intact, 1 changed, 2 not verified, 3 not covered.",
    )
    parser.add_argument("trail", help="the active segment of the trail; with --proof, a file with the line")
    parser.add_argument(
        "--key", action="append", required=True, help="a verifier key, or a file with a key or a policy"
    )
    parser.add_argument(
        "--anchor", action="append", default=[], help="a file with checkpoints from outside of the host"
    )
    parser.add_argument("--state", help="a file for the newest verified checkpoint, which may only grow")
    parser.add_argument("--max-age", default=str(MAX_AGE_SECONDS), help="seconds (120); 'none' for a trail at rest")
    parser.add_argument("--jobs", type=int, default=1, help="the number of processes (1)")
    parser.add_argument("--proof", help="a C2SP tlog-proof of one line")
    parser.add_argument(
        "--statement",
        action="append",
        default=[],
        help="with --proof: a file with 'key' lines of the trail, to accept a key that took the place of a given one",
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parsed = parser.parse_args(arguments)

    try:
        parsed.max_age = parse_max_age(parsed.max_age)
    except ValueError as error:
        parser.error(str(error))

    if parsed.statement and parsed.proof is None:
        parser.error("--statement: expected --proof as well: a trail has its own statements")
    if parsed.jobs < 1:
        parser.error(f"--jobs {parsed.jobs}: expected a number of at least 1")
    return parsed


def parse_max_age(text: str) -> float | None:
    """Return the seconds in *text*, the value of ``--max-age``; None for ``none``.

    Raises:
        ValueError: It is neither a number of at least 0 nor ``none``.
    """
    if text == "none":
        return None
    with suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return seconds
    raise ValueError(f"--max-age {text}: expected a number of seconds of at least 0, or none")


def load_policies(texts: Sequence[str]) -> Policy:
    """Return the policy of several keys, or of one policy file.

    Raises:
        SealError: One of them cannot be used, or there are two policies with witnesses.
    """
    policies = [Policy.load(text) for text in texts]
    with_quorum = [policy for policy in policies if policy.quorum != "none"]
    if len(with_quorum) > 1:
        raise SealError("UNKNOWN_KEY", "--key: expected at most one policy with a quorum")
    logs = tuple(key for policy in policies for key in policy.logs)
    return (with_quorum or policies)[0]._replace(logs=logs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code."""
    parsed = _arguments(arguments)
    try:
        policy = load_policies(parsed.key)
    except SealError as error:
        sys.stderr.write(f"{error.code}  {_printable(str(error))}\n")
        return 2

    if parsed.proof is not None:
        code, text = verify_proof(parsed.proof, parsed.trail, policy, parsed.statement)
        sys.stdout.write(f"{_printable(text)}\n")
        return code

    report = verify(
        parsed.trail,
        policy,
        anchors=parsed.anchor,
        state=parsed.state,
        max_age=parsed.max_age,
        jobs=parsed.jobs,
    )
    sys.stdout.write(report.to_text() if parsed.output == "text" else f"{report.to_json()}\n")
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
