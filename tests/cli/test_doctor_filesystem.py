"""Findings of ``doctor`` about the place of a trail."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from doctor_helpers import clean_process, findings_of, trail_folder  # noqa: F401
from zstandard_of_python import zstd

from structlog_audit.cli.doctor import filesystem


def findings_at(*given):
    """Return the findings of `check_filesystem` by code, each with its severity."""
    return {
        diagnosis.finding.code: (diagnosis.severity, diagnosis.finding.message)
        for diagnosis in filesystem.check_filesystem(*map(str, given))
    }


@pytest.fixture
def mountinfo(folder, tmp_path):
    """A function that writes a table of mounts with a file system of a given type at the folder, and returns its path."""

    def write(kind):
        inner = str(folder).replace(" ", "\\040")
        table = tmp_path / "mountinfo"
        table.write_text(
            "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
            f"2 1 0:5 / {inner} rw,nosuid shared:2 master:1 - {kind} none rw,size=1k\n"
            f"3 1 0:6 / {inner}/deeper rw - xfs none rw\n"
        )
        return str(table)

    return write


@pytest.mark.parametrize(("mode", "access"), [(0o644, "be read"), (0o620, "be changed"), (0o666, "be changed")])
def test_segment_open_to_other_users_has_finding(folder, mode, access):
    """A file that other users can read or change is a finding that names the worse of the two."""
    (folder / "audit.jsonl").touch()
    (folder / "audit.jsonl").chmod(mode)
    assert access in findings_of(folder / "audit.jsonl")["permissions"]["message"]


def test_world_writable_folder_has_finding(folder):
    """A folder in which any user can rename files is a finding."""
    (folder / "audit.jsonl").touch(0o600)
    folder.chmod(0o777)
    assert "folder" in findings_of(folder / "audit.jsonl")


def test_world_writable_folder_with_sticky_bit_has_no_finding(folder):
    """A folder with the sticky bit, such as /tmp, is not a finding."""
    (folder / "audit.jsonl").touch(0o600)
    folder.chmod(0o1777)
    assert "folder" not in findings_of(folder / "audit.jsonl")


def test_symbolic_link_is_error(folder):
    """A symbolic link, which writers refuse, is an error."""
    (folder / "real.jsonl").touch(0o600)
    (folder / "audit.jsonl").symlink_to("real.jsonl")
    assert findings_of(folder / "audit.jsonl")["no-file"]["severity"] == "error"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the owner of a file")
def test_trail_of_another_user_is_note(folder):
    """A trail that belongs to another user is a note."""
    (folder / "audit.jsonl").touch(0o600)
    os.chown(folder / "audit.jsonl", 12345, -1)
    assert findings_of(folder / "audit.jsonl")["owner"]["severity"] == "note"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the owner of a file")
def test_segments_of_different_users_are_named(folder):
    """Segments of different users are a finding that names the users."""
    (folder / "audit.jsonl").touch(0o600)
    os.chown(folder / "audit.jsonl", 12345, -1)
    (folder / "audit.jsonl.20250115T103000.000000Z").touch(0o600)
    assert "user 12345" in findings_of(folder / "audit.jsonl")["owners"]["message"]


def test_segments_and_other_files_are_not_foreign_rotation(folder):
    """Segments of the library, and rotated files of other names, are not findings."""
    for name in ("audit.jsonl", "audit.jsonl.20250115T103000.000000Z", "other.jsonl.1"):
        (folder / name).touch(0o600)
    assert "foreign-rotation" not in findings_of(folder / "audit.jsonl")


@pytest.mark.parametrize(
    "name", ["audit.jsonl.1", "audit.jsonl.2.gz", "audit.jsonl-20250115", "audit.jsonl.2025-01-15"]
)
def test_file_rotated_by_another_program_has_finding(folder, name):
    """A file as left by logrotate or the standard library is a finding that names it."""
    (folder / "audit.jsonl").touch(0o600)
    (folder / name).touch(0o600)
    assert name in findings_of(folder / "audit.jsonl")["foreign-rotation"]["message"]


@pytest.mark.parametrize(
    "name", ["audit.jsonl.1.xz", "audit-20250115.jsonl", "audit.1.jsonl.gz", "audit.jsonl-20250115.bz2"]
)
def test_rotated_file_that_is_not_read_has_finding(folder, name):
    """A file of another program that the reader does not take for a segment is a finding that names it."""
    (folder / "audit.jsonl").touch(0o600)
    (folder / "audit.jsonl.1").touch(0o600)
    assert "not-read" not in findings_of(folder / "audit.jsonl")
    (folder / name).touch(0o600)
    findings = findings_of(folder / "audit.jsonl")
    assert name in findings["not-read"]["message"]
    assert "foreign-rotation" in findings


@pytest.mark.parametrize(
    ("options", "has_finding"), [({}, True), ({zstd.CompressionParameter.checksum_flag: 1}, False)]
)
def test_zstd_segment_without_checksum_has_finding(folder, options, has_finding):
    """A segment that zstd compressed without a checksum is noted; one with it, and other segments, are not."""
    (folder / "audit.jsonl").touch(0o600)
    packed = folder / "audit.jsonl.20250115T103000.000000Z.zst"
    packed.touch(0o600)
    packed.write_bytes(zstd.compress(b"{}\n", options=options))
    findings = findings_of(folder / "audit.jsonl")
    assert ("no-checksum" in findings) == has_finding
    assert not has_finding or packed.name in findings["no-checksum"]["message"]


@pytest.mark.parametrize(("directive", "severity"), [("copytruncate", "error"), ("weekly", "warning")])
def test_logrotate_rule_for_trail_has_finding(folder, tmp_path, directive, severity):
    """A rule of logrotate for the trail is a warning, and with copytruncate an error."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "app").write_text(
        f"/var/log/none/*.log\n{{\n  daily\n}}\n{folder}/*.log {folder}/*.jsonl {{\n  {directive}\n}}\n"
    )
    diagnoses = list(filesystem.check_filesystem(str(folder / "audit.jsonl"), str(rules)))
    assert [each.severity for each in diagnoses if each.finding.code == "logrotate"] == [severity]


