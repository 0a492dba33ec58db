"""How a bounded time is spent: rounds spread over the tests, round robin."""
import time


class TimeBudget:
    """Minutes for a whole command; None is without end."""

    def __init__(self, minutes=None, now=time.monotonic):
        self._now = now
        self._end = now() + 60 * minutes if minutes else None

    def left(self):
        """Seconds left; None: without end."""
        return None if self._end is None else max(self._end - self._now(), 0)

    def affords(self, seconds):
        left = self.left()
        return left is None or seconds <= left

    def bound(self, timeout):
        """The timeout of one run, cut to what is left."""
        left = self.left()
        return timeout if left is None else min(timeout, left)


def run_rounds(tests, rounds, budget, after_round):
    """Round 1 of every test, then round 2 of every test, ... A round that does not fit into the
    time left is left out, and the shorter ones of other tests go on.

    A test has expected_seconds() and run_round(number), and may raise nothing of its own.
    after_round() is called after each, so that nothing measured is lost."""
    for number in range(rounds):
        done = False
        for test in tests:
            if not budget.affords(test.expected_seconds()):
                continue
            test.run_round(number)
            done = True
            after_round()
        if not done:
            return number
    return rounds
