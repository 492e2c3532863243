"""Several archives as one source, and the verdict on their completeness: that of the files, as far as these are in sight."""

from __future__ import annotations

import datetime as dt
import random
import shutil

import pytest
from archives import all_ids, compacted, write_closed
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from strategies import examples
from trail_files import at, id_of, ids, line_of, write_trail

from structlog_audit import open_trail
from structlog_audit.archive import evidence as evidence_module
from structlog_audit.archive import merge, open_archive, prune
from structlog_audit.query.completeness import Reason, Verdict

WRITERS = [f"001{0x80000001 + number:08x}" for number in range(3)]
LATER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = 86_400


def line(number, second, *, writer=0, operation="STORE", **members):
    """Return a line of one of `WRITERS`."""
    made = line_of(number, second, **members).replace(WRITERS[0].encode(), WRITERS[writer].encode())
    return made.replace(b'"operation":"STORE"', b'"operation":"%b"' % operation.encode())


def trail_event(number, second, operation, *, writer=0, **metadata):
    """Return the line of an event of the library about the trail."""
    members = {"pid": 1, "host": "web1", **metadata}
    return line(number, second, writer=writer, operation=operation, kind="trail", metadata=members)


def life(first, last, *, writer=0, begin=0.0):
    """Return the lines of a writer, one a second, from "opened" to "closed"."""
    middle = [line(number, begin + number, writer=writer) for number in range(first + 1, last)]
    opened = trail_event(first, begin + first, "opened", writer=writer)
    return [opened, *middle, trail_event(last, begin + last, "closed", writer=writer)]


def history(chance):
    """Return lines of several writers in the order of commit, some of them lost, repeated, moved, or not events."""
    lives = [
        life(0, chance.randrange(2, 14), writer=writer, begin=chance.randrange(4)) for writer in range(len(WRITERS))
    ]
    lines = []
    while any(lives):
        lines.append(chance.choice([life for life in lives if life]).pop(0))
    for _ in range(chance.randrange(4)):
        place = chance.randrange(len(lines))
        change = chance.choice(["lose", "lose several", "repeat", "move", "junk", "torn", "gap", "part"])
        if change.startswith("lose"):
            del lines[place : place + (1 if change == "lose" else 4)]
        elif change == "repeat":
            lines.insert(place + 1, lines[place])
        elif change == "move":
            lines.append(lines.pop(place))
        elif change == "junk":
            lines.insert(place, b"junk\n")
        elif change == "torn":
            lines.insert(place, lines[place][:-20] + b"\n")
        elif change == "gap":
            lines.insert(place, line(900, place, operation="gap", kind="gap", metadata={"lost": 3}))
        elif change == "part" and lines[place].endswith(b"}\n"):
            lines.insert(place + 1, line_of(901, place, part_of=lines[place], entry_ids=["x"]))
        if not lines:
            return history(chance)
    return lines


def findings(verdict):
    """Return what a verdict says is missing and in doubt, without the name of the trail."""
    found = [item.to_dict() for item in (*verdict.missing, *verdict.doubts)]
    return [{name: value for name, value in members.items() if name != "trail"} for members in found]


@pytest.fixture(params=["row by row", "run by run"])
def reading_of_rows(request, monkeypatch):
    """Both ways in which rows are read: small ranges one by one, large ones without the inner rows of runs."""
    monkeypatch.setattr(evidence_module, "_FEWEST_FOR_RUNS", 0 if request.param == "run by run" else 5_000)