def test_logrotate_rule_for_other_files_has_no_finding(folder, tmp_path):
    """A rule of logrotate for other files is not a finding."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "app").write_text(f"{folder}/*.log {{\n  copytruncate\n}}\n")
    assert "logrotate" not in findings_at(folder / "audit.jsonl", rules)


def test_mount_of_folder_is_longest_mount_point(folder, mountinfo):
    """The file system of a folder is the one with the longest mount point above it."""
    table = mountinfo("tmpfs")
    assert filesystem.mount_of(folder, table) == ("tmpfs", str(folder))
    assert filesystem.mount_of(folder / "deeper" / "x", table) == ("xfs", str(folder / "deeper"))
    assert filesystem.mount_of(Path("/"), table) == ("ext4", "/")


def test_mount_of_folder_without_mountinfo_is_unknown(folder):
    """Without a table of mounts, the file system is unknown."""
    assert filesystem.mount_of(folder, "/nothing") == ("", "")


@pytest.mark.parametrize(
    ("kind", "code"),
    [("tmpfs", "fleeting"), ("nfs4", "remote"), ("fuse.sshfs", "remote"), ("overlay", "container"), ("ext4", None)],
)
def test_unsuitable_file_system_has_finding(folder, mountinfo, monkeypatch, kind, code):
    """A trail in memory, on the network or in a container is a finding."""
    mount = filesystem.mount_of(folder, mountinfo(kind))
    assert mount == (kind, str(folder))
    monkeypatch.setattr(filesystem, "mount_of", lambda folder: mount)
    codes = set(findings_at(folder / "audit.jsonl"))
    assert codes & {"fleeting", "remote", "container"} == ({code} if code else set())


def test_nearly_full_disk_has_finding(folder, monkeypatch):
    """A disk with little free space is a finding with the free space."""
    usage = type(shutil.disk_usage(folder))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    _, message = findings_at(folder / "audit.jsonl")["disk"]
    assert message == "only 1 MB are free, 0% of the disk"


def test_file_system_with_few_inodes_has_finding(folder, monkeypatch):
    """A file system with few free inodes is a finding with their number."""
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    system = os.statvfs_result((4096, 4096, 1, 1, 1, 100, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: system)
    _, message = findings_at(folder / "audit.jsonl")["inodes"]
    assert "10 more files" in message
