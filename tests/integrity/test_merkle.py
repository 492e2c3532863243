"""Tests of `structlog_audit.integrity.merkle`: the hash tree, its stored hashes and its proofs."""

import base64
import hashlib
import json
import random
from pathlib import Path

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit import AuditReadError, AuditValueError
from structlog_audit.integrity.merkle import (
    EMPTY_ROOT,
    HashFiles,
    Tree,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    leaf_hashes,
    node_hash,
    root_at,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())


def leaves_of(size):
    return [leaf_hash(b"%d" % number) for number in range(size)]


def naive_root(leaves):
    """Return the root by the recursive definition of RFC 6962 §2.1."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = largest_power_below(len(leaves))
    return node_hash(naive_root(leaves[:middle]), naive_root(leaves[middle:]))


def naive_path(index, leaves):
    """Return the audit path by the recursive definition of RFC 6962 §2.1.1."""
    if len(leaves) <= 1:
        return []
    middle = largest_power_below(len(leaves))
    if index < middle:
        return [*naive_path(index, leaves[:middle]), naive_root(leaves[middle:])]
    return [*naive_path(index - middle, leaves[middle:]), naive_root(leaves[:middle])]


def naive_consistency(first, leaves, is_whole=True):
    """Return the consistency proof by the recursive definition of RFC 6962 §2.1.2."""
    if first == len(leaves):
        return [] if is_whole else [naive_root(leaves)]
    middle = largest_power_below(len(leaves))
    if first <= middle:
        return [*naive_consistency(first, leaves[:middle], is_whole), naive_root(leaves[middle:])]
    return [*naive_consistency(first - middle, leaves[middle:], False), naive_root(leaves[:middle])]


def largest_power_below(size):
    power = 1
    while 2 * power < size:
        power *= 2
    return power


class Stored:
    """The stored hashes of a tree, in memory."""

    def __init__(self):
        self.levels = {}

    def add(self, tree):
        for level, hashes in tree.take_stored().items():
            self.levels[level] = self.levels.get(level, b"") + hashes

    def read(self, level, start, count):
        data = self.levels.get(level, b"")[32 * start : 32 * (start + count)]
        assert len(data) == 32 * count
        return data


def tree_of(size):
    tree, stored = Tree(), Stored()
    for leaf in leaves_of(size):
        tree.append(leaf)
    stored.add(tree)
    return tree, stored


LARGEST = 70_000
LEAVES = leaves_of(LARGEST)
_, LARGE = tree_of(LARGEST)

sizes = st.integers(0, 600) | st.sampled_from([255, 256, 257, 511, 512, 513, 1023, 1024, 1025])


@given(sizes)
def test_root_equals_the_recursive_definition(size):
    """For all sizes, the root of a growing tree is that of the definition in RFC 6962."""
    tree, _ = tree_of(size)
    assert tree.root() == naive_root(leaves_of(size))


def test_root_of_an_empty_tree_is_the_hash_of_nothing():
    """A tree without leaves has the SHA-256 of nothing as its root."""
    assert Tree().root() == EMPTY_ROOT == hashlib.sha256().digest()


@given(sizes)
def test_root_from_stored_hashes_equals_that_of_the_tree(size):
    """For all sizes, also earlier ones, the root follows from the stored hashes."""
    tree, stored = tree_of(size)
    assert root_at(size, stored.read) == tree.root()
    assert root_at(size // 2, stored.read) == naive_root(leaves_of(size // 2))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 65_793, LARGEST])
def test_root_above_two_levels_of_tiles_equals_that_of_the_tree(size):
    """The third level of stored hashes gives the root too."""
    assert root_at(size, LARGE.read) == naive_root(LEAVES[:size])


@given(sizes)
def test_stored_hashes_are_roots_of_full_subtrees_of_256_to_the_level(size):
    """Level k has one hash for each full subtree of 256**k leaves, back to back."""
    _, stored = tree_of(size)
    leaves = leaves_of(size)
    assert stored.levels.get(0, b"") == b"".join(leaves)
    full = [naive_root(leaves[at : at + 256]) for at in range(0, size - 255, 256)]
    assert stored.levels.get(1, b"") == b"".join(full)


def test_third_level_has_the_root_of_65536_leaves():
    """Level 2 has the root of the first 65,536 leaves, and nothing else yet."""
    assert LARGE.levels[2] == naive_root(LEAVES[:65_536])


@given(sizes, sizes)
def test_restored_tree_grows_like_the_original(size, more):
    """A tree that is made from stored hashes goes on like the tree that stored them."""
    tree, stored = tree_of(size)
    restored = Tree.restore(size, stored.read)
    leaves = [leaf_hash(b"more %d" % number) for number in range(more)]
    restored.extend(b"".join(leaves))
    tree.extend(b"".join(leaves))
    assert (restored.size, restored.root()) == (tree.size, tree.root())
    assert restored.take_stored() == tree.take_stored()


@given(st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"")), min_size=1))
def test_leaves_of_a_block_are_those_of_its_lines(lines):
    """For all lines, empty ones too, hashing a block equals hashing each line without its LF."""
    block = b"".join(line + b"\n" for line in lines)
    assert leaf_hashes(block) == b"".join(map(leaf_hash, lines))


@given(st.integers(1, 600), st.randoms(use_true_random=False))
def test_inclusion_proof_equals_the_definition_and_verifies(size, rng):
    """For all sizes and leaves, the proof is that of RFC 6962, and RFC 9162's algorithm accepts it."""
    _, stored = tree_of(size)
    leaves = leaves_of(size)
    index = rng.randrange(size)
    proof = inclusion_proof(index, size, stored.read)
    assert proof == naive_path(index, leaves)
    assert verify_inclusion(leaves[index], index, size, proof, naive_root(leaves))