@settings(
    max_examples=examples(3),
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(seed=20_313)  # Foreign bytes between events that are out of order.
@example(seed=160_573)  # The oldest segment has no event, so it is not archived.
@example(seed=116_987)  # A line is repeated in front of a part of its event.
@given(seed=st.integers(0, 2**32))
@pytest.mark.usefixtures("reading_of_rows")
def test_verdict_of_an_archive_and_its_live_trail_is_that_of_the_files(tmp_path_factory, seed):
    """For all losses, repetitions and foreign lines: the same losses and doubts, for an open and a closed period."""
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("case")
    lines = history(chance)
    cuts = sorted(chance.choices(range(len(lines) + 1), k=4))
    bounds = [0, *cuts]
    segments = [(10_000 + n, b"".join(lines[bounds[n] : bounds[n + 1]])) for n in range(4)]
    path = write_trail(folder / "logs", *segments, active=b"".join(lines[cuts[-1] :]))
    files = open_trail(path)
    periods = [(None, None), (at(3), at(9)), (None, at(30))]
    expected = [findings(files.completeness(*period)) for period in periods]
    events = all_ids(files)

    compacted(path, folder / "archive")
    if not (folder / "archive").exists():
        return
    with open_archive(folder / "archive", live=path, host="h1") as source:
        # What only queries find would be a further doubt.
        assert [findings(source.completeness(*period)) for period in periods] == expected
        assert source.completeness().source.hosts == files.completeness().source.hosts
        assert all_ids(source) == events
    merge(folder / "archive")
    with open_archive(folder / "archive", live=path, host="h1") as source:
        assert [findings(source.completeness(*period)) for period in periods] == expected


def test_lines_within_a_run_are_not_read(tmp_path):
    """Of the lines of a writer that follow each other, the first and the last are evidence, and each of the library's."""
    lines = [line(number, number) for number in range(1, 40)]
    lines[20:20] = [line(number, 20, writer=1) for number in range(5)]
    path = write_closed(tmp_path / "logs", trail_event(0, 0, "opened") + b"".join(lines))
    compacted(path, tmp_path / "archive")

    with open_archive(tmp_path / "archive") as source, source._view() as view:
        [part] = view._archived
        [trail] = part.snapshot.highs
        rows = list(part.engine.runs(part.snapshot, trail, 0, 1_000))

    assert [(continues, writer, number) for continues, writer, number, *_ in rows] == [
        (False, WRITERS[0], 0),
        (False, WRITERS[1], 0),
        (True, WRITERS[1], 4),
        (True, WRITERS[0], 39),
    ]


@pytest.mark.parametrize("foreign", ["0123", "evt_" + "F" * 32, "evt_" + "f" * 32])
def test_range_with_an_id_of_another_form_is_read_row_by_row(tmp_path, monkeypatch, foreign):
    """Only ids of this library have numbers: a range with others has the verdict of its files."""
    monkeypatch.setattr(evidence_module, "_FEWEST_FOR_RUNS", 0)
    lines = [line(number, number) for number in range(20)]
    lines[7] = lines[7].replace(id_of(lines[7]).encode(), foreign.encode())
    path = write_closed(tmp_path / "logs", b"".join(lines))
    expected = findings(open_trail(path).completeness())
    compacted(path, tmp_path / "archive")

    with open_archive(tmp_path / "archive", live=path, host="h1") as source:
        assert findings(source.completeness()) == expected


@pytest.fixture
def closed_trail(tmp_path):
    """A trail of one writer: numbers 0 to 29 in three closed segments, 30 to 34 beyond them."""
    lines = life(0, 34)
    parts = [b"".join(lines[n : n + 10]) for n in (0, 10, 20)]
    return write_trail(
        tmp_path / "logs", *zip((9.5, 19.5, 29.5), parts, strict=True), (33.5, b"".join(lines[30:34])), active=lines[34]
    )


def test_period_within_an_archive_is_complete_without_its_live_trail(closed_trail, tmp_path):
    """The rows are the evidence; only the time after the last of them is in doubt, with the reason."""
    compacted(closed_trail, tmp_path / "archive", delete_after="0s", now=lambda: LATER)
    with open_archive(tmp_path / "archive") as source:
        assert source.completeness(at(0), at(29)).verdict == Verdict.COMPLETE
        verdict = source.completeness(at(0), at(33))
        until = source.complete_until
    assert verdict.verdict == Verdict.UNKNOWN
    assert [doubt.reason for doubt in verdict.doubts] == [Reason.NOT_ARCHIVED, Reason.NOT_CLOSED]
    assert verdict.sentences()[0] == (
        "The live files of this trail were not read: nothing shows what followed its last archived event, "
        "2025-01-15 10:30:29.000 UTC."
    )
    assert until == {f"h1:{closed_trail}": at(29)}


def test_live_trail_ends_the_doubt_about_what_followed(closed_trail, tmp_path):
    """With the live files in sight the period may reach to their last line; segments that compact deleted are not missing."""
    compacted(closed_trail, tmp_path / "archive", delete_after="0s", now=lambda: LATER)
    with open_archive(tmp_path / "archive", live=closed_trail, host="h1") as source:
        assert source.completeness(at(0), at(34)).verdict == Verdict.COMPLETE
        assert source.complete_until == {f"h1:{closed_trail}": None}


def test_row_that_is_missing_in_an_archive_is_a_loss(closed_trail, tmp_path):
    """An archived trail whose segment was lost before it was archived is incomplete."""
    (closed_trail.parent / sorted(path.name for path in closed_trail.parent.iterdir())[2]).unlink()
    compacted(closed_trail, tmp_path / "archive")
    with open_archive(tmp_path / "archive") as source:
        [missing] = source.completeness(at(0), at(29)).missing
    assert (missing.cause, missing.count, missing.writer) == ("numbers", 10, WRITERS[0])


def test_pruned_days_are_in_doubt_and_not_missing(tmp_path):
    """What prune dropped is known to have been there: the time since then is complete, the time before unknown."""
    lines = life(0, 9, begin=48_595)
    path = write_closed(tmp_path / "logs", b"".join(lines), second=DAY, last=DAY + 100)
    compacted(path, tmp_path / "archive")
    assert 0 < prune(tmp_path / "archive", "1h", now=lambda: at(DAY)) < 10
    midnight = dt.datetime(2025, 1, 16, tzinfo=dt.UTC)
    with open_archive(tmp_path / "archive") as source:
        verdict = source.completeness(at(0), midnight)
        assert (verdict.verdict, verdict.missing) == (Verdict.UNKNOWN, ())
        assert (Reason.ARCHIVE_PRUNED, midnight) in [(doubt.reason, doubt.until) for doubt in verdict.doubts]
        assert source.completeness(midnight, midnight + dt.timedelta(seconds=2)).verdict == Verdict.COMPLETE


def test_pruned_days_are_not_read_from_the_live_trail(tmp_path):
    """What retention dropped from the archive stays out of the answers while the segments still exist, and in doubt."""
    path = write_closed(tmp_path / "logs", line_of(1) + line_of(2, DAY), second=DAY + 10, last=2 * DAY)
    compacted(path, tmp_path / "archive")
    assert prune(tmp_path / "archive", "1h", now=lambda: at(DAY)) == 1
    with open_archive(tmp_path / "archive", live=path, host="h1") as source:
        assert id_of(line_of(1)) not in all_ids(source)
        sentences = source.completeness().sentences()
    assert "The days before 2025-01-16 00:00:00.000 UTC were pruned from the archive." in sentences


def test_live_trail_that_was_never_archived_is_judged_beside_an_archive(closed_trail, tmp_path):
    """Each trail is judged by itself."""
    compacted(closed_trail, tmp_path / "archive")
    other = write_trail(tmp_path / "other", active=b"".join(life(0, 30, writer=1)))
    with open_archive(tmp_path / "archive", live=[closed_trail, other], host="h1") as source:
        assert source.completeness(at(1), at(29)).verdict == Verdict.COMPLETE
        other.write_bytes(b"".join(one for n, one in enumerate(life(0, 30, writer=1)) if n != 7))
        [missing] = source.completeness(at(1), at(29)).missing
    assert (missing.trail, missing.count) == (str(other), 1)


# --- several archives --------------------------------------------------------------------------------------------------------


def answers(source):
    """Return the answers of *source* about all of its events."""
    statistics = source.get_statistics()
    return (
        all_ids(source),
        all_ids(source, newest_first=True),
        source.count_events(),
        {**statistics, "avg_duration_ms": pytest.approx(statistics["avg_duration_ms"])},
        source.get_statistics_by_user(),
        ids(source.query_events(user_id="ann", limit=3)),
    )


@settings(max_examples=examples(3), phases=[Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_archives_that_share_segments_give_each_event_once(tmp_path_factory, seed):
    """For all archives of parts of the same trails, merged or not, and live files: the answers of the files."""
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("case")
    archives = [folder / "a", folder / "b", folder / "c"]
    live = []
    for host in range(chance.choice([1, 2])):
        segments = []
        for n in range(4):
            numbers = range(host * 1_000 + n * 10, host * 1_000 + n * 10 + 5)
            segments.append(
                [line_of(k, k % 1_000, user_id=chance.choice(["ann", "bob"]), duration_ms=k % 7) for k in numbers]
            )
        path = write_closed(folder / f"h{host}", *(b"".join(lines[:3]) for lines in segments), last=90_000 + 10 * host)
        live.append(path)
        files = sorted(folder.joinpath(f"h{host}").glob("*Z"))
        for archive in chance.sample(archives, 3):
            # Each archive sees another part of the trail.
            hidden = chance.sample(files[:4], chance.randrange(3))
            for file in hidden:
                file.rename(file.with_suffix(".hidden"))
            compacted(path, archive, host=f"h{host}", promote=chance.choice([[], ["x"]]))
            for file in hidden:
                file.with_suffix(".hidden").rename(file)
            number = chance.randrange(4)
            late = segments[number][3:]
            segments[number] = segments[number][:3]
            with files[number].open("ab") as appended:
                appended.write(b"".join(late))
            if chance.random() < 0.5 and archive.exists():
                merge(archive)

    expected = answers(open_trail(*live))
    existing = [archive for archive in archives if archive.exists()]
    with open_archive(*existing, live=live) as source:
        found = answers(source)
    # Late lines are archived after those of the next segment, so the order may be another one.
    assert found[1] == found[0][::-1]
    assert sorted(found[0]) == sorted(expected[0])
    assert found[2] == expected[2]
    for name in ("by_operation", "by_user", "by_status", "p95_duration_ms"):
        assert found[3][name] == expected[3][name]
    assert {user: of["by_operation"] for user, of in found[4].items()} == {
        user: of["by_operation"] for user, of in expected[4].items()
    }


def test_copy_of_an_archive_adds_nothing(closed_trail, tmp_path):
    """The same archive twice, under two names, is one."""
    compacted(closed_trail, tmp_path / "archive")
    shutil.copytree(tmp_path / "archive", tmp_path / "copy")
    with open_archive(tmp_path / "archive", tmp_path / "copy") as both, open_archive(tmp_path / "archive") as one:
        assert answers(both) == answers(one)
        assert both.size() == one.size()
        assert both.completeness(at(0), at(29)).verdict == Verdict.COMPLETE
        assert [event.event_id for event in both.page(limit=4).events] == all_ids(one)[1:5]


def test_day_that_one_archive_pruned_is_read_from_another(tmp_path):
    """The archive with most of a segment provides it, except for the days that it dropped."""
    path = write_closed(tmp_path / "logs", line_of(1) + line_of(2, DAY), second=DAY + 10, last=2 * DAY)
    compacted(path, tmp_path / "archive")
    shutil.copytree(tmp_path / "archive", tmp_path / "copy")
    assert prune(tmp_path / "archive", "1h", now=lambda: at(DAY)) == 1
    expected = [id_of(line_of(1)), id_of(line_of(2, DAY))]
    for names in (("archive", "copy"), ("copy", "archive")):
        with open_archive(*(tmp_path / name for name in names)) as source:
            assert all_ids(source) == expected


def test_archives_of_two_hosts_are_merged_by_time(tmp_path):
    """One query over the archives of several hosts, and the live trail of a third one."""
    for host, numbers in (("h1", (1, 4, 7)), ("h2", (2, 5, 8))):
        path = write_closed(tmp_path / host, b"".join(map(line_of, numbers)))
        compacted(path, tmp_path / f"archive-{host}", host=host)
    third = write_trail(tmp_path / "h3", active=line_of(3) + line_of(6))
    with open_archive(tmp_path / "archive-h1", tmp_path / "archive-h2", live=third) as source:
        assert all_ids(source) == [id_of(line_of(number)) for number in range(1, 9)]
