"""Tests of sealing in the background of a process that records: the lock, checkpoint lines, failures, the end, forks."""

from __future__ import annotations

import datetime as dt
import json
import logging
import logging.config
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from seals import ORIGIN, POLICY, SIGNER, Writer, codes, verified

from structlog_audit import AuditError, AuditFileHandler, AuditHandler, AuditTypeError, AuditValueError, open_trail
from structlog_audit.exceptions import AuditSealError
from structlog_audit.integrity.background import CHECKPOINT_SECONDS, CLOSE_SECONDS, BackgroundSealer
from structlog_audit.integrity.chain_link import ChainedStamp
from structlog_audit.integrity.notes import Checkpoint, parse_key
from structlog_audit.integrity.sealer import Sealer
from structlog_audit.integrity.signing import KeyFile, generate_key
from structlog_audit.integrity.standalone.verify_trail import Policy, read_checkpoint


class Manual:
    """A background sealer without a thread, with its clock and the key that it loads."""

    def __init__(self, trail, **options):
        self.now = 1_000.0
        self.started = []
        self.load_error = None
        self.signers = [SIGNER]
        self.on_sleep = lambda: None
        options.setdefault("start", lambda function, name: self.started.append(function) or True)
        self.sealer = BackgroundSealer(
            str(trail), ORIGIN, self.load, monotonic=lambda: self.now, sleep=lambda seconds: self.on_sleep(), **options
        )

    def load(self):
        if self.load_error is not None:
            raise self.load_error
        return self.signers

    def pass_after(self, seconds=1.0):
        self.now += seconds
        return self.sealer.seal_now()


@pytest.fixture
def trail(tmp_path):
    path = tmp_path / "audit.jsonl"
    writer = Writer()
    path.write_bytes(b"".join([writer.opened(), writer.event(0)]))
    return path


@pytest.fixture
def manual(trail):
    manual = Manual(trail)
    yield manual
    manual.sealer.release()


def checkpoint_lines(trail):
    lines = map(json.loads, trail.read_bytes().splitlines())
    return [line for line in lines if line.get("kind") == "checkpoint"]


def test_process_without_the_lock_seals_when_it_is_free(trail, manual):
    """Only one of several processes seals; another one takes over when that one ends."""
    other = Manual(trail)
    assert manual.pass_after()
    assert not other.pass_after()
    assert (manual.sealer.is_sealing, other.sealer.is_sealing) == (True, False)
    manual.sealer.release()
    assert other.pass_after()
    assert other.sealer.size == 2
    other.sealer.release()


def test_checkpoint_line_is_appended_every_minute_even_without_events(trail, manual):
    """An idle trail gets a checkpoint line a minute, which the next pass seals."""
    for _ in range(182):
        assert manual.pass_after()
    lines = checkpoint_lines(trail)
    assert [line["metadata"]["size"] for line in lines] == [2, 3, 4]
    assert all(line["operation"] == "checkpoint" for line in lines)
    report = verified(trail, max_age=None)
    assert (codes(report), report.size) == ({}, 5)


def test_checkpoint_line_holds_the_signed_note_verbatim(trail, manual):
    """The note in a line is the one that was in the folder, and its writer is linked."""
    manual.pass_after()
    note = str(read_checkpoint(f"{trail}.seal"))
    manual.pass_after(CHECKPOINT_SECONDS)
    (line,) = checkpoint_lines(trail)
    assert line["metadata"] == {"size": 2, "note": note}
    assert len(line["chain"]) == 64


def test_checkpoint_line_never_creates_a_file(trail, manual):
    """Between the two steps of a rollover there is no active segment: only the application makes one."""
    manual.pass_after()
    os.rename(trail, trail.with_name("audit.jsonl.20250115T103000.000000Z"))
    manual.pass_after(CHECKPOINT_SECONDS)
    assert not trail.exists()


