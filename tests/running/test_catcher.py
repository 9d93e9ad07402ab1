"""The mail catcher: what it keeps, shows and lets go."""

import smtplib
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest

from mcs import config
from mcs.gateways import catcher
from mcs.gateways.catcher import Box, find, message, messages
from tests.conftest import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[smtplib.SMTP]:
    command = [sys.executable, "-m", "mcs.gateways.catcher", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_until(config.catcher_port_file(tmp_path).exists)
        with smtplib.SMTP("127.0.0.1", config.catcher_port(tmp_path)) as client:
            yield client
        process.terminate()
        assert process.wait(timeout=3) == 0


def letter(subject: str, to: str = "ann@people.example") -> bytes:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "Ada <ada@shop.example>", to, subject
    made.set_content("Dear Ann")
    made.add_alternative("<p>Dear <b>Ann</b></p>", subtype="html")
    return made.as_bytes().replace(b"\n", b"\r\n")


def test_a_message_is_kept_as_it_came(server: smtplib.SMTP, tmp_path: Path) -> None:
    raw = letter("Grüße ☃")
    server.sendmail("ada@shop.example", ["ann@people.example"], raw)
    (listed,) = messages(tmp_path, 10)
    assert (listed.subject, listed.to) == ("Grüße ☃", "ann@people.example")
    assert (listed.envelope_from, listed.sender) == ("ada@shop.example", "Ada <ada@shop.example>")
    kept = message(tmp_path, listed.id)
    assert kept is not None
    assert kept.raw == raw
    assert listed.size == len(raw)
    assert (kept.text.strip(), kept.html.strip()) == ("Dear Ann", "<p>Dear <b>Ann</b></p>")
    assert kept.envelope_to == ("ann@people.example",)


def test_it_offers_what_a_good_server_offers(server: smtplib.SMTP, tmp_path: Path) -> None:
    server.ehlo("here")
    assert {"smtputf8", "8bitmime", "pipelining", "size"} <= set(server.esmtp_features)
    options = ["SMTPUTF8", "BODY=8BITMIME"]
    server.sendmail("ada@shop.example", ["jürgen@people.example"], letter("Hi"), options)
    assert messages(tmp_path, 1)[0].envelope_to == "jürgen@people.example"


def test_commands_may_come_in_one_write(server: smtplib.SMTP, tmp_path: Path) -> None:
    server.ehlo("here")
    for number in range(3):
        server.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        assert [server.getreply()[0] for _ in range(3)] == [250, 250, 354]
        server.send(b"Subject: %d\r\n\r\n..dot\r\n.\r\n" % number)
        assert server.getreply()[0] == 250
    assert [each.subject for each in messages(tmp_path, 10)] == ["2", "1", "0"]
    newest = message(tmp_path, messages(tmp_path, 1)[0].id)
    assert newest is not None
    assert newest.text == ".dot\r\n"


def test_the_newest_stay_and_are_listed_first(tmp_path: Path, now: datetime) -> None:
    box = Box(tmp_path, kept=1500)
    for number in range(1, 3201):
        at = now + timedelta(seconds=number)
        box.add(at, "a@b.example", ["c@d.example"], b"Subject: %d\r\n\r\n" % number)
    ids, page = [], messages(tmp_path, 400)
    while page:
        ids += [each.id for each in page]
        page = messages(tmp_path, 400, before=page[-1].id)
    assert ids == [str(number) for number in range(3200, 1700, -1)]
    assert message(tmp_path, "1700") is None
    assert len(list((tmp_path / "mail").iterdir())) == 3
    assert Box(tmp_path).last == 3200
    assert messages(tmp_path, 1)[0].received_at == now + timedelta(seconds=3200)


def test_a_message_is_found_by_its_delivery_and_few_are_read(
    tmp_path: Path, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path) -> bytes:
        read.append(path)
        return headers(path)

    headers = catcher._headers
    monkeypatch.setattr(catcher, "_headers", counted)

    def found(opaque: str, since: float, until: float) -> str | None:
        read.clear()
        since_at, until_at = (now + timedelta(seconds=each) for each in (since, until))
        return find(tmp_path, opaque, since_at, until_at, timedelta(seconds=5))

    box = Box(tmp_path, kept=500)
    for number in range(1, 601):
        raw = b"Subject: Hi\r\nX-MCS-Delivery: d%d\r\n\r\nX-MCS-Delivery: d9\r\n" % number
        box.add(now + timedelta(seconds=number), "a@b.example", ["c@d.example"], raw)
    assert found("d300", 299.9, 300.4) == "300"
    assert len(read) == 1
    # The two clocks differ.
    assert found("d300", 303, 304) == "300"
    assert found("d300", 306, 307) is None
    # It was let go: what was caught at its time is gone, and what is there is not read.
    assert (found("d50", 50, 51), read) == (None, [])
    # A text that looks like a header is none.
    assert found("d9", 200, 600) is None
    assert len(read) == 600 - 195 + 1


@pytest.mark.parametrize("id", ["", "0", "9", "-1", "../../secret_key", "٣", "9" * 400, "1.eml"])
def test_an_id_that_is_none_finds_nothing(tmp_path: Path, id: str) -> None:
    assert message(tmp_path, id) is None
    assert messages(tmp_path, 5, before=id) == []


def test_odd_bytes_are_listed_all_the_same(tmp_path: Path, now: datetime) -> None:
    box = Box(tmp_path)
    for raw in (
        b"",
        b"\xff\xfe\r\n\r\n",
        b"Subject: =?utf-9?q?x?=\r\nFrom: <<>>\r\n\r\nx",
        b"x" * 99,
    ):
        box.add(now, "", [], raw)
    assert len(messages(tmp_path, 10)) == 4
    assert all(message(tmp_path, each.id) for each in messages(tmp_path, 10))
