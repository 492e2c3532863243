"""Event notices: kept in their order, bounded, and counted."""

from __future__ import annotations

from structlog_audit.trail.writing.notices import MAX_NOTICES, Notice, Notices


def test_notices_are_kept_in_their_order_up_to_the_limit():
    """A notice that finds no room is not kept, and counted as dropped; all are counted by their operation."""
    notices = Notices()
    later = [].append
    assert notices.add("retention", later, segments=["a"], bytes=5)
    for number in range(1, MAX_NOTICES):
        assert notices.add("truncated", bytes_now=number)
    assert not notices.add("truncated", bytes_now=MAX_NOTICES)
    assert not notices.add("replaced")
    assert notices[0] == Notice("retention", {"segments": ["a"], "bytes": 5}, later)
    assert notices[-1] == Notice("truncated", {"bytes_now": MAX_NOTICES - 1}, None)
    assert (len(notices), notices.dropped) == (MAX_NOTICES, 2)
    assert notices.counts == {"retention": 1, "truncated": MAX_NOTICES, "replaced": 1}
    notices.popleft()
    assert notices.add("replaced", unlinked=True)
    assert notices.dropped == 2