@pytest.mark.parametrize("place", ["folder", "link", "fifo"])
def test_checkpoint_line_goes_to_a_regular_file_only(trail, manual, place, tmp_path):
    """A folder, a link or a pipe in the place of the segment gets no line and blocks nothing."""
    manual.pass_after()
    trail.unlink()
    {
        "folder": lambda: trail.mkdir(),
        "link": lambda: trail.symlink_to(tmp_path / "elsewhere"),
        "fifo": lambda: os.mkfifo(trail),
    }[place]()
    (tmp_path / "elsewhere").write_bytes(b"")
    assert manual.sealer._lines.append(read_checkpoint(f"{trail}.seal")) is False
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_interrupted_checkpoint_line_begins_a_new_writer(trail, manual, monkeypatch):
    """A line that is written in part has used a number: the next one begins a writer, so there is no gap."""
    manual.pass_after()
    write = os.write
    for part in (20, 10_000, 10_000):
        monkeypatch.setattr(os, "write", lambda fd, data, part=part: write(fd, data[:part]))
        manual.pass_after(CHECKPOINT_SECONDS)
        monkeypatch.undo()
        if part == 20:
            with trail.open("ab") as file:
                file.write(b"\n")
    manual.pass_after()
    assert codes(verified(trail)) == {}


def test_checkpoint_lines_leave_no_doubt_about_completeness(trail, manual):
    """The writer of checkpoint lines records no events, so its end is not in doubt."""
    with trail.open("ab") as file:
        writer = Writer(bits=7)
        file.write(writer.opened() + writer.closed())
    before = str(open_trail(trail).completeness()) if hasattr(open_trail(trail), "completeness") else ""
    manual.pass_after()
    manual.pass_after(CHECKPOINT_SECONDS)
    after = str(open_trail(trail).completeness()) if before else ""
    assert ("1 writer" in after) == ("1 writer" in before)


def test_end_seals_what_came_late_to_a_rolled_segment(trail, manual):
    """A line that follows the rollover of another process is sealed at the end, though its second has not passed."""
    rolled = trail.with_name("audit.jsonl.20250115T103000.000000Z")
    manual.sealer.wake()
    manual.pass_after()
    os.rename(trail, rolled)
    trail.write_bytes(Writer(bits=3).opened())
    manual.pass_after(0.1)
    with rolled.open("ab") as file:
        file.write(Writer(bits=4).opened())

    manual.sealer.close()
    assert verified(trail).unsealed == 0


def test_end_seals_the_last_line_of_a_process_that_ended_meanwhile(trail, manual):
    """Two processes end at once: the one without the lock relies on the other, whose last pass has read the file already."""
    other = Manual(trail)
    manual.sealer.wake()
    other.sealer.wake()
    manual.pass_after()

    def end_other():
        manual.on_sleep = lambda: None
        with trail.open("ab") as file:
            file.write(Writer(bits=5).opened())
        other.sealer.close()

    manual.on_sleep = end_other
    manual.sealer.close()
    assert verified(trail).unsealed == 0
    assert manual.sealer.size == len(trail.read_bytes().splitlines())


def test_end_appends_a_checkpoint_line_and_seals_it(trail, manual):
    """At its end a process appends a checkpoint of all its lines, seals that line too, and gives up the lock."""
    manual.sealer.wake()
    manual.pass_after()
    with trail.open("ab") as file:
        file.write(Writer(bits=3).event(5))
    manual.sealer.close()
    (line,) = checkpoint_lines(trail)
    assert line["metadata"]["size"] == 3
    report = verified(trail)
    assert (codes(report), report.size, report.unsealed) == ({}, 4, 0)
    assert not manual.sealer.is_sealing


def test_end_without_anything_new_appends_no_line(trail, manual):
    """If the newest checkpoint line has everything in front of it, the end adds none."""
    manual.sealer.wake()
    manual.pass_after(0)
    manual.pass_after(CHECKPOINT_SECONDS)
    manual.pass_after()
    manual.sealer.close()
    assert len(checkpoint_lines(trail)) == 1


def test_end_of_a_process_without_events_touches_nothing(trail, manual):
    """A process that recorded nothing has no thread, and does not seal at its end."""
    manual.sealer.close()
    assert not Path(f"{trail}.seal").exists()


def test_thread_is_started_once_and_again_after_the_end(trail, manual):
    """`wake` starts one thread, whatever the number of events; the first event after an end starts another one."""
    manual.sealer.wake()
    manual.sealer.wake()
    assert len(manual.started) == 1
    manual.sealer.close()
    manual.sealer.wake()
    assert len(manual.started) == 2
    manual.sealer.close()


