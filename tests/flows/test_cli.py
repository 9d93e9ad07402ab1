"""The command line: what each command does, says, and ends with."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.config import ROOT, Settings
from mcs.gateways import clock
from mcs.gateways.jobqueue import JobQueue
from mcs.models import AuditEntry, Campaign, Contact, Emailer, User
from mcs.services import emailers, planning
from tests.people import add_campaign, add_contacts, add_scenario

DONE, REFUSED, MISUSED, UNWELL = 0, 1, 2, 3
COMMANDS = (
    "create-user", "plan-day", "tick", "import-contacts", "status", "list", "pause", "resume",
    "cancel", "ledger",
)  # fmt: skip
Command = Callable[..., Result]


@pytest.fixture
def mcs(app: Flask) -> Command:
    """``flask --app wsgi mcs ...``, in this process."""
    runner = app.test_cli_runner()

    def run(*words: object, stdin: bytes | str | None = None) -> Result:
        given = io.BytesIO(stdin) if isinstance(stdin, bytes) else stdin
        return runner.invoke(args=["mcs", *map(str, words)], input=given)

    return run


@pytest.fixture
def tomorrow() -> datetime:
    """The command line asks the real clock, so its stories are of tomorrow at ten."""
    day = datetime.now(UTC).date() + timedelta(days=1)
    return datetime(day.year, day.month, day.day, 10, tzinfo=UTC)


@pytest.fixture
def campaign(session: Session, tomorrow: datetime) -> Campaign:
    """A campaign in UTC from yesterday on, with P0, P1 and P2, and a scenario for tomorrow."""
    campaign = add_campaign(
        session,
        timezone="UTC",
        start_date=tomorrow.date() - timedelta(days=2),
        end_date=tomorrow.date() + timedelta(days=7),
    )
    add_contacts(session, campaign, 3)
    add_scenario(session, campaign, date=tomorrow.date(), time=tomorrow.time())
    return campaign


@pytest.fixture
def sending(session: Session, campaign: Campaign, tomorrow: datetime, queue: JobQueue) -> int:
    """The id of an emailer that has begun."""
    (emailer_id,) = planning.plan_day(session, tomorrow, queue)
    emailers.send(session, tomorrow, queue, emailer_id, timedelta(hours=2))
    return emailer_id


def state_of(session: Session, emailer_id: int) -> str:
    session.rollback()  # a new look, not the old snapshot
    return session.get_one(Emailer, emailer_id).state


def test_help_from_the_shell_names_every_command(settings: Settings) -> None:
    command = [str(Path(sys.executable).parent / "flask"), "--app", "wsgi", "mcs", "--help"]
    environ = os.environ | {
        "DATABASE_URL": settings.database_url,
        "MCS_INSTANCE": str(settings.instance),
    }
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == DONE, done.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(mcs: Command, name: str) -> None:
    result = mcs(name, "--help")
    assert result.exit_code == DONE
    assert result.output.startswith("Usage: ")
    assert len(result.output.splitlines()) > 4


@pytest.mark.parametrize(
    "words",
    [
        ("no-such-command",),
        ("plan-day", "--on", "2026-02-30"),
        ("plan-day", "--on", "tomorrow"),
        ("import-contacts", "1"),
        ("import-contacts", "one", "-"),
        ("import-contacts", "1", "/no/such/file.csv"),
        ("create-user", "ada@shop.example", "--role", "emperor", "--password", "x"),
        ("pause",),
        ("pause", "first"),
        ("ledger", "1", "--outcome", "lost"),
        ("status", "--yaml"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_line(mcs: Command, words: tuple[str, ...]) -> None:
    result = mcs(*words)
    assert result.exit_code == MISUSED
    assert "Error: " in result.output
    assert "Traceback" not in result.output


def test_create_user_makes_somebody_who_can_sign_in(mcs: Command, session: Session) -> None:
    result = mcs("create-user", "ada@shop.example", "--password", "seven green kettles")
    assert (result.exit_code, result.output) == (DONE, "ada@shop.example can sign in as owner.\n")
    assert session.scalars(select(User.role)).one() == "owner"
    again = mcs("create-user", "ada@shop.example", "--password", "seven green kettles")
    assert again.exit_code == REFUSED
    assert again.output.startswith("Error: ")
    short = mcs("create-user", "bob@shop.example", "--password", "abc")
    assert short.exit_code == REFUSED


def test_plan_day_twice_plans_once(
    mcs: Command, session: Session, campaign: Campaign, tomorrow: datetime
) -> None:
    first = mcs("plan-day", "--on", tomorrow.date())
    assert (first.exit_code, first.output) == (DONE, "1 planned or moved.\n")
    second = mcs("plan-day", "--on", tomorrow.date())
    assert (second.exit_code, second.output) == (DONE, "0 planned or moved.\n")
    (emailer,) = session.scalars(select(Emailer)).all()
    assert (emailer.state, emailer.scheduled_at) == ("planned", tomorrow)
    assert mcs("plan-day", "--on", tomorrow.date() + timedelta(days=1)).output.startswith("0 ")
    assert mcs("plan-day").exit_code == DONE
    assert len(session.scalars(select(Emailer.id)).all()) == 1


def test_tick_rings_what_is_due(
    mcs: Command, session: Session, campaign: Campaign, queue: JobQueue
) -> None:
    minute = clock.now().replace(second=0, microsecond=0)
    add_scenario(session, campaign, date=minute.date(), time=minute.time())
    ticked = mcs("tick")
    assert (ticked.exit_code, ticked.output) == (
        DONE,
        "What is due was looked for, and the workers were rung for it.\n",
    )
    due = session.scalars(select(Emailer.id).where(Emailer.scheduled_at == minute)).one()
    assert queue.connection.lrange("rq:queue:alarms", 0, -1) == [f"emailer-{due}".encode()]


def test_tokens_are_listed_and_where_there_are_none_it_is_said(mcs: Command) -> None:
    none = mcs("list-tokens")
    assert none.output == "There is no token yet: `mcs create-token NAME` makes one.\n"
    assert mcs("create-token", "web shop").exit_code == DONE
    assert "web shop, unused" in mcs("list-tokens").output


def test_import_contacts_from_a_file_and_from_standard_input(
    mcs: Command, session: Session, campaign: Campaign, tmp_path: Path
) -> None:
    rows = b"E-Mail,Full name\nann@people.example,Ann\nbob@people.example,Bob\nnobody,No One\n"
    file = tmp_path / "people.csv"
    file.write_bytes(rows)
    result = mcs("import-contacts", campaign.id, file)
    assert result.exit_code == DONE
    assert result.stdout == "2 added, 0 updated, 0 unchanged, 1 rejected.\n"
    assert result.stderr == "line 4: E-Mail: there is no @\n"
    again = mcs("import-contacts", campaign.id, "-", stdin=rows)
    assert again.stdout == "0 added, 0 updated, 2 unchanged, 1 rejected.\n"
    session.rollback()  # a new look, not the old snapshot
    assert len(session.scalars(select(Contact.id)).all()) == 5


def test_import_contacts_refuses_with_a_sentence(
    mcs: Command, campaign: Campaign, tmp_path: Path
) -> None:
    missing = mcs("import-contacts", 999, "-", stdin=b"email\nann@people.example\n")
    assert missing.exit_code == REFUSED
    assert missing.stderr == "Error: There is no campaign 999.\n"
    workbook = tmp_path / "people.xlsx"
    workbook.write_bytes(b"PK\x03\x04" + b"\x00" * 100)
    refused = mcs("import-contacts", campaign.id, workbook)
    assert refused.exit_code == REFUSED
    assert "Excel workbook" in refused.stderr
    assert mcs("import-contacts", campaign.id, "-", stdin=b"").exit_code == REFUSED


def test_a_larger_file_is_waited_for(mcs: Command, campaign: Campaign) -> None:
    lines = "".join(f"person{number}@people.example,Person {number}\n" for number in range(9_000))
    result = mcs("import-contacts", campaign.id, "-", stdin=f"email,name\n{lines}".encode())
    assert result.stdout == "9000 added, 0 updated, 0 unchanged, 0 rejected.\n"


def test_status_says_how_it_stands(mcs: Command, sending: int) -> None:
    result = mcs("status", "--json")
    assert result.exit_code == UNWELL, "no worker and no clock run here"
    found = json.loads(result.output)
    assert (found["redis"], found["workers"], found["clock"]) == (True, 0, False)
    for_people = mcs("status")
    assert for_people.exit_code == UNWELL
    assert "does not answer" in for_people.output


def test_pause_resume_and_cancel(mcs: Command, session: Session, sending: int) -> None:
    paused = mcs("pause", sending)
    assert (paused.exit_code, state_of(session, sending)) == (DONE, "paused")
    assert paused.output.startswith("paused: 0 of 3 sent, 3 to go")
    assert mcs("resume", sending).exit_code == DONE
    assert state_of(session, sending) == "sending"
    refused = mcs("cancel", sending, stdin="n\n")
    assert refused.exit_code == REFUSED
    assert state_of(session, sending) == "sending"
    cancelled = mcs("cancel", sending, "--yes")
    assert cancelled.output == "cancelled: 0 of 3 sent, 0 to go, 3 skipped, 0 failed, 0 in doubt.\n"
    for verb in ("pause", "resume"):
        over = mcs(verb, sending)
        assert over.exit_code == REFUSED
        assert over.output.startswith("Error: ")
        assert mcs(verb, 999).exit_code == REFUSED
    assert mcs("cancel", 999, "--yes").exit_code == REFUSED


def test_ledger_writes_a_row_for_each_recipient(mcs: Command, sending: int) -> None:
    whole = mcs("ledger", sending)
    assert whole.exit_code == DONE
    head, *rows = whole.stdout_bytes.decode("utf-8-sig").splitlines()
    assert head.startswith("email,name,state,reason,attempts,due_at,")
    assert [row.split(",")[:3] for row in rows] == [
        [f"p{number}@people.example", f"P{number}", "Pending"] for number in range(3)
    ]
    assert mcs("ledger", sending, "--outcome", "pending").stdout_bytes == whole.stdout_bytes
    assert mcs("ledger", sending, "--outcome", "in_doubt").stdout.count("\n") == 1
    refused = mcs("ledger", 999)
    assert refused.exit_code == REFUSED
    assert refused.stderr == "Error: There is no emailer 999; `mcs list` lists them.\n"


def test_a_ledger_of_which_the_head_is_enough_ends_quietly(
    session: Session, tomorrow: datetime, queue: JobQueue, settings: Settings
) -> None:
    """As with ``| head -n 1``; 2,000 rows are more than a pipe holds."""
    big = add_campaign(session, timezone="UTC", end_date=tomorrow.date())
    add_contacts(session, big, 2_000)
    add_scenario(session, big, date=tomorrow.date(), time=tomorrow.time())
    (emailer_id,) = planning.plan_campaign(session, tomorrow, queue, big.id)
    emailers.send(session, tomorrow, queue, emailer_id, timedelta(hours=2))
    flask = Path(sys.executable).parent / "flask"
    with subprocess.Popen(
        [flask, "--app", "wsgi", "mcs", "ledger", str(emailer_id)],
        cwd=ROOT,
        env=os.environ
        | {"DATABASE_URL": settings.database_url, "MCS_INSTANCE": str(settings.instance)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline().startswith(b"\xef\xbb\xbfemail,name,")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1, "it did not notice"


@pytest.mark.parametrize("verb", [("retry",), ("settle", "sent"), ("settle", "again")])
def test_where_there_is_nothing_to_do_it_is_said(
    mcs: Command,
    session: Session,
    campaign: Campaign,
    tomorrow: datetime,
    queue: JobQueue,
    verb: tuple[str, ...],
) -> None:
    (emailer_id,) = planning.plan_day(session, tomorrow, queue)
    command, *answer = verb
    refused = mcs(command, emailer_id, *answer)
    assert (refused.exit_code, refused.stdout) == (REFUSED, "")
    assert refused.stderr.startswith("Error: Nothing ")
    audited = session.scalars(select(AuditEntry.verb).where(AuditEntry.noun == "emailer")).all()
    assert not any(entry.startswith(("retried", "settled")) for entry in audited)
    emailers.send(session, tomorrow, queue, emailer_id, timedelta(hours=2))
    assert mcs(command, emailer_id, *answer).exit_code == REFUSED


def test_list_tells_the_numbers_that_the_other_commands_ask_for(mcs: Command, sending: int) -> None:
    listed = mcs("list").output
    assert re.search(rf"^emailer +{sending}  sending ", listed, re.MULTILINE)
    assert re.search(r"^campaign +\d+  active ", listed, re.MULTILINE)


def test_list_tells_how_far_a_sending_has_got_once_it_has_begun(
    mcs: Command, session: Session, campaign: Campaign, tomorrow: datetime, queue: JobQueue
) -> None:
    (emailer_id,) = planning.plan_day(session, tomorrow, queue)
    planned = mcs("list").output
    assert re.search(rf"^emailer +{emailer_id}  planned .* 10:00 UTC$", planned, re.MULTILINE)
    emailers.send(session, tomorrow, queue, emailer_id, timedelta(hours=2))
    begun = mcs("list").output
    assert re.search(r"  sending .* 10:00 UTC: 0 of 3 sent$", begun, re.MULTILINE)
    emailers.cancel(session, tomorrow, emailer_id)
    assert "10:00 UTC: 0 of 3 sent, 3 cancelled or skipped\n" in mcs("list").output


def test_the_next_send_is_told_days_before_it_is_planned(mcs: Command, session: Session) -> None:
    day = datetime.now(UTC).date() + timedelta(days=9)
    campaign = add_campaign(session, start_date=day, end_date=day, timezone="UTC")
    add_scenario(session, campaign, date=day, time=time(10, 0))
    found = json.loads(mcs("status", "--json").output)
    assert found["next_send_at"] == f"{day}T10:00:00+00:00"
    assert found["emailers"]["planned"] == 0
