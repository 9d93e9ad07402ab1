"""Sequences: what is due when, for the people of the stories; and what is refused."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from mcs.core.sequences import (
    GO_ON,
    PASSED,
    PAST_SKIP,
    REMOVED,
    SKIP,
    TOO_LATE,
    UNSCHEDULED,
    BadDefinition,
    Calendar,
    Definition,
    Enrolment,
    Planned,
    Standing,
    action_id,
    calendar,
    check,
    define,
    foresee,
    plan,
    read_action_id,
    revise,
    settle,
)

BERLIN = ZoneInfo("Europe/Berlin")
NOVEMBER = calendar(date(2026, 11, 23), date(2026, 12, 31), BERLIN)
STEPS = [
    define("action1", "send_email", offset="0days"),
    define("action2", "send_email", offset="2days", time="10:00"),
    define("action3", "send_email", offset="4days", time="10:00"),
]


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


def enrolled(at: datetime, subject_id: str = "1") -> Enrolment:
    return Enrolment("shop", "contact", subject_id, 1, at)


def moments(planned: list[Planned]) -> list[str]:
    return [
        one.expected_at.astimezone(BERLIN).strftime("%m-%d %H:%M") if one.expected_at else "waits"
        for one in planned
    ]


@pytest.mark.parametrize(
    ("began", "expected"),
    [
        ("2026-11-23 14:02", ["11-23 14:02", "11-25 10:00", "11-27 10:00"]),
        ("2026-11-24 09:00", ["11-24 09:00", "11-26 10:00", "11-28 10:00"]),
        ("2026-11-27 23:59", ["11-27 23:59", "11-29 10:00", "12-01 10:00"]),
        # Begun before the campaign's first day: counted from its first moment.
        ("2026-11-01 09:00", ["11-23 00:00", "11-25 10:00", "11-27 10:00"]),
    ],
)
def test_each_subject_at_its_own_moments(began: str, expected: list[str]) -> None:
    assert moments(plan(STEPS, NOVEMBER, enrolled(berlin(began)))) == expected


def test_nothing_after_the_last_day() -> None:
    planned = plan(STEPS, NOVEMBER, enrolled(berlin("2026-12-29 12:00")))
    assert [one.reason for one in planned] == ["", "", TOO_LATE]
    last = plan([define("a", "x", offset="0days", time="23:59")], NOVEMBER,
                enrolled(berlin("2026-12-31 08:00")))  # fmt: skip
    assert moments(last) == ["12-31 23:59"]
    assert last[0].reason == ""


@pytest.mark.parametrize(
    ("repeat", "expected"),
    [
        ("every 1week, 3 times", ["11-23 12:00", "11-30 12:00", "12-07 12:00"]),
        ("1week 2 times", ["11-23 12:00", "11-30 12:00"]),
        ("every 10days until 2026-12-05", ["11-23 12:00", "12-03 12:00"]),
        ("Every 10 days, 9 times until 2026-12-03", ["11-23 12:00", "12-03 12:00"]),
        ("every 10days, 2 times or until 2026-12-30", ["11-23 12:00", "12-03 12:00"]),
        # Past the campaign's end, the repetition is over.
        ("every 20days, 9 times", ["11-23 12:00", "12-13 12:00"]),
        ("every 1month until 2036-12-31", ["11-23 12:00", "12-23 12:00"]),
    ],
)
def test_repetition(repeat: str, expected: list[str]) -> None:
    steps = [define("action1", "x", offset="0days", repeat=repeat)]
    planned = plan(steps, NOVEMBER, enrolled(berlin("2026-11-23 12:00")))
    assert moments(planned) == expected
    assert [one.occurrence for one in planned] == list(range(1, len(expected) + 1))


def test_a_month_end_is_kept_over_short_months() -> None:
    year = calendar(date(2027, 1, 1), date(2027, 12, 31), BERLIN)
    steps = [define("bill", "x", offset="0days", repeat="every 1month, 4 times")]
    planned = plan(steps, year, enrolled(berlin("2027-01-31 09:00")))
    assert moments(planned) == ["01-31 09:00", "02-28 09:00", "03-31 09:00", "04-30 09:00"]


def test_a_step_after_another_waits_for_it() -> None:
    steps = [STEPS[0], define("thanks", "x", offset="2days", time="10:00", after="action1")]
    began = berlin("2026-11-23 14:02")
    assert moments(plan(steps, NOVEMBER, enrolled(began))) == ["11-23 14:02", "waits"]
    done = Standing("action1", 1, "completed", began, berlin("2026-11-24 16:00"))
    planned = plan(steps, NOVEMBER, enrolled(began), {("action1", 1): done})
    assert moments(planned) == ["11-23 14:02", "11-26 10:00"]


@pytest.mark.parametrize(
    ("on_failure", "moment", "reason"),
    [("wait", "waits", ""), (SKIP, "waits", "skipped, since action1 failed"),
     (GO_ON, "11-26 10:00", "")],
)  # fmt: skip
def test_what_happens_after_a_failure_is_chosen(on_failure: str, moment: str, reason: str) -> None:
    thanks = define("thanks", "x", offset="2days", time="10:00", after="action1",
                    on_failure=on_failure)  # fmt: skip
    failed = Standing("action1", 1, "failed", None, berlin("2026-11-24 16:00"))
    began = enrolled(berlin("2026-11-23 14:02"))
    planned = plan([STEPS[0], thanks], NOVEMBER, began, {("action1", 1): failed})[1]
    assert moments([planned]) == [moment]
    assert planned.reason == reason


def test_a_withdrawn_step_is_waited_for() -> None:
    thanks = define("thanks", "x", offset="0days", after="action1", on_failure=SKIP)
    withdrawn = Standing("action1", 1, "cancelled", None, NOVEMBER.begins, UNSCHEDULED)
    planned = plan([thanks], NOVEMBER, enrolled(NOVEMBER.begins), {("action1", 1): withdrawn})
    assert planned == [Planned("thanks", 1, None)]


@pytest.mark.parametrize(
    ("given", "part", "words"),
    [
        ({"key": "a b"}, "id", "letters"),
        ({"key": ""}, "id", "letters"),
        ({"key": "a.1"}, "id", "letters"),
        ({"key": "a" * 101}, "id", "100"),
        ({"callback": ""}, "callback", "give its id"),
        ({"callback": None}, "callback", "give its id"),
        ({"offset": "30 moons"}, "offset", "no unit"),
        ({"time": "25:00"}, "time", "24:00"),
        ({"days": "someday"}, "days", "mon-fri"),
        ({"excluded": "soon"}, "excluded", "2026-12-25"),
        ({"on_failure": "cry"}, "on_failure", "wait, skip or go_on"),
        ({"repeat": "every 1month"}, "repeat", "has no end"),
        ({"repeat": "every 0days, 3 times"}, "repeat", "at once"),
        ({"repeat": "every 1month, 0 times"}, "repeat", "1 to 1000"),
        ({"repeat": "every 1month, 1001 times"}, "repeat", "1 to 1000"),
        ({"repeat": "every 2days-3days, 2 times"}, "repeat", "range"),
        ({"repeat": "every 1month until soon"}, "repeat", "2027-06-30"),
        ({"repeat": "now and then, 6 times"}, "repeat", "every 1month"),
        ({"repeat": 6}, "repeat", "not a text"),
        ({"after": "action 1"}, "after", "give the id"),
    ],
)
def test_what_cannot_be_is_refused_in_words(given: dict[str, str], part: str, words: str) -> None:
    fields = {"key": "action1", "callback": "x", "offset": "0days"} | given
    with pytest.raises(BadDefinition) as refused:
        define(**fields)
    assert refused.value.part == part
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([("a", "", ""), ("a", "", "")], "two steps of this id"),
        ([("a", "", "b")], "no step 'b'"),
        ([("a", "", "a")], "break the ring"),
        ([("a", "", "c"), ("b", "", "a"), ("c", "", "b")], "break the ring"),
        ([("a", "every 1day, 3 times", ""), ("b", "", "a")], "such as a.1"),
        ([("a", "every 1day, 3 times", ""), ("b", "", "a.4")], "such as a.1"),
        ([("a", "", ""), ("b", "", "a.2")], "does not repeat"),
        ([("a", "", ""), ("b", "every 1day until 2027-01-01", "a")], "how many times"),
        ([(f"a{n}", "", "") for n in range(201)], "200"),
    ],
)
def test_what_cannot_be_together(steps: list[tuple[str, str, str]], words: str) -> None:
    with pytest.raises(BadDefinition, match=words):
        check([_step(*step) for step in steps])


def test_after_one_occurrence_of_a_repeating_step() -> None:
    steps = [_step("a", "every 1day, 3 times", ""), _step("b", "every 1day, 2 times", "a.2")]
    check(steps)
    done = Standing("a", 2, "completed", None, berlin("2026-11-25 09:00"))
    planned = plan(steps, NOVEMBER, enrolled(NOVEMBER.begins), {("a", 2): done})
    assert moments(planned)[3:] == ["11-25 09:00", "11-26 09:00"]


def _step(key: str, repeat: str, after: str) -> Definition:
    return define(key, "x", offset="0days", repeat=repeat, after=after)


NOW = berlin("2026-11-26 12:00")
MONDAY, LATER = berlin("2026-11-23 12:00"), berlin("2026-11-30 12:00")


@pytest.mark.parametrize(
    ("state", "stood_at", "reason", "planned_at", "past", "expected"),
    [
        (None, None, "", LATER, "run", "appear"),
        (None, None, "", MONDAY, "run", "appear late"),
        (None, None, "", MONDAY, "skip", f"appear {PASSED}"),
        ("pending", LATER, "", LATER, "run", ""),
        ("pending", MONDAY, "", MONDAY, "skip", ""),
        ("pending", MONDAY, "", LATER, "run", "move"),
        ("pending", LATER, "", MONDAY, "run", "move late"),
        ("pending", LATER, "", MONDAY, "skip", f"vanish {PASSED}"),
        ("processing", MONDAY, "", LATER, "run", ""),
        ("completed", MONDAY, "", LATER, "run", ""),
        ("failed", MONDAY, "", LATER, "run", ""),
        ("cancelled", LATER, UNSCHEDULED, LATER, "run", "return"),
        ("cancelled", MONDAY, UNSCHEDULED, MONDAY, "run", "return late"),
        ("cancelled", MONDAY, PASSED, MONDAY, "run", ""),
        ("cancelled", LATER, TOO_LATE, LATER, "run", "return"),
    ],
)
def test_bringing_an_action_in_line(
    state: str | None,
    stood_at: datetime | None,
    reason: str,
    planned_at: datetime,
    past: str,
    expected: str,
) -> None:
    standing = [Standing("a", 1, state, stood_at, None, reason)] if state else []
    changes = revise(standing, [Planned("a", 1, planned_at)], NOW, past=past)
    said = [f"{one.kind} {'late' if one.late else one.reason}".strip() for one in changes]
    assert said == ([expected] if expected else [])


def test_what_is_no_longer_planned_vanishes_unless_it_ran() -> None:
    standing = [
        Standing(key, 1, state, LATER)
        for key, state in (("a", "pending"), ("b", "completed"), ("c", "cancelled"))
    ]
    changes = revise(standing, [], NOW)
    assert [(one.key, one.kind, one.reason) for one in changes] == [("a", "vanish", REMOVED)]
    assert revise(standing, [], NOW, only={"b"}) == []


def test_a_campaign_that_ends_sooner_withdraws() -> None:
    changes = revise([Standing("a", 1, "pending", LATER)], [Planned("a", 1, LATER, TOO_LATE)], NOW)
    assert [(one.kind, one.reason) for one in changes] == [("vanish", TOO_LATE)]


def test_a_new_step_after_the_last_day_never_was() -> None:
    late = define("late", "x", offset="60days")
    standing = [Standing("a", 1, "completed", MONDAY, MONDAY)]
    changes = revise(standing, plan([late], NOVEMBER, enrolled(MONDAY)), NOW)
    assert [(one.kind, one.reason, one.was) for one in changes] == [("appear", TOO_LATE, None)]


def test_revising_twice_changes_nothing() -> None:
    planned = plan(STEPS, NOVEMBER, enrolled(MONDAY))
    first = revise([], planned, NOW, past=PAST_SKIP)
    standing = [
        Standing(
            one.key,
            one.occurrence,
            "cancelled" if one.reason else "pending",
            one.expected_at,
            None,
            one.reason,
        )
        for one in first
    ]
    assert revise(standing, planned, NOW + timedelta(days=9), past=PAST_SKIP) == []


def test_names_of_actions() -> None:
    assert action_id("action1", 1, repeats=False) == "action1"
    assert action_id("action1", 2, repeats=True) == "action1.2"
    assert read_action_id("action1.2") == ("action1", 2)
    assert read_action_id("action1") == ("action1", None)
    with pytest.raises(ValueError, match=r"action1\.2"):
        read_action_id("no such thing")


def test_a_calendar_is_made_of_instants() -> None:
    assert calendar(date(2026, 11, 23), date(2026, 11, 23), BERLIN) == Calendar(
        berlin("2026-11-23 00:00"), berlin("2026-11-24 00:00"), BERLIN
    )


CHAIN = [
    define("ask", "x", offset="2days"),
    define("again", "x", offset="1day", after="ask", on_failure=SKIP),
    define("at-last", "x", offset="1day", after="again", on_failure=SKIP),
    define("besides", "x", offset="1day", after="ask", on_failure=GO_ON),
]


def test_what_follows_from_a_change_follows_to_the_end() -> None:
    began = berlin("2026-11-23 12:00")
    now = began + timedelta(days=3)
    standing = [
        Standing("ask", 1, "pending", began + timedelta(days=9)),
        *(Standing(key, 1, "pending", None) for key in ("again", "at-last", "besides")),
    ]
    changes = settle(CHAIN, NOVEMBER, enrolled(began), standing, now, only={"ask"}, past=PAST_SKIP)
    assert [(one.kind, one.key, one.reason) for one in changes] == [
        ("vanish", "ask", PASSED),
        ("vanish", "again", "skipped, since ask was left out"),
        ("vanish", "at-last", "skipped, since again was left out"),
        ("move", "besides", ""),
    ]
    assert changes[-1].expected_at == now + timedelta(days=1)
    after = [
        Standing(one.key, 1, "cancelled" if one.reason else "pending", one.expected_at, now,
                 one.reason)
        for one in changes
    ]  # fmt: skip
    assert settle(CHAIN, NOVEMBER, enrolled(began), after, now, past=PAST_SKIP) == []


def test_only_what_was_asked_for_changes_without_dependence() -> None:
    began = berlin("2026-11-23 12:00")
    assert settle(STEPS, NOVEMBER, enrolled(began), [], began, only={"action2"}) == [
        one for one in revise([], plan(STEPS, NOVEMBER, enrolled(began)), began)
        if one.key == "action2"
    ]  # fmt: skip


def test_foreseen_is_a_chain_in_which_each_is_done_at_its_moment() -> None:
    planned = foresee(CHAIN, NOVEMBER, enrolled(berlin("2026-11-23 12:00")))
    assert moments(planned) == ["11-25 12:00", "11-26 12:00", "11-27 12:00", "11-26 12:00"]
    late = foresee(CHAIN, NOVEMBER, enrolled(berlin("2026-12-29 12:00")))
    assert [one.reason for one in late[:2]] == ["", TOO_LATE]
    assert late[2].expected_at is None