def test_thread_that_cannot_start_is_tried_again(trail):
    """While the interpreter ends, no thread can start: the next event tries again."""
    answers = [False, True]
    started = []
    manual = Manual(trail, start=lambda function, name: started.append(name) or answers.pop(0))
    manual.sealer.wake()
    manual.sealer.wake()
    manual.sealer.wake()
    assert started == ["structlog-audit sealer"] * 2
    manual.sealer.release()


def test_thread_ends_when_it_is_told_to(trail, manual):
    """`run` returns at once if the end came first, and then another thread can start."""
    manual.sealer.wake()
    stop = threading.Event()
    stop.set()
    manual.sealer.run(stop)
    assert not Path(f"{trail}.seal").exists()


def test_failure_is_reported_once_and_retried_less_and_less_often(trail, manual, capsys):
    """A key that cannot be used is one line on stderr; attempts follow after 1, 2, 4, … seconds, and success ends it."""
    manual.load_error = AuditSealError("no key")
    outcomes = [manual.pass_after(0.5) for _ in range(40)]
    assert outcomes == [False] * 40
    assert manual.sealer.failures == 5
    assert (manual.sealer.failure, capsys.readouterr().err.count("cannot be sealed (no key)")) == ("no key", 1)
    assert not Path(f"{trail}.seal").exists()

    manual.load_error = None
    assert manual.pass_after(60)
    assert manual.sealer.failure == ""
    manual.load_error = AuditSealError("no key")


def test_failure_of_any_kind_is_counted_and_reaches_neither_thread_nor_close(trail, manual, capsys):
    """Keys and callbacks of the application may raise anything: that is a failure like others, and the lock is free."""
    manual.load_error = ZeroDivisionError("secret")
    assert not manual.pass_after()
    assert (manual.sealer.failures, manual.sealer.failure) == (1, "ZeroDivisionError")
    assert not manual.sealer.is_sealing
    manual.sealer.finish()
    assert (manual.sealer.failures, capsys.readouterr().err.count("cannot be sealed (ZeroDivisionError)")) == (2, 1)


def test_failing_process_leaves_the_lock_to_others(trail, manual):
    """A process that cannot write the seal gives up the lock, and another one seals."""
    manual.pass_after()
    failing = Manual(trail)
    manual.sealer._sealer.seal = lambda: (_ for _ in ()).throw(OSError(5, "Input/output error"))
    assert not manual.pass_after()
    assert failing.pass_after()
    failing.sealer.release()


def test_watching_sealer_ends_within_a_pass(trail, monkeypatch):
    """A long trail does not hold up the end: the pass under way ends with the part that it seals."""
    stop, parts = threading.Event(), []
    manual = Manual(trail)

    def seal_part(self):
        stop.set()
        parts.append(len(parts))
        # The end has the time for one part.
        manual.now += CLOSE_SECONDS + 1
        return len(parts) < 10

    monkeypatch.setattr(Sealer, "seal", seal_part)
    manual.sealer.watch(stop)
    assert (len(parts), manual.sealer.is_sealing) == (2, False)


IMPORTS = """
import sys
from structlog_audit import AuditFileHandler
path, key, address = sys.argv[1:]
handler = AuditFileHandler(path, integrity={"origin": "audit.example/shop/web1", "key": key, "timestamps": address})
before = set(sys.modules)
with open(path, "ab") as file:
    file.write(b"a line\\n")
assert handler.integrity.seal_now(), handler.integrity.failure
handler.integrity.anchors.close()
assert any(state.failures for state in handler.integrity.anchors.states().values())
print(*sorted(set(sys.modules) - before))
"""


def test_sealing_and_anchoring_import_no_module(tmp_path):
    """A child that is forked while a thread imports a module waits for it for ever: set-up imports all of them."""
    generate_key(str(tmp_path / "audit.pem"), ORIGIN)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    words = [sys.executable, "-c", IMPORTS, tmp_path / "audit.jsonl", tmp_path / "audit.pem", address]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("\n", 0), done.stderr


def test_nested_end_in_a_signal_handler_does_not_wait_for_itself(trail, manual):
    """A signal handler that closes the handler in the middle of a pass returns at once."""
    manual.sealer.wake()
    sealed = manual.sealer._seal_all

    def interrupted(sealer, until):
        manual.sealer.close()
        sealed(sealer, until)

    manual.sealer._seal_all = interrupted
    assert manual.pass_after()