@given(st.integers(1, 600), st.randoms(use_true_random=False))
def test_consistency_proof_equals_the_definition_and_verifies(second, rng):
    """For all pairs of sizes, the proof is that of RFC 6962, and RFC 9162's algorithm accepts it."""
    _, stored = tree_of(second)
    leaves = leaves_of(second)
    first = rng.randint(1, second)
    proof = consistency_proof(first, second, stored.read)
    assert proof == naive_consistency(first, leaves)
    assert verify_consistency(first, second, proof, naive_root(leaves[:first]), naive_root(leaves))


@given(st.integers(0, LARGEST - 1), st.integers(1, LARGEST))
@settings(max_examples=30)
def test_proofs_in_a_tree_of_three_levels_verify(index, first):
    """Proofs that need hashes of all levels verify."""
    root = LARGE_ROOT
    assert verify_inclusion(LEAVES[index], index, LARGEST, inclusion_proof(index, LARGEST, LARGE.read), root)
    proof = consistency_proof(first, LARGEST, LARGE.read)
    assert verify_consistency(first, LARGEST, proof, root_at(first, LARGE.read), root)


LARGE_ROOT = naive_root(LEAVES)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 64, 65, 255, 256, 257, 300])
def test_pymerkle_makes_the_same_roots_and_proofs(size):
    """An independent library has the same root, and the same hashes in its proofs."""
    other = pymerkle.InmemoryTree(algorithm="sha256")
    for number in range(size):
        other.append_entry(b"%d" % number)
    _, stored = tree_of(size)
    assert other.get_root() == root_at(size, stored.read)

    for index in {0, size // 2, size - 1}:
        path = [bytes.fromhex(text) for text in other.prove_inclusion(index + 1, size).serialize()["path"]]
        assert path[1:] == inclusion_proof(index, size, stored.read)


def wrong_inclusion_proofs(rng):
    """Yield arguments that differ from right ones in one way."""
    size = rng.randint(2, 600)
    index = rng.randrange(size)
    leaves = LEAVES[:size]
    root = naive_root(leaves)
    proof = inclusion_proof(index, size, TREES[size].read)
    other = rng.choice([number for number in range(size) if number != index])
    at = rng.randrange(len(proof))
    bit = 1 << rng.randrange(8)

    yield leaves[index], other, size, proof, root
    yield leaves[other], index, size, proof, root
    yield leaves[index], index, size, [*proof[:at], bytes([proof[at][0] ^ bit, *proof[at][1:]]), *proof[at + 1 :]], root
    yield leaves[index], index, size, [*proof, proof[at]], root
    yield leaves[index], index, size, proof[:-1], root
    yield leaves[index], index, size, proof, node_hash(root, root)
    if proof[::-1] != proof:
        yield leaves[index], index, size, proof[::-1], root
    yield leaves[index], size + index, size, proof, root


def wrong_consistency_proofs(rng):
    """Yield arguments that differ from right ones in one way."""
    second = rng.randint(3, 600)
    first = rng.randint(1, second - 1)
    read = TREES[second].read
    roots = root_at(first, read), root_at(second, read)
    proof = consistency_proof(first, second, read)
    at = rng.randrange(len(proof))

    yield first, second, [*proof, proof[at]], *roots
    yield first, second, proof[:-1], *roots
    yield first, second, [*proof[:at], node_hash(proof[at], proof[at]), *proof[at + 1 :]], *roots
    yield first, second, proof, roots[1], roots[0]
    yield first, second, proof, node_hash(*roots), roots[1]
    yield second, first, proof, roots[1], roots[0]
    yield 0, second, proof, EMPTY_ROOT, roots[1]
    yield first, second, [], *roots


class _Trees(dict):
    def __missing__(self, size):
        self[size] = tree_of(size)[1]
        return self[size]


TREES = _Trees()


def test_none_of_2400_wrong_proofs_is_accepted():
    """Another index, leaf, hash, root, order or length: no algorithm of RFC 9162 accepts one of 2,400 wrong proofs."""
    rng = random.Random(6962)
    checked = 0
    while checked < 2_400:
        for arguments in wrong_inclusion_proofs(rng):
            assert not verify_inclusion(*arguments)
            checked += 1
        for arguments in wrong_consistency_proofs(rng):
            assert not verify_consistency(*arguments)
            checked += 1


def test_tree_is_consistent_with_itself_by_an_empty_proof_only():
    """Equal sizes need equal roots and no hashes."""
    root = naive_root(LEAVES[:5])
    assert verify_consistency(5, 5, [], root, root)
    assert not verify_consistency(5, 5, [root], root, root)
    assert not verify_consistency(5, 5, [], root, EMPTY_ROOT)


def test_vectors_of_leaves_roots_and_proofs():
    """Lines, leaves, roots and proofs equal the published vectors."""
    leaves = [leaf_hash(line.encode()) for line in VECTORS["lines"]]
    assert [leaf.hex() for leaf in leaves] == VECTORS["leaves_hex"]

    tree, stored = Tree(), Stored()
    roots = []
    for leaf in leaves:
        tree.append(leaf)
        roots.append(base64.b64encode(tree.root()).decode())
    stored.add(tree)
    assert roots == VECTORS["roots_base64"]
    proof = consistency_proof(1, 3, stored.read)
    assert [base64.b64encode(digest).decode() for digest in proof] == VECTORS["consistency_1_to_3_base64"]


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 3), (3, 3)])
def test_inclusion_proof_of_a_leaf_that_does_not_exist_is_refused(index, size):
    """A leaf outside of the tree has no proof."""
    with pytest.raises(AuditValueError, match="expected a leaf of the tree"):
        inclusion_proof(index, size, LARGE.read)


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 3), (-1, 3)])
def test_consistency_proof_of_impossible_sizes_is_refused(first, second):
    """A consistency proof needs a smaller tree with a leaf."""
    with pytest.raises(AuditValueError, match="0 < first <= second"):
        consistency_proof(first, second, LARGE.read)


