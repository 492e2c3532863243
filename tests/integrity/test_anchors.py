"""Tests of `structlog_audit.integrity.anchors`: checkpoints in the hands of others, beside an application that never waits."""

import hashlib
import logging
import logging.handlers
import os
import queue
import threading

import pytest
from seals import ORIGIN, POLICY, make_trail, note_of, verified
from test_timestamps import granted
from test_witness import Log
from witnesses import NO_ANSWER, ReferenceWitness, witness_signer

from structlog_audit import AuditHandler, AuditTypeError, AuditValueError
from structlog_audit.integrity.anchors import (
    CHECKPOINTS_LOGGER,
    LONGEST_BACKOFF_SECONDS,
    WITNESS_SECONDS,
    Anchors,
    read_states,
)
from structlog_audit.integrity.notes import parse_note
from structlog_audit.integrity.standalone.verify_trail import Policy, notes_in
from structlog_audit.integrity.submission import SubmissionError
from structlog_audit.integrity.timestamps import TimestampAuthority
from structlog_audit.integrity.witness import Witness

NAME = "witness witness.example/w1"


class Rig:
    """Anchors with a clock that stands still, and without a thread.

    Attributes:
        references: The witnesses.
        notices: What was recorded in the trail.
    """

    def __init__(self, folder, *references, authority=None):
        self.folder = folder
        self.references = references
        self.log = Log()
        self.now = 1_000.0
        self.notices = []
        self.stamped = []
        self.anchors = self.open(authority)

    def open(self, authority=None):
        """Return anchors as a new process has them."""
        witnesses = [
            Witness.from_config("place", reference.config, post=reference.post) for reference in self.references
        ]
        self.anchors = Anchors(
            str(self.folder),
            witnesses,
            authority,
            notify=lambda operation, **metadata: self.notices.append((operation, metadata)),
            clock=lambda: self.now,
            start=lambda run: None,
        )
        return self.anchors

    def submit(self, size, log=None):
        log = log or self.log
        note = log.note(size)
        self.anchors.after_checkpoint(str(note).encode(), log.proofs)
        self.anchors.submit_due()
        return note

    def cosigned(self):
        path = self.folder / "cosigned"
        return [parse_note(text.encode()) for text in notes_in(str(path), ORIGIN)] if path.exists() else []


@pytest.fixture
def reference():
    return ReferenceWitness()


@pytest.fixture
def rig(tmp_path, reference):
    return Rig(tmp_path, reference)


@pytest.fixture
def shipped():
    """The records that a handler on the logger of checkpoints gets."""
    logger = logging.getLogger(CHECKPOINTS_LOGGER)
    records = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(records)
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel("INFO")
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


def messages_in(records):
    return [records.get_nowait().getMessage() for _ in range(records.qsize())]


def test_cosigned_checkpoint_satisfies_the_policy_of_the_verifier(rig, reference):
    """The file of cosigned checkpoints has the note with both signatures, which a policy with a quorum accepts."""
    note = rig.submit(5)
    (cosigned,) = rig.cosigned()
    policy = Policy(POLICY.logs, {"w": reference.signer.key}, {}, "w")
    assert policy.check(cosigned)[1]
    assert cosigned.signatures[:1] == note.signatures
    assert (rig.folder / "cosigned").read_text() == str(cosigned)


def test_each_checkpoint_is_a_record_whose_message_is_the_note(rig, shipped):
    """A handler on the logger gets every new checkpoint once, however often the anchors are due."""
    notes = [rig.submit(size) for size in (3, 4, 5)]
    rig.anchors.submit_due()
    assert messages_in(shipped) == [str(note) for note in notes]


@pytest.mark.parametrize("how", ["level", "handler", "disabled", "logging.disable"])
def test_levels_of_the_logger_and_its_handlers_count(rig, shipped, how):
    """A logger or handler that is set to higher levels or disabled gets no checkpoint, as with any logger."""
    logger = logging.getLogger(CHECKPOINTS_LOGGER)
    if how == "level":
        logger.setLevel("WARNING")
    elif how == "handler":
        logger.handlers[0].setLevel("WARNING")
    elif how == "disabled":
        logger.disabled = True
    else:
        logging.disable(logging.INFO)
    try:
        rig.submit(3)
    finally:
        logger.disabled = False
        logging.disable(logging.NOTSET)
    assert messages_in(shipped) == []