def test_forked_child_gives_up_the_lock_and_the_parent_keeps_it(trail, manual):
    """A child can neither seal for its parent nor take its lock away."""
    manual.sealer.wake()
    manual.pass_after()
    pid = os.fork()
    if not pid:
        manual.sealer.after_fork()
        code = int(manual.sealer.is_sealing) or int(manual.pass_after())
        os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert manual.sealer.is_sealing
    assert manual.pass_after()
    manual.sealer.close()
    other = Manual(trail)
    assert other.pass_after()
    other.sealer.release()


def test_descriptor_that_other_code_closed_is_not_closed_again(trail, manual, tmp_path):
    """If the number of the lock's descriptor belongs to another file now, that one stays open, and the lock is taken anew."""
    manual.pass_after()
    fd = manual.sealer._folder._fd
    os.close(fd)
    other = os.open(tmp_path, os.O_RDONLY)
    assert other == fd
    assert manual.pass_after()
    os.fstat(other)
    os.close(other)


# The parameter of the file handler.


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "audit.pem"
    generate_key(str(path), ORIGIN)
    return path


def policy_of(key_file):
    return Policy((KeyFile(str(key_file), ORIGIN).key,))


def record(handler, count=3):
    logger = logging.Logger("audit")
    logger.addHandler(handler)
    for number in range(count):
        logger.info("STORE", extra={"user_id": f"user_{number}"})


def test_handler_with_a_key_seals_what_it_records(path, key_file):
    """Everything up to ``closed`` is chained and sealed when the handler is closed."""
    target = AuditFileHandler(path, integrity={"origin": ORIGIN, "key": str(key_file)})
    handler = AuditHandler(target=target)
    record(handler)
    handler.close()
    report = verified(path, policy=policy_of(key_file))
    assert (codes(report), report.size, report.unsealed, report.open_writers) == ({}, 6, 0, 0)
    assert b'"chain"' in path.read_bytes()


def test_handler_without_a_front_seals_what_it_records(path, key_file):
    """A handler that is attached to a logger directly chains and seals its lines, too."""
    handler = AuditFileHandler(path, integrity={"origin": ORIGIN, "key": key_file})
    record(handler)
    handler.close()
    report = verified(path, policy=policy_of(key_file))
    assert (codes(report), report.size) == ({}, 4)


def test_closed_handler_records_and_seals_again(path, key_file):
    """``dictConfig`` closes handlers that are still in use: the next event starts sealing again."""
    target = AuditFileHandler(path, integrity={"origin": ORIGIN, "key": str(key_file)})
    handler = AuditHandler(target=target)
    for _ in range(2):
        record(handler)
        handler.close()
    report = verified(path, policy=policy_of(key_file))
    assert (codes(report), report.unsealed) == ({}, 0)


def test_handler_without_a_key_writes_links_only(path):
    """Without a key, lines are chained, and nothing is sealed: another process does that."""
    handler = AuditHandler(target=AuditFileHandler(path, integrity={"origin": ORIGIN}))
    record(handler)
    handler.close()
    assert b'"chain"' in path.read_bytes()
    assert not Path(f"{path}.seal").exists()
    manual = Manual(path)
    assert manual.pass_after()
    manual.sealer.release()
    assert codes(verified(path)) == {}


