"""Proofs that single lines are in a sealed trail.

**Guarantees.** A proof is made only for a line that is still as it was sealed, and only from stored hashes that give the root
of the checkpoint in it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from structlog_audit.exceptions import AuditReadError, AuditValueError
from structlog_audit.integrity.anchors import read_cosigned
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.merkle import inclusion_proof, leaf_hash, root_at, verify_inclusion
from structlog_audit.integrity.notes import Checkpoint, Note, Proof
from structlog_audit.integrity.standalone.verify_trail import (
    HashFiles,
    SealedSegment,
    SegmentFile,
    SegmentReader,
    find_files,
    match_segments,
    read_checkpoint,
    read_segments,
    rebuild_segments,
)


class ProvenLine(NamedTuple):
    """A line, without its LF, and the proof that it is in the trail."""

    line: bytes
    proof: Proof


def prove(trail: str, event_id: str) -> ProvenLine:
    """Return the line of the event *event_id* in *trail* with its proof.

    The proof is for the checkpoint in the seal folder, or for one before that witnesses have cosigned, if that covers the line.

    Args:
        trail: The path of the active segment.
        event_id: The id of the event.

    Raises:
        AuditValueError: There is no such event, it is not sealed yet, or its line was changed after it was sealed.
        AuditReadError: Trail or seal cannot be read.
    """
    trail = os.path.abspath(trail)
    with raising(AuditReadError), HashFiles(f"{trail}.seal") as hashes:
        note = read_checkpoint(f"{trail}.seal")
        checkpoint = Checkpoint.parse(note.text)
        files = find_files(trail)
        place, position, line = _find_line(files, event_id)

        segment = segments_of(trail, files, hashes, checkpoint.size)[place]
        index = None if segment is None or position >= segment.lines else segment.leaf_of(position)
        leaf = leaf_hash(line)
        if index is None or hashes.read(0, index, 1) != leaf:
            # The segments are a hint, which may be wrong.
            found = hashes.find(leaf, 0, checkpoint.size)
            index = index if found is None else found

        if index is None:
            raise AuditValueError(f"{event_id}: its line is not sealed yet: try again after the next checkpoint")
        return prove_leaf(event_id, line, index, f"{trail}.seal", hashes)


def prove_leaf(event_id: str, line: bytes, index: int, folder: str, hashes: HashFiles) -> ProvenLine:
    """Return *line* with the proof that it is the leaf *index*.

    Args:
        event_id: The id of its event, for messages.
        line: The line, without its LF.
        index: The leaf.
        folder: The seal folder.
        hashes: Its stored hashes.

    Raises:
        AuditValueError: The line was changed after it was sealed.
        AuditReadError: The seal cannot be read.
    """
    with raising(AuditReadError):
        newest = read_checkpoint(folder)
        size = Checkpoint.parse(newest.text).size
        note = _cosigned(index, size, folder, hashes) or newest
        checkpoint = Checkpoint.parse(note.text)

        proof = inclusion_proof(index, checkpoint.size, hashes.read)
        if not verify_inclusion(leaf_hash(line), index, checkpoint.size, proof, checkpoint.root):
            if hashes.read(0, index, 1) != leaf_hash(line):
                raise AuditValueError(f"{event_id}: its line was changed after it was sealed: verify the trail")
            raise AuditReadError("the stored hashes do not give the root of the checkpoint: verify the trail")
        return ProvenLine(line, Proof(index, tuple(proof), note))


def _cosigned(index: int, size: int, folder: str, hashes: HashFiles) -> Note | None:
    """Return the checkpoint of the leaf *index* that most witnesses have cosigned, the newest of several; None if none has."""
    found = None
    for note in read_cosigned(folder):
        head = Checkpoint.parse(note.text)
        is_covering = index < head.size <= size and root_at(head.size, hashes.read) == head.root
        if is_covering and (found is None or len(note.signatures) > len(found.signatures)):
            found = note
    return found


def segments_of(
    trail: str, files: list[SegmentFile], hashes: HashFiles, size: int, *, is_hinted: bool = True
) -> list[SealedSegment | None]:
    """Return the sealed segment in each of *files*, the files of *trail*, in a tree of *size* leaves.

    The hint of the seal, if it *is_hinted*, may be wrong: whoever finds that reads all lines instead.
    """
    segments = read_segments(f"{trail}.seal", size) if is_hinted else None
    if segments is None:
        segments = rebuild_segments(files, hashes, size)
    return match_segments(files, segments, hashes)


def _find_line(files: list[SegmentFile], event_id: str) -> tuple[int, int, bytes]:
    """Return the index of the file and of the line that begins with *event_id*, and the line."""
    start = f'{{"event_id":"{event_id}"'.encode("utf-8", "replace")
    for place, file in enumerate(files):
        position = 0
        for block in SegmentReader(file).blocks():
            at = 0 if block.startswith(start) else block.find(b"\n" + start) + 1
            if at or block.startswith(start):
                line = block[at : block.find(b"\n", at)]
                return place, position + block.count(b"\n", 0, at), line
            position += block.count(b"\n")
    raise AuditValueError(f"{event_id}: no line of the trail begins with this id")