def test_checkpoints_do_not_reach_an_audit_handler_at_the_root(rig, tmp_path):
    """An audit handler that records all libraries does not record checkpoints: each would cause the next."""
    root = logging.getLogger()
    handler = AuditHandler(filename=tmp_path / "audit.jsonl")
    root.addHandler(handler)
    level = root.level
    root.setLevel("INFO")
    try:
        rig.submit(3)
        logging.getLogger("another").info("STORE")
        assert handler.count_events() == 1
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


def test_witnesses_get_the_newest_checkpoint_at_their_pace(rig, reference):
    """Checkpoints between two submissions are left out: the next one has the newest."""
    for size in (3, 4, 5, 6):
        rig.submit(size)
    assert [reference.latest.size, len(reference.requests)] == [3, 1]
    rig.now += WITNESS_SECONDS
    rig.anchors.submit_due()
    assert [reference.latest.size, len(reference.requests)] == [6, 2]


def test_same_checkpoint_is_not_submitted_twice(rig, reference):
    """An idle trail causes no requests."""
    rig.submit(3)
    rig.now += 10 * WITNESS_SECONDS
    rig.submit(3)
    assert len(reference.requests) == 1


def test_failures_are_counted_and_retried_with_growing_delays(rig, reference):
    """While a witness fails, each retry comes later, up to a bound, and the first success ends that."""
    reference.faults = [NO_ANSWER] * 8
    delays = []
    for size in range(3, 11):
        rig.submit(size)
        (due,) = {anchor.due for anchor in rig.anchors._anchors if anchor.name == NAME}
        delays.append(due - rig.now)
        rig.now = due
    assert delays == [10, 20, 40, 80, 160, 300, 300, 300]
    assert max(delays) == LONGEST_BACKOFF_SECONDS

    state = rig.anchors.states()[NAME]
    assert (state.failures, state.size, state.error) == (8, 0, str(NO_ANSWER))
    rig.submit(11)
    assert (state.failures, state.size, state.error) == (8, 11, None)


def test_failing_checkpoint_is_retried_without_a_new_one(rig, reference):
    """If the trail is idle after a failure, the same checkpoint is submitted again."""
    reference.faults = [NO_ANSWER]
    rig.submit(3)
    rig.now += WITNESS_SECONDS
    rig.anchors.submit_due()
    assert reference.latest.size == 3


def test_quorum_is_on_one_checkpoint_after_a_witness_failed(tmp_path):
    """A witness that recovers gets the same checkpoints as the others again."""
    references = [ReferenceWitness(witness_signer(number)) for number in (1, 2)]
    rig = Rig(tmp_path, *references)
    references[1].faults = [NO_ANSWER, NO_ANSWER]
    for size in range(3, 20):
        rig.submit(size)
        rig.now += 7
    sizes = [reference.latest.size for reference in references]
    assert sizes[0] == sizes[1] > 10
    assert [len(note.signatures) for note in rig.cosigned()] == [3]


def test_older_checkpoint_stays_while_more_witnesses_have_cosigned_it(tmp_path):
    """If a witness is gone, the newest checkpoint comes first, and the last one that both have cosigned stays."""
    references = [ReferenceWitness(witness_signer(number)) for number in (1, 2)]
    rig = Rig(tmp_path, *references)
    for size in (3, 4, 5, 6):
        rig.submit(size)
        rig.now += WITNESS_SECONDS
        references[1].faults = [NO_ANSWER] * 2
    sizes = [(note.text.split("\n")[1], len(note.signatures)) for note in rig.cosigned()]
    assert sizes == [("6", 2), ("3", 3)]


def test_state_is_taken_over_by_the_next_process(rig, reference):
    """A new process begins with the size that the witness has, and needs one request."""
    rig.submit(5)
    rig.open()
    rig.submit(9)
    assert reference.requests[-1].startswith(b"old 5\n")
    assert len(reference.requests) == 2
    assert read_states(str(rig.folder))[NAME].size == 9


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b"\xff", b'{"witness x": {"size": "many"}}'])
def test_damaged_state_is_taken_for_none(rig, reference, content):
    """A file of states that cannot be read costs a request, and nothing else."""
    rig.submit(5)
    (rig.folder / "anchors").write_bytes(content)
    (rig.folder / "cosigned").write_bytes(content)
    rig.open()
    rig.submit(9)
    assert [request.partition(b"\n")[0] for request in reference.requests[1:]] == [b"old 0", b"old 5"]
    assert [note.text.split("\n")[1] for note in rig.cosigned()] == ["9"]


