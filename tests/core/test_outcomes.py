"""What refusals mean: by scope, not by the first digit."""

from datetime import UTC, datetime, timedelta

import pytest

from mcs.core.outcomes import Attempt, Scope, Stage, cut_off, ends_connection, judge
from mcs.core.retries import give_up_at, next_attempt
from mcs.core.smtp import Reply

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
FIRST = Attempt(number=1, at=NOW, give_up_at=NOW + timedelta(hours=24), die=0.5)


@pytest.mark.parametrize(
    ("stage", "reply", "scope", "state"),
    [
        (Stage.RCPT, "550 5.1.1 User unknown", Scope.ADDRESS, "failed"),
        (Stage.RCPT, "550 No such user here", Scope.ADDRESS, "failed"),
        (Stage.RCPT, "556 5.1.10 Recipient address has null MX", Scope.ADDRESS, "failed"),
        (Stage.DOT, "550 5.1.1 The email account does not exist", Scope.ADDRESS, "failed"),
        (Stage.RCPT, "552 5.2.2 Over quota", Scope.DOUBTFUL, "failed"),
        (Stage.RCPT, "550 5.2.1 Mailbox disabled", Scope.DOUBTFUL, "failed"),
        (Stage.RCPT, "550 Requested action not taken", Scope.DOUBTFUL, "failed"),
        (Stage.RCPT, "554 5.7.1 Rejected by policy", Scope.MESSAGE, "failed"),
        (Stage.DOT, "554 5.6.0 Bad content", Scope.MESSAGE, "failed"),
        (Stage.DOT, "550 5.7.1 Looks like spam", Scope.MESSAGE, "failed"),
        (Stage.DOT, "552 5.3.4 Too big", Scope.MESSAGE, "failed"),
        (Stage.RCPT, "554 5.7.1 Relay access denied", Scope.SENDER, "pending"),
        (Stage.MAIL, "530 5.7.0 Authentication required", Scope.SENDER, "pending"),
        (Stage.MAIL, "553 5.7.1 Sender address rejected", Scope.SENDER, "pending"),
        (Stage.DOT, "550 5.7.26 Unauthenticated sender", Scope.SENDER, "pending"),
        (Stage.DOT, "550 5.7.515 Access denied, DMARC", Scope.SENDER, "pending"),
        (Stage.MAIL, "421 4.3.2 Shutting down", Scope.RATE, "pending"),
        (Stage.DOT, "421 4.7.28 Too fast", Scope.RATE, "pending"),
        (Stage.DOT, "452 4.3.1 Out of space", Scope.RATE, "pending"),
        (Stage.RCPT, "450 4.2.0 Greylisted", Scope.TRANSIENT, "pending"),
        (Stage.RCPT, "452 4.5.3 Too many recipients", Scope.TRANSIENT, "pending"),
        (Stage.DOT, "451 4.3.0 Local error", Scope.TRANSIENT, "pending"),
    ],
)
def test_scopes(stage: Stage, reply: str, scope: Scope, state: str) -> None:
    verdict = judge(stage, Reply(int(reply[:3]), (reply[4:],)), FIRST)
    assert (verdict.scope, verdict.state) == (scope, state)
    assert verdict.reason


def test_what_was_accepted_is_never_judged_as_a_refusal() -> None:
    with pytest.raises(AssertionError):
        judge(Stage.DOT, Reply(250, ("2.0.0 Ok: queued as 4F1",)), FIRST)


@pytest.mark.parametrize(
    ("attempts", "minutes"),
    [(1, 1), (2, 5), (3, 15), (4, 30), (5, 60), (6, 120), (7, 240), (50, 240)],
)
def test_tries_are_further_and_further_apart(attempts: int, minutes: int) -> None:
    assert next_attempt(NOW, attempts, 0.5) == NOW + timedelta(minutes=minutes)
    assert next_attempt(NOW, attempts, 0.0) == NOW + timedelta(minutes=minutes * 0.8)
    assert next_attempt(NOW, attempts, 1.0) == NOW + timedelta(minutes=minutes * 1.2)


def test_trying_ends_after_a_day_and_never_past_the_last_day() -> None:
    assert give_up_at(NOW, NOW + timedelta(days=5)) == NOW + timedelta(days=1)
    assert give_up_at(NOW, NOW + timedelta(hours=2)) == NOW + timedelta(hours=2)
    assert give_up_at(NOW, NOW - timedelta(hours=2)) == NOW + timedelta(days=1)
    late = Attempt(number=6, at=NOW, give_up_at=NOW + timedelta(minutes=90), die=0.5)
    verdict = judge(Stage.RCPT, Reply(450, ("Greylisted",)), late)
    assert (verdict.state, verdict.reason) == (
        "failed",
        "gave up after 6 tries: the mail server asks to try later",
    )


@pytest.mark.parametrize(
    ("dot_left", "on_doubt", "state"),
    [
        (False, "hold", "pending"),
        (False, "resend", "pending"),
        (True, "hold", "in_doubt"),
        (True, "resend", "pending"),
    ],
)
def test_a_connection_that_is_cut(dot_left: bool, on_doubt: str, state: str) -> None:
    assert cut_off(dot_left, on_doubt, FIRST).state == state


@pytest.mark.parametrize(
    ("reply", "ends"),
    [
        ("421 4.4.2 Maximum message count per session reached", True),
        ("421 too many messages in this connection", True),
        ("421 Service not available, closing transmission channel", True),
        ("421 4.3.2 Service shutting down", False),
        ("421 4.7.28 Too fast", False),
        ("450 4.2.0 Greylisted", True),
        ("452 4.5.3 Too many messages in this session", True),
        ("451 4.7.28 Too fast", False),
        ("550 5.7.1 Not you", False),
        ("250 2.1.0 OK", False),
    ],
)
def test_whether_only_this_connection_has_carried_enough(reply: str, ends: bool) -> None:
    assert ends_connection(Reply(int(reply[:3]), (reply[4:],))) is ends
