"""What begins anew in a forked child."""

from __future__ import annotations

import os

from structlog_audit.recording import fork_safety


class Owner:
    renewed = False

    def __init__(self, fails):
        self.fails = fails
        fork_safety.register_fork_reset(self)

    def after_fork(self):
        self.renewed = True
        if self.fails:
            raise PermissionError(13, "the folder secret")


def test_one_that_cannot_begin_anew_keeps_no_other_from_it(capfd):
    """In a child every owner is renewed, whichever of them fails; that is said on stderr."""
    owners = [Owner(fails) for fails in (False, True) * 5]
    pid = os.fork()
    if not pid:
        os._exit(not all(owner.renewed for owner in owners))
    assert os.waitpid(pid, 0)[1] == 0
    error = capfd.readouterr().err
    assert error.count("Owner could not be reset in a forked process (PermissionError: [Errno 13]") == 5
    assert not any(owner.renewed for owner in owners)


def test_forks_are_counted_in_the_child():
    """A child is one generation further than its parent."""
    before = fork_safety.fork_generation()
    pid = os.fork()
    if not pid:
        os._exit(fork_safety.fork_generation() != before + 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert fork_safety.fork_generation() == before