@pytest.mark.parametrize(("prefix", "size", "code"), [(b"", 4, "ROLLED_BACK"), (b"other", 12, "FORKED")])
def test_refusal_is_loud_and_recorded_once(rig, capsys, prefix, size, code):
    """A refusal is on stderr, in the trail and in the state, once for each history, also across processes."""
    rig.submit(9)
    rewritten = Log(prefix)
    for _ in range(2):
        rig.open()
        for _ in range(2):
            rig.submit(size, rewritten)
            rig.now += LONGEST_BACKOFF_SECONDS

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"structlog-audit: {code}: {NAME} refused a checkpoint of {ORIGIN}: ")
    ((operation, metadata),) = rig.notices
    assert operation == "checkpoint refused"
    assert metadata == {"anchor": NAME, "code": code, "size": size, "known_size": 9}
    assert read_states(str(rig.folder))[NAME].refused == code
    assert rig.cosigned()[0].text.split("\n")[1] == "9"


def test_checkpoint_that_another_process_has_overtaken_is_no_roll_back(rig, reference, capsys):
    """After a change of the sealing process, the last checkpoint of the former one may be late, and is left out."""
    early = str(rig.log.note(5)).encode()
    late = rig.log.note(9)
    rig.submit(9)
    (rig.folder / "checkpoint").write_text(str(late))

    former = rig.open()
    former.after_checkpoint(early, rig.log.proofs)
    former.submit_due()
    former.submit_due()
    assert len(reference.requests) == 2
    assert (former.states()[NAME].refused, former.states()[NAME].failures) == (None, 0)
    assert (rig.notices, capsys.readouterr().err) == ([], "")

    (rig.folder / "checkpoint").write_text(str(rig.log.note(9)).replace("\n9\n", "\n8\n"))
    rig.open().after_checkpoint(early, rig.log.proofs)
    rig.anchors.submit_due()
    assert rig.anchors.states()[NAME].refused == "ROLLED_BACK"


def test_refusal_stays_in_the_state_while_the_network_fails(rig, reference):
    """An error of the network after a refusal does not hide it."""
    rig.submit(9)
    rig.now += WITNESS_SECONDS
    rig.submit(4, Log())
    reference.faults = [NO_ANSWER]
    rig.now += LONGEST_BACKOFF_SECONDS
    rig.anchors.submit_due()
    assert rig.anchors.states()[NAME].refused == "ROLLED_BACK"


@pytest.mark.parametrize("notify", [None, lambda *_: 1 / 0])
def test_trail_that_cannot_take_the_notice_stops_nothing(tmp_path, reference, notify, capsys):
    """Without a function for notices, or with one that fails, the refusal is on stderr and in the state."""
    rig = Rig(tmp_path, reference)
    rig.submit(9)
    rig.now += WITNESS_SECONDS
    rig.anchors._notify = notify
    rig.submit(4, Log())
    assert "ROLLED_BACK" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("secret"), KeyError("secret")])
def test_any_error_of_the_proofs_is_a_counted_failure(rig, error):
    """Whatever the proofs raise is counted, and described without its content."""
    rig.submit(3)
    rig.now += WITNESS_SECONDS

    def failing(old, new):
        raise error

    rig.anchors.after_checkpoint(str(rig.log.note(9)).encode(), failing)
    rig.anchors.submit_due()
    state = rig.anchors.states()[NAME]
    assert state.failures == 1
    assert type(error).__name__ in state.error
    assert "secret" not in state.error


@pytest.mark.parametrize("note", [b"", b"text\n", b"\xff", b"text\n\n\xe2\x80\x94 name AAAAAAAA\n"])
def test_note_that_is_not_a_checkpoint_is_dropped_aloud(rig, reference, note, capsys):
    """Bytes that are not a checkpoint reach no anchor, and stop none of the later ones."""
    rig.anchors.after_checkpoint(note, rig.log.proofs)
    rig.anchors.submit_due()
    rig.anchors.submit_due()
    assert capsys.readouterr().err.count("was not anchored") == 1
    rig.submit(3)
    assert reference.latest.size == 3


