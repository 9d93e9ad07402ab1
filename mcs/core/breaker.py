"""The circuit breaker: whether an emailer may go on, judged by how its letters fare in a row.

Refusals of an address are that address's affair. What this counts is what would befall whoever
comes next: a server that ends the connection in the middle of each message leaves one after the
other in doubt, and one that refuses the message itself refuses it to everybody.
"""

from mcs.core.outcomes import Scope

# A server that restarts cuts all connections at once, and then works: that is one cut.
MOST_CUTS = 5
# "Not this mailbox" in so long a row is about us: a blocklist, say, that uses no better code.
MOST_REFUSALS = {Scope.MESSAGE: 10, Scope.DOUBTFUL: 50}


class Breaker:
    """One emailer's run of failures. ``cuts`` is what SQL remembers of it between two workers."""

    def __init__(self, cuts: int = 0) -> None:
        self.cuts = cuts
        self._refusals = dict.fromkeys(MOST_REFUSALS, 0)

    @property
    def on_trial(self) -> bool:
        """Whether to send one letter at a time, until a server accepts one."""
        return self.cuts > 0

    def accepted(self) -> None:
        """A server took a letter: all is well."""
        self.cuts = 0
        self._refusals = dict.fromkeys(MOST_REFUSALS, 0)

    def failed(self, scope: Scope | None, cuts_before: int) -> str:
        """A letter failed that was begun at ``cuts_before`` cuts.

        Letters under way together are cut together, which counts once. Returns a sentence for a
        person when it is time to stop, else nothing.
        """
        if scope is Scope.CUT and cuts_before == self.cuts:
            self.cuts += 1
            if self.cuts >= MOST_CUTS:
                return (
                    f"The mail server ended the connection in the middle of {self.cuts} messages"
                    " in a row. Find out why, look at the messages in doubt, then resume."
                )
        if scope in MOST_REFUSALS:
            self._refusals[scope] += 1
            if self._refusals[scope] >= MOST_REFUSALS[scope]:
                return _REFUSED[scope].format(self._refusals[scope])
        return ""


_REFUSED = {
    Scope.MESSAGE: "The mail server refused the message itself {} times in a row. Read its answer"
    " below, change what it objects to, then resume.",
    Scope.DOUBTFUL: "The mail server refused {} recipients in a row, so it may be us whom it"
    " refuses. Read its answer below, then resume.",
}