def test_integrity_works_from_dict_config(path, key_file):
    """The parameter is a mapping of plain values, with references."""
    config = {
        "version": 1,
        "origin": ORIGIN,
        "handlers": {
            "file": {
                "()": "structlog_audit.AuditFileHandler",
                "filename": str(path),
                "integrity": {"origin": "cfg://origin", "key": str(key_file)},
            },
            "audit": {"class": "structlog_audit.AuditHandler", "target": "file"},
        },
        "loggers": {"audit.sealed": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
    }
    logging.config.dictConfig(config)
    logger = logging.getLogger("audit.sealed")
    logger.info("STORE")
    handler = logger.handlers[0]
    handler.close()
    logger.removeHandler(handler)
    assert codes(verified(path, policy=policy_of(key_file))) == {}


def test_key_by_command_signs(path, tmp_path, key_file):
    """A command that gets the text and answers with 64 bytes takes the place of a key file."""
    vkey = KeyFile(str(key_file), ORIGIN).key
    program = (
        "import sys; from cryptography.hazmat.primitives.serialization import load_pem_private_key as load; "
        f"key = load(open({str(key_file)!r}, 'rb').read(), None); "
        "sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))"
    )
    integrity = {"origin": ORIGIN, "key": [sys.executable, "-c", program], "verifier_key": str(vkey)}
    handler = AuditHandler(target=AuditFileHandler(path, integrity=integrity))
    record(handler)
    handler.close()
    assert codes(verified(path, policy=Policy((vkey,)))) == {}


def test_failure_to_seal_reaches_no_caller_and_is_a_finding(path, tmp_path, capsys):
    """A key file that is not a key: events are recorded, and `check` names the reason."""
    key = tmp_path / "audit.pem"
    key.write_text("not a key")
    target = AuditFileHandler(path, integrity={"origin": ORIGIN, "key": str(key)})
    handler = AuditHandler(target=target)
    record(handler)
    handler.close()
    assert "expected a private key as PKCS#8 PEM" in capsys.readouterr().err
    (finding,) = [finding for finding in handler.check() if finding.code == "sealing"]
    assert "expected a private key" in finding.message
    assert handler.get_statistics()["recorded"] == 3


OTHER_KEY = "other.example/a+734be7f8+AU0+dqOs9G8xEDZ0XvRktgFXCG2BRy1S7leW1hV00QMy"


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("audit.pem", AuditTypeError, "integrity='audit.pem': expected a mapping with keys from origin, key"),
        ({"keys": 1}, AuditTypeError, "expected a mapping with keys from origin, key"),
        ({"origin": 1}, AuditTypeError, "origin=1: expected a text"),
        ({"origin": "a b"}, AuditValueError, "origin='a b': expected a name without spaces and plus"),
        ({"origin": ORIGIN, "key": 1}, AuditTypeError, "key=1: expected a path, or a list with a command"),
        ({"origin": ORIGIN, "key": []}, AuditTypeError, "expected a path, or a list with a command"),
        ({"origin": ORIGIN, "key": "none.pem"}, AuditValueError, "key='none.pem': expected the path of a private key"),
        ({"key": "none.pem"}, AuditValueError, "expected 'origin' as well"),
        ({"origin": ORIGIN, "key": ["sign"]}, AuditValueError, "expected 'verifier_key' as well"),
        ({"origin": ORIGIN, "key": ["sign"], "verifier_key": "x"}, AuditValueError,
         r"integrity: verifier_key: expected a verifier key NAME\+ID"),
        ({"origin": ORIGIN, "key": ["sign"], "verifier_key": str(SIGNER.key._replace(kind=4))}, AuditValueError,
         r"integrity: verifier_key: the verifier key .* of type 1 \(a trail\), got type 4"),
        ({"origin": ORIGIN, "key": "none.pem", "verifier_key": str(SIGNER.key)}, AuditValueError,
         "'verifier_key' is for a command: a key file has its public half"),
        ({"origin": ORIGIN, "verifier_key": str(SIGNER.key)}, AuditValueError, "uses 'verifier_key'"),
        ({"origin": ORIGIN, "key": ["sign"], "verifier_key": str(SIGNER.key._replace(name="b"))}, AuditValueError,
         "verifier_key is for 'b': expected"),
        ({"timestamps": "http://tsa"}, AuditValueError, "expected 'key' as well"),
        ({"witnesses": "w"}, AuditTypeError, "witnesses='w': expected a list"),
    ],
)  # fmt: skip
def test_invalid_settings_are_refused_with_the_member_named(path, value, error, message):
    """A mapping that cannot be used is an error when the handler is made, and no file is created for it."""
    with pytest.raises(error, match=message):
        AuditFileHandler(path, integrity=value)
    assert issubclass(error, AuditError)


