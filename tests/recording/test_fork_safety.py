"""Reset of inherited state in a forked child."""

from __future__ import annotations

import os

from structlog_audit.recording import fork_safety


class Owner:
    was_reset = False

    def __init__(self, fails):
        self.fails = fails
        fork_safety.register_fork_reset(self)

    def after_fork(self):
        self.was_reset = True
        if self.fails:
            raise PermissionError(13, "the folder secret")


def test_an_owner_that_fails_does_not_stop_the_others(capfd):
    """In a child every owner is reset, although some fail; each failure is reported on stderr."""
    owners = [Owner(fails) for fails in (False, True) * 5]
    pid = os.fork()
    if not pid:
        os._exit(not all(owner.was_reset for owner in owners))
    assert os.waitpid(pid, 0)[1] == 0
    error = capfd.readouterr().err
    assert error.count("Owner could not be reset in a forked process (PermissionError: [Errno 13]") == 5
    assert not any(owner.was_reset for owner in owners)


def test_the_generation_of_a_child_is_one_higher():
    """The fork generation counts the forks since the first process."""
    before = fork_safety.fork_generation()
    pid = os.fork()
    if not pid:
        os._exit(fork_safety.fork_generation() != before + 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert fork_safety.fork_generation() == before