def test_folder_that_cannot_be_written_is_counted(rig, reference):
    """Without its folder, a cosignature counts as a failure, and unsaved states are counted."""
    os.rmdir(rig.folder)
    rig.submit(3)
    assert rig.anchors.unsaved == 1
    state = rig.anchors.states()[NAME]
    assert (state.failures, state.error) == (1, "FileNotFoundError: [Errno 2] No such file or directory")


@pytest.mark.parametrize(("mode", "expected"), [(0o700, 0o600), (0o750, 0o640)])
def test_files_are_as_readable_as_their_folder(rig, mode, expected):
    """A group that may read the seal folder may read the files of the anchors, and nobody else may."""
    rig.folder.chmod(mode)
    rig.submit(3)
    assert {path.stat().st_mode & 0o777 for path in rig.folder.iterdir()} == {expected}
    assert {path.name for path in rig.folder.iterdir()} == {"anchors", "cosigned"}


def test_forked_child_has_nothing_of_its_parent(rig, reference):
    """A child starts without a queue, whatever lock a thread of its parent held, and can submit by itself."""
    rig.submit(3)
    rig.anchors.after_checkpoint(str(rig.log.note(8)).encode(), rig.log.proofs)
    rig.anchors._pid = -1
    rig.anchors._changed.acquire()
    rig.submit(9)
    assert reference.latest.size == 9
    assert reference.requests[-1].startswith(b"old 3\n")


class Threads:
    """Starts threads that the test joins."""

    def __init__(self):
        self.started = []

    def start(self, run):
        thread = threading.Thread(target=run, daemon=True)
        self.started.append(thread)
        thread.start()
        return thread


def test_close_submits_what_is_not_due_yet_and_ends_the_thread(rig, reference):
    """At the end of the application the witness gets the newest checkpoint, and a later checkpoint starts again."""
    threads = Threads()
    rig.anchors._start = threads.start
    log = rig.log
    for size in (3, 4, 5, 9):
        rig.anchors.after_checkpoint(str(log.note(size)).encode(), log.proofs)
    rig.anchors.close(60)
    assert reference.latest.size == 9

    rig.anchors.after_checkpoint(str(log.note(12)).encode(), log.proofs)
    rig.anchors.close(60)
    assert reference.latest.size == 12
    for thread in threads.started:
        thread.join(60)
        assert not thread.is_alive()


def test_caller_does_not_wait_for_a_witness_that_does_not_answer(rig, reference):
    """While a request hangs, further checkpoints are accepted; only the newest waits, and is submitted at the end."""
    hangs, released = threading.Event(), threading.Event()

    def hang(url, content_type, body, seconds):
        hangs.set()
        released.wait(60)
        raise SubmissionError("no answer")

    rig.anchors._witnesses[NAME]._post = hang
    threads = Threads()
    rig.anchors._start = threads.start
    rig.anchors.after_checkpoint(str(rig.log.note(3)).encode(), rig.log.proofs)
    assert hangs.wait(60)
    for size in range(4, 100):
        rig.anchors.after_checkpoint(str(rig.log.note(size)).encode(), rig.log.proofs)
    rig.anchors.close(0)
    assert len(threads.started) == 1
    assert threads.started[0].is_alive()

    rig.anchors._witnesses[NAME]._post = reference.post
    released.set()
    threads.started[0].join(60)
    assert not threads.started[0].is_alive()
    assert reference.latest.size == 99


def test_thread_that_cannot_be_started_loses_nothing(rig, reference):
    """If the system has no thread, the next checkpoint tries again."""
    rig.anchors._start = lambda run: None
    rig.anchors.after_checkpoint(str(rig.log.note(3)).encode(), rig.log.proofs)
    threads = Threads()
    rig.anchors._start = threads.start
    rig.anchors.after_checkpoint(str(rig.log.note(4)).encode(), rig.log.proofs)
    rig.anchors.close(60)
    assert reference.latest.size == 4