def test_handler_without_integrity_imports_nothing_for_it(path):
    """Off means off: no thread, no hashing of lines, no module of the package, no cryptography."""
    code = """
import logging, sys, threading
from structlog_audit import AuditHandler
handler = AuditHandler(filename=sys.argv[1])
logger = logging.Logger("audit")
logger.addHandler(handler)
logger.info("STORE")
names = [name for name in sys.modules if "cryptography" in name or "structlog_audit.integrity" in name]
print(names, threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "[] 1\n"
    assert not Path(f"{path}.seal").exists()


def test_formatter_of_a_handler_with_integrity_links_its_lines(path, key_file):
    """Each formatter that the handler gets makes links."""
    from structlog_audit import AuditJsonFormatter

    handler = AuditFileHandler(path, integrity={"origin": ORIGIN, "key": key_file})
    formatter = AuditJsonFormatter()
    handler.setFormatter(formatter)
    assert formatter.stamp_class is ChainedStamp
    handler.close()


def test_damage_is_recorded_in_the_trail_and_found_by_check(path, key_file):
    """Damage that the sealer sees becomes a trail event with the next event, and a finding."""
    target = AuditFileHandler(path, integrity={"origin": ORIGIN, "key": str(key_file)})
    handler = AuditHandler(target=target)
    record(handler)
    target.integrity.seal_now()
    os.truncate(path, 100)
    target.integrity.seal_now()
    record(handler, 1)
    handler.close()
    recorded = [json.loads(line) for line in path.read_bytes().splitlines() if b'"seal damaged"' in line]
    assert recorded[0]["metadata"]["segment"] == path.name
    assert "damaged" in {finding.code for finding in handler.check()}


# Retention.


def with_retention(path, key_file, **retention):
    """Return a file handler that seals when it is told to, with its front."""
    integrity = {"origin": ORIGIN, "key": str(key_file)}
    target = AuditFileHandler(path, maxBytes=1_000, retention=retention, integrity=integrity)
    target.integrity._start = lambda function, name: True
    return target, AuditHandler(target=target, call_later=lambda seconds, function: function())


def names_of(path):
    return sorted(entry.name for entry in path.parent.iterdir() if entry.name.startswith(path.name + ".2"))


def test_retention_deletes_sealed_segments_only_and_names_their_leaves(path, key_file):
    """A segment that is due waits until it is sealed; then the event names its leaves, and it verifies as PRUNED."""
    target, handler = with_retention(path, key_file, max_segments=1)
    record(handler, 20)
    kept = names_of(path)
    assert len(kept) > 2

    # Not sealed, so nothing goes.
    later(target)
    record(handler, 1)
    assert set(kept) <= set(names_of(path))

    target.integrity.seal_now()
    later(target)
    record(handler, 1)
    assert not set(kept[:2]) & set(names_of(path))
    handler.close()

    report = verified(path, policy=policy_of(key_file))
    assert set(codes(report)) == {"PRUNED"}
    assert report.exit_code == 0
    assert report.pruned > 0


def later(target):
    """Let the grace of a rollover and the interval of retention pass."""
    now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=5)
    target._pruning._clock = lambda: now
    target._pruning.check_at = 0.0
    target._active.check_at = 0.0


def test_segment_removed_by_hand_is_not_covered_by_retention_that_keeps_it(path, key_file):
    """A segment that nobody announced is MISSING_SEGMENT, though older ones were deleted by retention."""
    target, handler = with_retention(path, key_file, max_segments=4)
    record(handler, 40)
    target.integrity.seal_now()
    later(target)
    record(handler, 1)
    rolled = names_of(path)
    assert len(rolled) in (4, 5)
    (path.parent / rolled[2]).unlink()
    handler.close()
    report = verified(path, policy=policy_of(key_file))
    assert codes(report)["MISSING_SEGMENT"] == 1
    assert report.exit_code == 1


def test_pruned_line_held_elsewhere_stays_provable(path, key_file):
    """The hashes stay, so an old proof and a new one of a deleted line verify."""
    from structlog_audit.integrity.merkle import HashFiles, inclusion_proof, leaf_hash, verify_inclusion

    target, handler = with_retention(path, key_file, max_segments=1)
    record(handler, 20)
    first = (path.parent / names_of(path)[0]).read_bytes().split(b"\n")[0]
    target.integrity.seal_now()
    later(target)
    record(handler, 1)
    handler.close()
    checkpoint = Checkpoint.parse(read_checkpoint(f"{path}.seal").text)
    with HashFiles(f"{path}.seal") as hashes:
        proof = inclusion_proof(0, checkpoint.size, hashes.read)
    assert verify_inclusion(leaf_hash(first), 0, checkpoint.size, proof, checkpoint.root)


def test_policy_of_the_tests_is_of_the_test_key():
    """The key of these tests is the one of the published vectors."""
    assert POLICY.logs == (parse_key(str(SIGNER.key)),)
