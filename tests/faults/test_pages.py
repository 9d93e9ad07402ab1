"""A person at the pages: holds an emailer, and has the web server die under their hands."""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from sqlalchemy import text

from mcs.services import users
from tests.faults import auditor
from tests.faults.conftest import Begin
from tests.faults.world import World
from tests.flows.outsider import Answer, Outsider

Seeds = Callable[[int, int], range]
ANN, PASSWORD = "ann@shop.example", "correct horse battery staple"


def signed_in(here: World, address: str) -> Outsider:
    ann = Outsider(address)
    answer = ann.post("/login", {"email": ANN, "password": PASSWORD})
    assert answer.status == 303, answer.status
    return ann


def add_ann(here: World) -> None:
    with here.sessions() as session:
        users.create_user(session, datetime.now(UTC), ANN, PASSWORD, users.OWNER)


@pytest.mark.short
def test_pause_from_the_page_stops_it_within_two_seconds(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(4000)
    add_ann(here)
    here.begin(workers=2)
    ann = signed_in(here, here.web())
    paused = 0
    for seed in seeds(5, 1):
        emailer_id = here.scenario()
        page = f"/emailers/{emailer_id}"
        # She looks at the page, and then presses.
        form = urlencode({"csrf_token": ann.token(page)})
        here.wait_sent(emailer_id, 1 + random.Random(seed).randrange(400))
        pressed_at = datetime.now(UTC)
        answer = ann.post_raw(f"{page}/pause", form.encode())
        here.wait_for(lambda on=emailer_id: not here.tally(on).by_state["sending"])
        time.sleep(1)
        assert answer.status == 303
        assert here.book(emailer_id).state == "paused"
        assert _last_start(here, emailer_id) <= pressed_at + timedelta(seconds=2)
        assert _last_acceptance(here, emailer_id) <= pressed_at + timedelta(seconds=4)
        paused += here.book(emailer_id).by_state["pending"] > 0
        assert ann.post(f"{page}/resume", {}, form_at=page).status == 303
        here.wait_over(emailer_id)
        here.audit(emailer_id, 0)
    assert paused == len(seeds(5, 1)), "each was paused while there was something to send"


def _last_start(here: World, emailer_id: int) -> datetime:
    query = "SELECT MAX(started_at) FROM deliveries WHERE emailer_id = :id"
    with here.engine.connect() as connection:
        return auditor.instant(connection.scalar(text(query), {"id": emailer_id}))


def _last_acceptance(here: World, emailer_id: int) -> datetime:
    mine = {message_id for message_id, _state, _email in here.book(emailer_id).rows}
    last = max(one.at for one in auditor.accepted(here.folder) if one.delivery in mine)
    return datetime.fromtimestamp(last, UTC)


def test_what_a_killed_web_server_has_answered_is_there(world: Begin, seeds: Seeds) -> None:
    """Ann uploads one file after the other. Each that was answered is whole, and none is halved."""
    here = world()
    here.people(10)
    add_ann(here)
    here.begin()
    answered: list[int] = []
    begun = 0
    for seed in seeds(3, 1):
        address = here.web()
        ann = signed_in(here, address)
        with ThreadPoolExecutor(1) as hands:
            uploads: list[Future[Answer]] = [
                hands.submit(_upload, here, ann, begun + number) for number in range(10)
            ]
            while not uploads[2 + seed].done():
                time.sleep(0.01)
            time.sleep(random.Random(seed).random() * 0.2)
            here.kill_all_of("web")
        for number, upload in enumerate(uploads, begun):
            if upload.exception() is None and upload.result().status == 303:
                answered.append(number)
        begun += len(uploads)
    assert len(answered) >= 3 * len(seeds(3, 1))
    there = set(_whole_files(here))
    assert there >= set(answered)
    here.wait_for(lambda: not _open_imports(here))


def _upload(here: World, ann: Outsider, number: int) -> Answer:
    lines = [f"{name}-of-{number}@people.example,{name}" for name in _names()]
    file = ("people.csv", "\n".join(["email,name", *lines]).encode())
    return ann.post(f"/campaigns/{here.campaign_id}/contacts/upload", {}, file)


def _names() -> Iterator[str]:
    return (f"Bob{number}" for number in range(50))


def _whole_files(here: World) -> Iterator[int]:
    """The files of which somebody has arrived; each of them whole."""
    with here.engine.connect() as connection:
        emails = connection.scalars(text("SELECT email FROM contacts WHERE email LIKE '%-of-%'"))
        by_file: dict[int, int] = {}
        for email in emails:
            number = int(email.partition("-of-")[2].partition("@")[0])
            by_file[number] = by_file.get(number, 0) + 1
    assert set(by_file.values()) <= {50}
    return iter(by_file)


def _open_imports(here: World) -> int:
    query = "SELECT COUNT(*) FROM imports WHERE state IN ('waiting', 'running')"
    with here.engine.connect() as connection:
        return int(connection.scalar(text(query)) or 0)
