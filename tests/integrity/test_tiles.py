"""A sealed trail as a log of C2SP tiles: what a reader that has nothing but the files finds."""

from __future__ import annotations

import gzip
import os
import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seals import ORIGIN, Sealer, make_trail, rolled_path

from structlog_audit.exceptions import AuditReadError, AuditValueError
from structlog_audit.integrity.merkle import HASH_BYTES, TILE, Tree, leaf_hash
from structlog_audit.integrity.notes import parse_checkpoint, parse_note
from structlog_audit.integrity.tiles import MAX_ENTRY_BYTES, ExportedTiles, export_tiles, tile_path


def entries_in(data):
    """Return the entries of a bundle."""
    entries, at = [], 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        assert end <= len(data)
        entries.append(data[at + 2 : end])
        at = end
    return entries


class Log:
    """The files of a static log, read as C2SP tlog-tiles says."""

    def __init__(self, folder):
        self.folder = folder
        self.checkpoint = parse_checkpoint(parse_note((folder / "checkpoint").read_bytes()).text)

    def tiles(self, level):
        """Return by number the tiles of a level, or ``entries``, that exist; each has its full width."""
        count = self.checkpoint.size >> 8 * (level if level != "entries" else 0)
        found = {}
        for number in range(-(-count // TILE)):
            width = min(TILE, count - number * TILE)
            path = self.folder / tile_path(level, number, width)
            if path.exists():
                found[number] = path.read_bytes()
                assert level == "entries" or len(found[number]) == width * HASH_BYTES
        return found

    def lines(self):
        return [entry for data in self.tiles("entries").values() for entry in entries_in(data)]


def tree_of(lines):
    tree = Tree()
    for line in lines:
        tree.append(leaf_hash(line))
    return tree


def files_in(folder):
    """Return the content and the inode of each file below *folder*."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_ino) for path in paths}


def sealed(folder, *segments):
    """Seal segments that consist of *segments*, lists of lines; return the sealer."""
    folder.mkdir(exist_ok=True)
    trail = folder / "audit.jsonl"
    sealer = Sealer(trail)
    for number, lines in enumerate(segments):
        trail.write_bytes(b"".join(line + b"\n" for line in lines))
        sealer.seal()
        if number < len(segments) - 1:
            os.rename(trail, rolled_path(trail, number))
    return sealer


def numbered(first, end):
    return [b"line %d" % number for number in range(first, end)]


@given(counts=st.lists(st.integers(0, 700), min_size=1, max_size=4), is_packed=st.booleans())
def test_reader_of_tiles_finds_every_line_and_the_root(counts, is_packed, tmp_path_factory):
    """For all sizes, entries give the lines, leaves the hashes of the entries, each level that below it, and all the root."""
    folder = tmp_path_factory.mktemp("trail")
    ends = [sum(counts[: number + 1]) for number in range(len(counts))]
    segments = [numbered(end - count, end) for end, count in zip(ends, counts, strict=True)]
    sealer = sealed(folder, *segments)
    for path in folder.glob("audit.jsonl.2*") if is_packed else ():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()

    exported = export_tiles(sealer.trail, folder / "tiles")
    log = Log(folder / "tiles")
    assert log.lines() == numbered(0, ends[-1])
    tree = tree_of(log.lines())
    assert (log.checkpoint.size, log.checkpoint.root) == (tree.size, tree.root())
    tree.take_stored()
    stored = Tree()
    stored.extend(b"".join(map(leaf_hash, log.lines())))
    for level, hashes in stored.take_stored().items():
        assert b"".join(log.tiles(level).values()) == hashes
    assert exported == ExportedTiles(len(files_in(folder / "tiles")), ends[-1], 0)


def test_lines_that_came_late_are_at_their_leaves(tmp_path):
    """Entries have the order of the tree, not that of the files."""
    sealer = sealed(tmp_path / "a", numbered(0, 100), numbered(100, 200))
    rolled = rolled_path(sealer.trail, 0)
    rolled.write_bytes(rolled.read_bytes() + b"late\n")
    sealer.seal()
    with sealer.trail.open("ab") as file:
        file.write(b"last\n")
    sealer.seal()

    export_tiles(sealer.trail, tmp_path / "tiles")
    assert Log(tmp_path / "tiles").lines() == [*numbered(0, 200), b"late", b"last"]


def test_second_export_only_adds(tmp_path):
    """Files of the first export stay as they are, except for the checkpoint; the rest is that of a new export."""
    sealer = make_trail(tmp_path, segments=2, lines=300)
    folder = tmp_path / "tiles"
    export_tiles(sealer.trail, folder)
    before = files_in(folder)
    assert export_tiles(sealer.trail, folder).files == 0
    assert files_in(folder) == before

    with sealer.trail.open("ab") as file:
        file.write(b"".join(b"%d\n" % number for number in range(500)))
    sealer.seal()
    added = export_tiles(sealer.trail, folder)
    export_tiles(sealer.trail, tmp_path / "whole")
    after, whole = files_in(folder), files_in(tmp_path / "whole")
    assert {name: after[name] for name in before if name != "checkpoint"} == {
        name: found for name, found in before.items() if name != "checkpoint"
    }
    assert {name: after[name][0] for name in whole} == {name: found[0] for name, found in whole.items()}
    assert added.files == len(after) - len(before) + 1


def test_segments_in_the_folder_are_not_read_again(tmp_path):
    """A segment whose bundles exist need not exist itself: nothing is lost when retention deletes it later."""
    sealer = sealed(tmp_path / "a", numbered(0, 512), numbered(512, 600))
    folder = tmp_path / "tiles"
    export_tiles(sealer.trail, folder)
    rolled_path(sealer.trail, 0).unlink()
    with sealer.trail.open("ab") as file:
        file.write(b"more\n")
    sealer.seal()
    assert export_tiles(sealer.trail, folder).left_out == 0
    assert Log(folder).lines() == [*numbered(0, 600), b"more"]


@pytest.mark.parametrize("size", [256, 200], ids=["whole", "partial"])
@pytest.mark.parametrize("change", [lambda data: b"x" + data[1:], lambda data: data[:-1], lambda data: b""])
def test_tile_of_an_earlier_export_that_was_changed_is_named(tmp_path, size, change):
    """The trail is not blamed for it, and no entries are written beside it."""
    sealer = sealed(tmp_path / "a", numbered(0, size))
    folder = tmp_path / "tiles"
    export_tiles(sealer.trail, folder)
    shutil.rmtree(folder / "tile/entries")
    tile = folder / tile_path(0, 0, size)
    tile.write_bytes(change(tile.read_bytes()))
    with pytest.raises(AuditReadError, match=re.escape(f"{str(tile)!r} was changed after it was exported")):
        export_tiles(sealer.trail, folder)
    assert not list(folder.glob("tile/entries/*"))


def test_bundles_of_deleted_lines_are_left_out_and_counted(tmp_path):
    """All lines of such a bundle are counted; its hashes, and all other bundles, are there."""
    sealer = sealed(tmp_path / "a", numbered(0, 300), numbered(300, 600))
    rolled_path(sealer.trail, 0).unlink()
    exported = export_tiles(sealer.trail, tmp_path / "tiles")
    log = Log(tmp_path / "tiles")
    assert (exported.left_out, sorted(log.tiles("entries")), sorted(log.tiles(0))) == (512, [2], [0, 1, 2])
    assert log.lines() == numbered(512, 600)


def test_hashes_that_were_freed_with_their_lines_are_left_out(tmp_path):
    """Levels above have the root all the same. A hole in the hashes of lines that are there is an error."""
    sealer = sealed(tmp_path / "a", numbered(0, 512), numbered(512, 800))
    rolled_path(sealer.trail, 0).unlink()
    with (sealer.folder / "hashes.0").open("r+b") as file:
        file.write(bytes(512 * HASH_BYTES))
    exported = export_tiles(sealer.trail, tmp_path / "tiles")
    log = Log(tmp_path / "tiles")
    assert (exported.left_out, sorted(log.tiles(0)), sorted(log.tiles(1))) == (512, [2, 3], [0])
    assert log.lines() == numbered(512, 800)

    with (sealer.folder / "hashes.0").open("r+b") as file:
        file.seek(512 * HASH_BYTES)
        file.write(bytes(HASH_BYTES))
    with pytest.raises(AuditReadError, match="has a hole"):
        export_tiles(sealer.trail, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_line_that_is_too_long_for_an_entry_leaves_its_bundle_out(tmp_path):
    """The length of an entry has 16 bits: 65,535 bytes are an entry, one more is none."""
    longest, longer = b"x" * MAX_ENTRY_BYTES, b"x" * (MAX_ENTRY_BYTES + 1)
    sealer = sealed(tmp_path / "a", [longest, *numbered(1, 256), longer, *numbered(257, 300)])
    exported = export_tiles(sealer.trail, tmp_path / "tiles")
    assert exported.left_out == 44
    assert Log(tmp_path / "tiles").lines() == [longest, *numbered(1, 256)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.replace(b"line 450\n", b"line 45x\n"), r"line 151 of audit\.jsonl is not as it was sealed"),
        (lambda data: data.replace(b"line 450\n", b""), r"line 151 of audit\.jsonl is not as it was sealed"),
        (lambda data: data[:-9], r"audit\.jsonl has fewer lines than were sealed"),
    ],
    ids=["changed", "removed", "truncated"],
)
def test_trail_that_is_not_as_it_was_sealed_is_an_error_and_leaves_nothing(tmp_path, change, message):
    """The line is named. A new folder is gone, an empty one is empty, an earlier export is a right one."""
    sealer = sealed(tmp_path / "a", numbered(0, 300), numbered(300, 400))
    earlier = tmp_path / "earlier"
    export_tiles(sealer.trail, earlier)
    with sealer.trail.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in numbered(400, 900)))
    sealer.seal()
    sealer.trail.write_bytes(change(sealer.trail.read_bytes()))

    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (tmp_path / "new", empty, earlier):
        with pytest.raises(AuditReadError, match=message):
            export_tiles(sealer.trail, folder)
    assert not (tmp_path / "new").exists()
    assert not list(empty.iterdir())
    assert Log(earlier).lines()[:400] == numbered(0, 400)
    assert Log(earlier).checkpoint.size == 400


@pytest.mark.parametrize(("level", "position"), [(0, 3), (0, 700), (0, 790), (1, 1)])
def test_damaged_stored_hashes_are_an_error_and_leave_nothing(tmp_path, level, position):
    """One that does not give the root, at any level, is not handed out."""
    sealer = sealed(tmp_path / "a", numbered(0, 800))
    with (sealer.folder / f"hashes.{level}").open("r+b") as file:
        file.seek(position * HASH_BYTES)
        file.write(b"x" * HASH_BYTES)
    with pytest.raises(AuditReadError, match="do not give the root"):
        export_tiles(sealer.trail, tmp_path / "tiles")
    assert not (tmp_path / "tiles").exists()


def test_changed_line_with_its_changed_hash_is_an_error(tmp_path):
    """Entries are compared with the tile of the folder, which an earlier export has verified."""
    sealer = sealed(tmp_path / "a", numbered(0, 300))
    export_tiles(sealer.trail, tmp_path / "tiles")
    shutil.rmtree(tmp_path / "tiles/tile/entries")
    sealer.trail.write_bytes(sealer.trail.read_bytes().replace(b"line 7\n", b"line x\n"))
    with (sealer.folder / "hashes.0").open("r+b") as file:
        file.seek(7 * HASH_BYTES)
        file.write(leaf_hash(b"line x"))
    with pytest.raises(AuditReadError, match="line 8 of"):
        export_tiles(sealer.trail, tmp_path / "tiles")


def test_url_is_no_folder_of_tiles(tmp_path, monkeypatch):
    """The system takes a URL for a folder such as ``s3:``."""
    sealer = sealed(tmp_path / "a", numbered(0, 3))
    monkeypatch.chdir(tmp_path)

    with pytest.raises(AuditValueError, match="folder='s3://bucket': expected a path on this machine, got a URL"):
        export_tiles(sealer.trail, "s3://bucket")
    assert not (tmp_path / "s3:").exists()


def test_folder_of_something_else_is_refused_and_stays(tmp_path):
    """Other files, another origin, a checkpoint that is none, an export of more lines, and of another history."""
    sealer = sealed(tmp_path / "a", numbered(0, 300))
    other = Sealer(sealer.trail, origin="audit.example/other")
    longer = sealed(tmp_path / "b", numbered(0, 301))
    forked = sealed(tmp_path / "c", numbered(1, 200))
    other.folder = tmp_path / "other.seal"
    other.seal()

    def with_checkpoint(name, data):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "checkpoint").write_bytes(data)
        return folder

    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "file").write_text("mine")
    cases = [
        (tmp_path / "files", "got other files"),
        (with_checkpoint("nonsense", b"mine"), "cannot be read"),
        (
            with_checkpoint("origin", (other.folder / "checkpoint").read_bytes()),
            f"{ORIGIN!r}, got one of 'audit.example/other'",
        ),
        (with_checkpoint("longer", (longer.folder / "checkpoint").read_bytes()), "301 lines, and the seal has 300"),
        (with_checkpoint("forked", (forked.folder / "checkpoint").read_bytes()), "another root for its 199 lines"),
    ]
    for folder, message in cases:
        before = files_in(folder)
        with pytest.raises(AuditValueError, match=re.escape(message)) as raised:
            export_tiles(sealer.trail, folder)
        assert "expected a new or an empty folder, or one with an export of this trail" in str(raised.value)
        assert files_in(folder) == before


def test_names_of_all_files_are_on_the_disk_before_the_checkpoint(tmp_path, monkeypatch):
    """A power failure leaves no checkpoint without the tiles that it covers: their folders are synced before."""
    sealer = sealed(tmp_path, [b'{"n":%d}' % number for number in range(300)])
    synced, before_checkpoint = set(), set()
    sync, replace = os.fsync, os.replace

    def noted_sync(fd):
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))
        sync(fd)

    def noted_replace(source, target):
        if os.path.basename(target) == "checkpoint":
            before_checkpoint.update(synced)
        synced.discard(os.path.dirname(target))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    export_tiles(sealer.trail, tmp_path / "log")
    folders = {str(path) for path in (tmp_path / "log").rglob("*") if path.is_dir()}
    assert folders
    assert folders <= before_checkpoint
    assert str(tmp_path / "log") in before_checkpoint & synced
