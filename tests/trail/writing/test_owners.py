"""Owners and permissions: processes that change their user, mounts with one owner, paths that can't be written to."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from children import without_coverage
from conftest import lines_in

from structlog_audit import AuditFileHandler, AuditHandler, AuditValueError
from structlog_audit._failures import DeliveryError

NOBODY = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")

SETUID = """
import logging, os, sys
from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger
handler = AuditHandler(target=AuditFileHandler(sys.argv[1], maxBytes=int(sys.argv[2]), durability=sys.argv[3]))
logger = logging.getLogger("audit")
logger.setLevel("INFO")
logger.propagate = False
logger.addHandler(handler)
log = get_audit_logger()
log.info("parent")
for number in range(2):
    if not os.fork():
        os.setgid(65534)
        os.setuid(65534)
        for _ in range(4):
            log.info("child")
        handler.close()
        os._exit(handler.get_statistics()["recorded"] != 4)
    assert os.wait()[1] == 0
log.info("parent")
assert handler.get_statistics()["recorded"] == 2
AuditFileHandler(sys.argv[1])
"""


def run(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    # As another user the process may not write the data of coverage.
    return subprocess.run(command, capture_output=True, text=True, env=without_coverage())


@pytest.fixture
def path():
    """The path of a trail in a folder that every user can reach, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder / "logs" / "audit.jsonl"
    shutil.rmtree(folder)


@needs_root
@pytest.mark.parametrize("durability", ["os", "fsync"])
@pytest.mark.parametrize("max_bytes", [0, 500])
@pytest.mark.parametrize(("owner", "mode"), [(0, 0o755), (0, 0o700), (NOBODY, 0o700)])
def test_forked_child_that_changes_its_user_records_its_events(path, durability, max_bytes, owner, mode):
    """After fork and setuid, as in ``gunicorn --preload --user``, the children record events, and the parent continues."""
    path.parent.mkdir(mode=mode)
    os.chown(path.parent, owner, -1)
    done = run(SETUID, path, max_bytes, durability)
    assert (done.returncode, done.stderr) == (0, "")
    segments = AuditFileHandler(path).segments()
    operations = [line["operation"] for segment in segments for line in lines_in(segment)]
    assert sorted(operations) == ["child"] * 8 + ["parent"] * 2
    assert (len(segments) > 1) == (max_bytes > 0)


DENIED = """
import logging, os, sys
from structlog_audit import AuditFileHandler, AuditError
os.setuid(65534)
waiting = AuditFileHandler(sys.argv[1], delay=True)
print(*[finding for finding in waiting.check() if finding.code == "access"])
try:
    AuditFileHandler(sys.argv[1])
except AuditError as error:
    print(error)
logging.shutdown()
"""


@needs_root
@pytest.mark.parametrize("depth", ["file", "folder", "missing folder", "locked folder"])
def test_path_that_cannot_be_written_is_refused_with_its_owner_and_the_fix(path, depth):
    """The error names the parameter, this user, the place that denies the access, its owner, its mode and the fix.

    A handler that opens the file later reports the place by `check`.
    """
    path.parent.mkdir(mode=0o755)
    place, mode = path.parent, "0755"
    if depth == "file":
        path.touch(mode=0o600)
        place, mode = path, "0600"
    elif depth == "missing folder":
        path = path.parent / "new" / "audit.jsonl"
    elif depth == "locked folder":
        path.parent.chmod(0o700)
        mode = "0700"
    done = run(DENIED, path)
    assert done.stderr == ""
    assert f"filename='{path}'" in done.stdout
    assert "user 65534" in done.stdout
    assert f"may not write to {place}, which belongs to user 0 (root) and has mode {mode}: change its" in done.stdout
    assert f"may not write to {place}, which belongs to user 0 (root) and has mode {mode}: events or" in done.stdout


def test_failed_constructor_leaves_nothing_for_shutdown(tmp_path):
    """A handler whose file can't be opened is not registered with logging, so that the shutdown has nothing to close."""
    (tmp_path / "file").touch()
    before = len(logging._handlerList)
    with pytest.raises(AuditValueError) as caught:
        AuditFileHandler(tmp_path / "file" / "audit.jsonl")
    assert isinstance(caught.value.__cause__, OSError)
    assert len(logging._handlerList) == before
    logging.shutdown()


@pytest.mark.parametrize("call", ["first", "second"])
def test_mount_that_shows_one_owner_for_all_files_is_accepted(path, monkeypatch, call):
    """On a mount that shows another user as the owner of every file, a new file and an existing one are accepted."""

    def with_other_owner(real):
        def status(*arguments, **options):
            found = list(real(*arguments, **options))
            found[stat.ST_UID] = 1_000_000
            return os.stat_result(found)

        return status

    for name in ("stat", "lstat", "fstat"):
        monkeypatch.setattr(os, name, with_other_owner(getattr(os, name)))
    handler = AuditHandler(filename=path)
    if call == "second":
        handler = AuditHandler(filename=path)
    handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20}))
    assert len(lines_in(path)) == 1


@needs_root
def test_mount_that_maps_the_owner_of_files_only_is_accepted(path, monkeypatch):
    """With root squash, a file belongs to nobody although its folder does not: a new file shows the same owner."""
    real = os.open

    def squashed(name, flags, *rest, **options):
        fd = real(name, flags, *rest, **options)
        is_on_the_mount = os.fsdecode(name).startswith(str(path.parent))
        if is_on_the_mount and stat.S_ISREG(os.fstat(fd).st_mode):
            os.fchown(fd, NOBODY, -1)
        return fd

    monkeypatch.setattr(os, "open", squashed)
    for _ in range(2):
        AuditFileHandler(path).write(b"{}\n")
    assert path.stat().st_uid == NOBODY != path.parent.stat().st_uid


@needs_root
def test_file_of_another_user_in_a_folder_of_root_is_refused_with_both_users(path):
    """A file that belongs neither to this user nor to the owner of its folder is refused, and the error names both."""
    target = AuditFileHandler(path)
    os.chown(path, NOBODY, -1)
    with pytest.raises(AuditValueError, match=r"belongs to user 65534.*runs as user 0"):
        AuditFileHandler(path)
    target.close()
    with pytest.raises(DeliveryError) as caught:
        target.write(b"{}\n")
    assert "65534" in str(caught.value.__cause__)


@needs_root
def test_folder_of_another_user_is_accepted_and_reported_by_check(path):
    """A folder whose owner could replace the trail is a finding of check()."""
    path.parent.mkdir()
    os.chown(path.parent, NOBODY, -1)
    target = AuditFileHandler(path)
    (finding,) = [finding for finding in target.check() if finding.code == "permissions"]
    assert "65534" in finding.message


def test_constructor_that_fails_keeps_no_descriptor(path, monkeypatch):
    """If the file is not accepted after it was opened, its descriptor is closed."""
    path.parent.mkdir()
    os.mkfifo(path)
    before = set(os.listdir("/dev/fd"))
    with pytest.raises(AuditValueError):
        AuditFileHandler(path)
    assert set(os.listdir("/dev/fd")) == before
