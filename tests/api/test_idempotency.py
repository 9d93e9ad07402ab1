"""Asked twice, done once: requests with an Idempotency-Key."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mcs.models import ApiToken, Campaign, KeptAnswer, Schedule
from mcs.services import answers, enrolments
from tests.api.conftest import AUTUMN, Clock, Shop

JANE = {"contact": {"email": "jane@people.example"}, "restart": True}


def count(session: Session, model: Any) -> int:
    session.rollback()
    return session.scalar(select(func.count()).select_from(model)) or 0


def test_the_same_answer_comes_again(shop: Shop, session: Session) -> None:
    first = shop.ask("POST", "/campaigns", AUTUMN, "key 1")
    again = shop.ask("POST", "/campaigns", AUTUMN, "key 1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.data == first.data
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert count(session, Campaign) == 1


def test_a_key_is_good_for_one_request_only(shop: Shop, session: Session, autumn: str) -> None:
    path = f"/campaigns/{autumn}/schedules"
    shop.post(path, JANE, 201, key="k")
    other = {"contact": {"email": "julie@people.example"}}
    for body, where in ((other, path), (JANE, f"{path}?x=1"), (JANE, f"{path}/bulk")):
        answer = shop.ask("POST", where, body, "k")
        assert answer.status_code == 422, where
    assert shop.ask("POST", path, other, "k").json["type"] == "urn:mcs:problem:key-reused"
    # How the same is written does not matter.
    same = '{"restart" : true, "contact":{"email":"jane\\u0040people.example"}}'
    told = shop.ask("POST", path, key="k", data=same, content_type="application/json")
    assert told.status_code == 422, "another order of the same is another request"
    assert count(session, Schedule) == 1


def test_each_token_has_keys_of_its_own(
    shop: Shop, make_shop: Callable[[str], Shop], autumn: str, session: Session, at: Clock
) -> None:
    path = f"/campaigns/{autumn}/schedules"
    shop.post(path, JANE, 201, key="k")
    at.at += timedelta(seconds=1)
    make_shop("enrol").post(path, JANE, 201, key="k")
    assert count(session, Schedule) == 2


def test_an_error_lets_the_key_go(shop: Shop, autumn: str, session: Session) -> None:
    path = f"/campaigns/{autumn}/schedules"
    assert shop.ask("POST", path, {"contact": {"email": "jane"}}, "k").status_code == 422
    assert shop.ask("POST", "/campaigns/nowhere/schedules", JANE, "k").status_code == 404
    assert count(session, KeptAnswer) == 0
    shop.post(path, JANE, 201, key="k")


def test_two_at_once_are_done_once(shop: Shop, autumn: str, session: Session) -> None:
    path = f"/campaigns/{autumn}/schedules"
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: shop.ask("POST", path, JANE, "k"), range(8)))
    by_status = {one.status_code for one in told}
    assert by_status <= {201, 409} and 201 in by_status
    assert len({one.data for one in told if one.status_code == 201}) == 1
    assert count(session, Schedule) == 1


def test_without_a_key_two_at_once_are_enrolled_once(
    shop: Shop, autumn: str, session: Session
) -> None:
    path = f"/campaigns/{autumn}/schedules"
    jane = {"contact": {"email": "jane@people.example"}}
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: shop.ask("POST", path, jane), range(8)))
    assert sorted(one.status_code for one in told) == [200] * 7 + [201]
    assert count(session, Schedule) == 1


def test_who_asks_while_it_is_being_answered_is_told_to_wait(
    shop: Shop, autumn: str, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/campaigns/{autumn}/schedules"
    meanwhile = []
    real = enrolments.enrol

    def slow(*args: Any, **given: Any) -> Any:
        if not meanwhile:
            meanwhile.append(None)
            meanwhile[0] = shop.ask("POST", path, JANE, "k")
        return real(*args, **given)

    monkeypatch.setattr(enrolments, "enrol", slow)
    shop.post(path, JANE, 201, key="k")
    (told,) = meanwhile
    assert told is not None and told.status_code == 409
    assert told.json["type"] == "urn:mcs:problem:in-progress"
    assert told.headers["Retry-After"] == "1"
    assert count(session, Schedule) == 1


def test_who_died_before_answering_is_followed_by_who_asks_again(
    shop: Shop, autumn: str, session: Session, at: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was begun and its answer lost: asking again does not begin a third one."""
    path = f"/campaigns/{autumn}/schedules"
    shop.post(path, JANE, 201)
    at.at += timedelta(hours=1)

    class Killed(BaseException):
        pass

    def killed(*_args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(answers, "keep", killed)
        with pytest.raises(Killed):
            shop.ask("POST", path, JANE, "k")
    assert count(session, Schedule) == 2
    assert shop.ask("POST", path, JANE, "k").status_code == 409
    at.at += answers.LEASE
    told = shop.post(path, JANE, 200, key="k")
    assert (told["did"], told["run"]) == ("nothing", 2)
    assert count(session, Schedule) == 2


def test_a_campaign_whose_answer_was_lost_is_not_made_again(
    shop: Shop, session: Session, at: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_args: Any) -> None:
        raise Killed

    for body in (AUTUMN, AUTUMN | {"key": "winter"}):
        key = f"k{len(body)}"
        with monkeypatch.context() as patched:
            patched.setattr(answers, "keep", killed)
            with pytest.raises(Killed):
                shop.ask("POST", "/campaigns", body, key)
        at.at += answers.LEASE
        told = shop.ask("POST", "/campaigns", body, key)
        assert told.status_code == 201
        assert told.headers["Location"] == f"/api/v1/campaigns/{told.json['id']}"
    assert count(session, Campaign) == 2
    # Another key asks for another one.
    shop.post("/campaigns", AUTUMN, 201, key="another")
    assert count(session, Campaign) == 3
    assert session.scalars(select(func.length(Campaign.uid)).distinct()).all() == [22]


def test_two_restarts_at_once_without_a_key_begin_one_run(
    shop: Shop, autumn: str, session: Session, at: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/campaigns/{autumn}/schedules"
    shop.post(path, JANE, 201)
    both_have_seen = Barrier(2)
    real = enrolments._run_to_end

    def seen(*args: Any) -> int:
        run = real(*args)
        both_have_seen.wait(60)
        return run

    monkeypatch.setattr(enrolments, "_run_to_end", seen)
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda _: shop.ask("POST", path, JANE), range(2)))
    assert sorted(one.json["did"] for one in told) == ["began", "nothing"]
    assert {one.json["run"] for one in told} == {2}
    assert count(session, Schedule) == 2