def test_configuration_without_members_has_no_anchor(tmp_path):
    """Neither witnesses nor time stamps are required."""
    for config in ({}, {"witnesses": [], "timestamps": None}):
        assert not Anchors.from_config(config, str(tmp_path)).has_any


def test_trail_without_anchors_has_no_thread(tmp_path):
    """Without any anchor, a checkpoint is nothing to do."""
    threads = Threads()
    anchors = Anchors(str(tmp_path), start=threads.start)
    log = Log()
    anchors.after_checkpoint(str(log.note(3)).encode(), log.proofs)
    assert threads.started == []
    anchors.close(60)


def test_configuration_with_a_witness_submits_to_it(tmp_path, reference):
    """The witnesses of a configuration get checkpoints on the thread of the anchors."""
    anchors = Anchors.from_config({"witnesses": [reference.config]}, str(tmp_path), post=reference.post)
    log = Log()
    anchors.after_checkpoint(str(log.note(5)).encode(), log.proofs)
    anchors.close(60)
    assert anchors.has_any
    assert reference.latest.size == 5


GOOD = ReferenceWitness().config


@pytest.mark.parametrize(
    ("config", "error", "reason"),
    [
        (None, AuditTypeError, "expected a mapping with witnesses and timestamps"),
        ({"witness": []}, AuditValueError, "expected witnesses and timestamps, got 'witness'"),
        ({"witnesses": GOOD}, AuditTypeError, "expected a list of mappings"),
        ({"witnesses": "text"}, AuditTypeError, "expected a list of mappings"),
        ({"witnesses": [GOOD, {}]}, AuditValueError, r"\['witnesses'\]\[1\]: expected name, key and url"),
        ({"witnesses": [GOOD, GOOD]}, AuditValueError, "got name witness.example/w1 twice"),
        ({"witnesses": [GOOD, {**GOOD, "name": "w2"}]}, AuditValueError, "got key witness.example/w1"),
        ({"timestamps": "tsa.example"}, AuditValueError, r"\['timestamps'\]='tsa.example': expected an address"),
        ({"timestamps": ["http://tsa.example"]}, AuditTypeError, "expected an address"),
    ],
)
def test_wrong_configurations_are_refused(tmp_path, config, error, reason):
    """A member that is unknown, wrong or given twice raises an error that names its place and what was expected."""
    with pytest.raises(error, match=reason):
        Anchors.from_config(config, str(tmp_path))


def test_time_stamp_is_kept_with_the_checkpoint_that_it_is_of(tmp_path):
    """The two files are the newest stamped checkpoint and the response of the authority."""
    authority = TimestampAuthority("http://tsa.example", post=lambda url, kind, query, seconds: (200, granted(query)))
    rig = Rig(tmp_path, authority=authority)
    note = rig.submit(3)
    assert (tmp_path / "stamped").read_text() == str(note)
    assert hashlib.sha256(str(note).encode()).digest() in (tmp_path / "stamped.tsr").read_bytes()
    assert read_states(str(tmp_path))["time stamps"].size == 3


def test_failed_time_stamp_leaves_no_file(tmp_path):
    """Without a stamp there is no file that could be taken for one; the failure is counted."""
    authority = TimestampAuthority("http://tsa.example", post=lambda *_: (500, b""))
    rig = Rig(tmp_path, authority=authority)
    rig.submit(3)
    assert rig.anchors.states()["time stamps"].error == "status 500"
    assert [path.name for path in tmp_path.iterdir()] == ["anchors"]


def test_verifier_takes_cosignatures_from_their_file(tmp_path, reference):
    """With a quorum, a trail whose newest checkpoint was cosigned a moment ago is intact, and one without is not."""
    sealer = make_trail(tmp_path)
    policy = Policy(POLICY.logs, {"w": reference.signer.key}, {}, "w")
    assert list(verified(sealer.trail, policy=policy).counts) == ["UNANCHORED"]

    size = sealer.tree.size
    anchors = Anchors.from_config({"witnesses": [reference.config]}, str(sealer.folder), post=reference.post)
    anchors.after_checkpoint(str(note_of(size, sealer.tree.root())).encode(), lambda old, new: [])
    anchors.close(60)
    report = verified(sealer.trail, policy=policy)
    assert (report.exit_code, report.anchored) == (0, size)