def test_missing_stored_hashes_raise_a_read_error(tmp_path):
    """Stored hashes that are missing, or a file that is too short, raise an error that names the file."""
    hashes = HashFiles(str(tmp_path))
    with pytest.raises(AuditReadError, match=r"hashes\.0 cannot be read"):
        root_at(3, hashes.read)
    (tmp_path / "hashes.0").write_bytes(b"".join(LEAVES[:2]))
    with pytest.raises(AuditReadError, match=r"hashes\.0 ends before the hash 3"):
        root_at(3, hashes.read)
    with pytest.raises(AuditReadError):
        Tree.restore(3, hashes.read)
    (tmp_path / "hashes.0").write_bytes(LEAVES[0] + bytes(32) + LEAVES[2])
    with pytest.raises(AuditReadError, match=r"hashes\.0 has a hole between"):
        root_at(3, hashes.read)
    hashes.close()


@given(st.lists(st.integers(0, 600), max_size=6))
def test_leaves_added_together_give_the_tree_of_leaves_added_one_by_one(counts):
    """Whatever the size of the tree and the number of leaves: the same root, nodes and stored hashes."""
    together, one_by_one = Tree(), Tree()
    for part, count in enumerate(counts):
        leaves = [leaf_hash(b"%d %d" % (part, number)) for number in range(count)]
        together.extend(b"".join(leaves))
        for leaf in leaves:
            one_by_one.append(leaf)
        assert (together.size, together.nodes) == (one_by_one.size, one_by_one.nodes)
    assert together.root() == one_by_one.root()
    assert together.take_stored() == one_by_one.take_stored()