def test_who_was_too_slow_leaves_the_turn_to_who_took_over(
    shop: Shop, autumn: str, session: Session, now: datetime
) -> None:
    token_id = session.scalars(select(ApiToken.id)).first()
    assert token_id is not None
    key = answers.Key(token_id, "k", "hash")
    slow = answers.take(session, now, key)
    second = answers.take(session, now + answers.LEASE, key)
    assert isinstance(slow, answers.Turn)
    assert isinstance(second, answers.Turn)
    assert second.since == slow.since
    answers.let_go(session, key, slow)
    answers.keep(session, key, slow, answers.Answer(500, "", ""))
    answers.keep(session, key, second, answers.Answer(201, "", "done"))
    assert answers.take(session, now, key) == answers.Answer(201, "", "done")


def test_keys_are_kept_for_a_day(shop: Shop, autumn: str, session: Session, at: Clock) -> None:
    path = f"/campaigns/{autumn}/schedules"
    shop.post(path, JANE, 201, key="k")
    at.at += answers.KEPT_FOR - timedelta(seconds=1)
    assert shop.post(path, JANE, 201, key="k")["run"] == 1
    at.at += timedelta(seconds=1)
    assert shop.post(path, JANE, 201, key="k")["run"] == 2
    assert count(session, KeptAnswer) == 1


@pytest.mark.parametrize("key", ["x" * 256, "schlüssel"])
def test_a_key_is_plain(shop: Shop, autumn: str, key: str) -> None:
    headers = {"Idempotency-Key": key.encode().decode("latin-1")}
    answer = shop.ask("POST", f"/campaigns/{autumn}/schedules", JANE, headers=headers)
    assert answer.status_code == 422
