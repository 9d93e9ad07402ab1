"""The circuit breaker: whether an emailer may go on, judged by how its letters fare in a row.

Refusals of an address are that address's affair. What this counts is what would befall whoever
comes next: a server that ends the connection in the middle of each message leaves one after the
other in doubt, and one that refuses the message itself refuses it to everybody.

The sentences for people are here, too: what happened, what became of those it happened to, and what
to do. Of what the server said they keep as much as a notice has room for.
"""

from mcs.core.outcomes import Scope
from mcs.core.words import cut

# A server that restarts cuts all connections at once, and then works: that is one cut.
MOST_CUTS = 5
# "Not this mailbox" in so long a row is about us: a blocklist, say, that uses no better code.
MOST_REFUSALS = {Scope.MESSAGE: 10, Scope.DOUBTFUL: 50}
# What the columns for it hold.
LONGEST_NOTICE = 500


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

    def failed(self, scope: Scope | None, cuts_before: int, said: str = "") -> str:
        """A letter failed that was begun at ``cuts_before`` cuts; the server ``said`` why.

        Letters under way together are cut together, which counts once. Returns a sentence for a
        person when it is time to stop, else nothing.
        """
        if scope is Scope.CUT and cuts_before == self.cuts:
            self.cuts += 1
            if self.cuts >= MOST_CUTS:
                return _notice(_CUT, said, self.cuts)
        if scope in MOST_REFUSALS:
            self._refusals[scope] += 1
            if self._refusals[scope] >= MOST_REFUSALS[scope]:
                return _notice(_REFUSED[scope], said, self._refusals[scope])
        return ""


def refused_sender(said: str) -> str:
    """What to tell when the server refuses whom the message is from."""
    return _notice(_SENDER, said)


def refused_login(said: str) -> str:
    """What to tell when the server lets us send nothing at all: its login, or its TLS."""
    return _notice(_LOGIN, said)


def _notice(sentences: str, said: str, number: int = 0) -> str:
    room = LONGEST_NOTICE - len(sentences.format(said="", number=number))
    return sentences.format(said=cut(said, room), number=number)


_SENDER = (
    "The mail server refuses this sender: {said} Nobody was marked failed by this. Change the"
    " campaign’s From address, or have the provider allow it for the login that MCS uses"
    " (MAIL_USERNAME); then resume."
)
_LOGIN = (
    "The mail server lets MCS send nothing: {said} Nobody was marked failed by this. Correct the"
    " mail settings (MAIL_USERNAME, MAIL_PASSWORD, MAIL_USE_TLS) and restart MCS, or have the"
    " provider mend it; then resume."
)
_CUT = (
    "The mail server ended the connection in the middle of {number} messages in a row, at last:"
    " {said} Those that may have arrived are in doubt, the others are still to go. Find out why,"
    " settle those in doubt, then resume."
)
_AGAIN = (
    " These, and any that were under way beside them, are marked failed. Change what it objects to,"
    " then resume: “Retry the failed” sends them again."
)
_REFUSED = {
    Scope.MESSAGE: "The mail server refused the message itself {number} times in a row, at last:"
    " {said} It may be its content, or a policy or blocklist against the sender." + _AGAIN,
    Scope.DOUBTFUL: "The mail server refused {number} recipients in a row without saying that there"
    " is no such address, at last: {said} It may be us whom it refuses, as by a blocklist."
    + _AGAIN,
}
