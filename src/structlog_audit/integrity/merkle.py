"""The hash tree over the lines of a trail: RFC 6962, with SHA-256.

A leaf is SHA-256(0x00 ‖ line), a node SHA-256(0x01 ‖ left ‖ right). *Stored hashes* are the roots of the full subtrees of
256**k leaves; file *k* of a seal folder has those of level *k*, back to back. C2SP's tile *n* of that level is its bytes from
8192·n on. Every root and every proof follows from them.

Hashing and verifying are in the stand-alone verifier, which must not import this package; they are offered here too.

**Performance.** `Tree` has O(log n) memory. A root or a proof reads at most 255 stored hashes per level and node.
"""

from __future__ import annotations

from collections.abc import Iterable

from structlog_audit.exceptions import AuditReadError, AuditValueError
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.standalone.verify_trail import (
    EMPTY_ROOT,
    HASH_BYTES,
    TILE,
    Frontier,
    HashFiles,
    ReadHashes,
    leaf_hash,
    leaf_hashes,
    node_hash,
    parents,
    range_root,
    verify_consistency,
    verify_inclusion,
)

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "TILE",
    "HashFiles",
    "ReadHashes",
    "Tree",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "leaf_hashes",
    "node_hash",
    "root_at",
    "verify_consistency",
    "verify_inclusion",
]


class Tree(Frontier):
    """A growing tree: its root, and the stored hashes that its growth completes.

    Attributes:
        size: The number of leaves.
    """

    def __init__(self, size: int = 0, nodes: Iterable[bytes] = ()) -> None:
        super().__init__(size, nodes)
        self._stored: dict[int, bytearray] = {}

    @classmethod
    def restore(cls, size: int, read: ReadHashes) -> Tree:
        """Return the tree of *size* leaves, made from stored hashes.

        Raises:
            AuditReadError: A stored hash is missing.
        """
        with raising(AuditReadError):
            frontier = Frontier.at(size, read)
        return cls(size, frontier.nodes)

    def extend(self, leaves: bytes) -> None:
        """Add *leaves*, which are back to back, a level of the tree at a time."""
        size, self.size = self.size, self.size + len(leaves) // HASH_BYTES
        nodes, height = leaves, 0
        rest = []
        while nodes:
            if not height & 7:
                self._complete(height >> 3, nodes)

            # The newest node of the tree at this height has no sibling yet.
            if size >> height & 1:
                nodes = self.nodes.pop() + nodes
            if len(nodes) & HASH_BYTES:
                rest.append(nodes[-HASH_BYTES:])
                nodes = nodes[:-HASH_BYTES]

            nodes = parents(nodes)
            height += 1
        self.nodes += reversed(rest)

    def take_stored(self) -> dict[int, bytes]:
        """Return the stored hashes of each level that were completed since the last call, back to back."""
        stored = {level: bytes(hashes) for level, hashes in self._stored.items()}
        self._stored.clear()
        return stored

    def _complete(self, level: int, node: bytes) -> None:
        self._stored.setdefault(level, bytearray()).extend(node)


def root_at(size: int, read: ReadHashes) -> bytes:
    """Return the root of the first *size* leaves, made from stored hashes.

    Raises:
        AuditReadError: A stored hash is missing.
    """
    with raising(AuditReadError):
        return range_root(read, 0, size)


def inclusion_proof(index: int, size: int, read: ReadHashes) -> list[bytes]:
    """Return the proof that a leaf is at *index* in the tree of *size* leaves (RFC 6962 §2.1.1).

    Args:
        index: The position of the leaf, from 0.
        size: The number of leaves.
        read: Reads stored hashes.

    Returns:
        The hashes from the leaf's sibling up to the root's child.

    Raises:
        AuditValueError: There is no such leaf.
        AuditReadError: A stored hash is missing.
    """
    if not 0 <= index < size:
        raise AuditValueError(f"index={index}: expected a leaf of the tree, 0 to {size - 1}")

    proof = []
    begin, end = 0, size
    with raising(AuditReadError):
        while end - begin > 1:
            middle = _split(begin, end)
            if index < middle:
                proof.append(range_root(read, middle, end))
                end = middle
            else:
                proof.append(range_root(read, begin, middle))
                begin = middle
    return proof[::-1]


def consistency_proof(first: int, second: int, read: ReadHashes) -> list[bytes]:
    """Return the proof that the tree of size *first* is the beginning of that of size *second* (RFC 6962 §2.1.2).

    Args:
        first: The number of leaves of the smaller tree, at least 1.
        second: The number of leaves of the larger tree.
        read: Reads stored hashes.

    Raises:
        AuditValueError: A size is out of range.
        AuditReadError: A stored hash is missing.
    """
    if not 0 < first <= second:
        raise AuditValueError(f"first={first}, second={second}: expected sizes with 0 < first <= second")

    proof = []
    begin, end = 0, second
    with raising(AuditReadError):
        while first != end:
            middle = _split(begin, end)
            if first <= middle:
                proof.append(range_root(read, middle, end))
                end = middle
            else:
                proof.append(range_root(read, begin, middle))
                begin = middle

        # The verifier knows the root of the smaller tree, if that is one of the nodes.
        if begin:
            proof.append(range_root(read, begin, end))
    return proof[::-1]


def _split(begin: int, end: int) -> int:
    """Return where the tree of these leaves splits: at the largest power of two below its size."""
    return begin + (1 << (end - begin - 1).bit_length() - 1)
