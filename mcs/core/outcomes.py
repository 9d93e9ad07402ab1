"""What a server's refusal is about, and what follows from it.

By scope, not by the first digit: a 550 can be about the address, the message, or ourselves, and
taking one for the other marks good contacts as dead or keeps mailing in vain. Sources: RFC 3463,
RFC 7505 (null MX), Gmail's, Yahoo's and Outlook's bulk sender rules.
"""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from mcs.core.retries import next_attempt
from mcs.core.smtp import Reply


class Scope(StrEnum):
    """What a refusal is about."""

    ADDRESS = "address"  # there is no such mailbox, for good
    DOUBTFUL = "doubtful"  # the mailbox takes nothing now: full, disabled
    MESSAGE = "message"  # this content; the contact is untouched
    SENDER = "sender"  # us: our login, our address, our domain
    RATE = "rate"  # slow down
    TRANSIENT = "transient"  # try again later
    CUT = "cut"  # no reply at all: the connection ended in the middle of a message


class Stage(StrEnum):
    """The command that was answered."""

    LOGIN = "login"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


# Tuples, as is all that is made anew for each message: a frozen dataclass takes thrice as long.
class Verdict(NamedTuple):
    """What one attempt came to: a delivery state, why, and when to try again if pending.

    ``doubted``: it goes again although it may have been accepted.
    """

    state: str
    reason: str = ""
    due_at: datetime | None = None
    scope: Scope | None = None
    doubted: bool = False


class Attempt(NamedTuple):
    """The attempt that is judged: its number from 1, its moment, when trying ends, a draw."""

    number: int
    at: datetime
    give_up_at: datetime
    die: float


_WORDS = {
    Scope.ADDRESS: "there is no such address",
    Scope.DOUBTFUL: "the mailbox does not take mail",
    Scope.MESSAGE: "the message was refused",
    Scope.SENDER: "the mail server refuses this sender",
    Scope.RATE: "the mail server asks to slow down",
    Scope.TRANSIENT: "the mail server asks to try later",
}


def judge(stage: Stage, reply: Reply, attempt: Attempt) -> Verdict:
    """What a refusal means for the delivery."""
    assert not (stage is Stage.DOT and reply.accepts), "what was accepted must not go again"
    about = scope(stage, reply)
    if about is Scope.SENDER:
        # Nobody is marked for what is ours: as soon as it is mended, it goes again.
        return Verdict("pending", _WORDS[about], attempt.at, about)
    if about in (Scope.RATE, Scope.TRANSIENT):
        return again(_WORDS[about], attempt, about)
    return Verdict("failed", _WORDS[about], scope=about)


def again(reason: str, attempt: Attempt, about: Scope | None = Scope.TRANSIENT) -> Verdict:
    """Pending until the next try; failed when that would be after trying ends."""
    due_at = next_attempt(attempt.at, attempt.number, attempt.die)
    if due_at > attempt.give_up_at:
        return Verdict("failed", f"gave up after {attempt.number} tries: {reason}", scope=about)
    return Verdict("pending", reason, due_at, about)


def cut_off(dot_left: bool, on_doubt: str, attempt: Attempt) -> Verdict:
    """The connection ended before the answer to the final dot.

    Had the dot left, nobody can know what the server did with it (RFC 1047).
    """
    if not dot_left:
        return again("the connection ended before the message was complete", attempt, Scope.CUT)
    reason = "the connection ended before the server's answer"
    if on_doubt == "resend":
        verdict = again(reason, attempt, Scope.CUT)
        if verdict.state == "pending":
            return verdict._replace(doubted=True)
    return Verdict("in_doubt", reason, scope=Scope.CUT)


def ends_connection(reply: Reply) -> bool:
    """Whether a refusal of the next sender only says that this connection has carried its share: go
    on with another.

    MailerSend allows 5 messages a connection, Amazon SES a number that it does not tell; most say
    421, some 450 to 452. A server that means all connections says it to the next one, too, where it
    counts, or says so by its enhanced code.
    """
    return reply.code in (421, 450, 451, 452) and reply.enhanced not in _BY_ENHANCED


_BY_ENHANCED = {
    "5.1.1": Scope.ADDRESS,
    "5.1.2": Scope.ADDRESS,
    "5.1.3": Scope.ADDRESS,
    "5.1.6": Scope.ADDRESS,
    "5.1.10": Scope.ADDRESS,
    "5.2.1": Scope.DOUBTFUL,
    "5.2.2": Scope.DOUBTFUL,
    "5.3.4": Scope.MESSAGE,
    "5.7.26": Scope.SENDER,
    "5.7.515": Scope.SENDER,
    "4.7.28": Scope.RATE,
    "4.3.2": Scope.RATE,
}
_UNKNOWN_USER = ("user unknown", "unknown user", "no such user", "does not exist", "null mx")
_RELAY = ("relay access denied", "relaying denied", "not permitted to relay", "authentication req")
_LOGIN_CODES = (530, 534, 535, 538)


def scope(stage: Stage, reply: Reply) -> Scope:
    """What a refusal (4xx or 5xx) is about."""
    said = reply.text.lower()
    if reply.enhanced in _BY_ENHANCED:
        return _BY_ENHANCED[reply.enhanced]
    if reply.code == 421:
        return Scope.RATE
    if reply.code < 500:
        return Scope.RATE if reply.code == 452 and stage is not Stage.RCPT else Scope.TRANSIENT
    if reply.code in _LOGIN_CODES or any(words in said for words in _RELAY):
        return Scope.SENDER
    if stage in (Stage.LOGIN, Stage.MAIL):
        return Scope.SENDER
    if stage is Stage.RCPT:
        return _scope_of_recipient(reply, said)
    return Scope.MESSAGE


def _scope_of_recipient(reply: Reply, said: str) -> Scope:
    if reply.code == 552 or "mailbox full" in said or "over quota" in said:
        return Scope.DOUBTFUL
    if any(words in said for words in _UNKNOWN_USER):
        return Scope.ADDRESS
    if reply.enhanced.startswith("5.7."):
        return Scope.MESSAGE
    # A plain 550 to RCPT is how most servers say that there is no such mailbox; without an
    # enhanced code it counts against this delivery only.
    return Scope.DOUBTFUL
