"""``flask --app wsgi mcs``: the verbs for a terminal or a script.

Exit codes: 0 done, 1 refused with a sentence on standard error, 2 wrong usage. ``status`` exits
with 3 when a part that sending needs does not answer.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from sqlalchemy.orm import Session

from mcs.config import Settings
from mcs.core.exports import as_csv
from mcs.core.tables import BadFile
from mcs.extensions import db
from mcs.gateways import clock
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Campaign, Emailer, Import
from mcs.models.api_tokens import SCOPES
from mcs.models.users import ROLES
from mcs.services import (
    api_tokens,
    audit,
    due,
    emailers,
    headway,
    imports,
    ledger,
    planning,
    settling,
    status,
    users,
)
from mcs.services.unknown import Unknown

UNWELL = 3
CHUNK_BYTES = 256 * 1024

group = AppGroup(
    "mcs",
    help="MCS, the Market Campaign Scheduler: people, tokens, planning, contacts, status.",
)


def init_app(app: Flask) -> None:
    """Give the app its ``mcs`` commands."""
    app.cli.add_command(group)


@group.command("create-user")
@click.argument("email")
@click.option("--role", type=click.Choice(ROLES), default="owner", show_default=True)
@click.password_option(
    help="Asked for when left out. Scripts: MCS_PASSWORD.", envvar="MCS_PASSWORD"
)
def create_user(email: str, role: str, password: str) -> None:
    """Make a person who can sign in."""
    try:
        users.create_user(_session(), clock.now(), email, password, role)
    except users.RefusedUser as refusal:
        raise click.ClickException(str(refusal)) from None
    click.echo(f"{email} can sign in as {role}.")


@group.command("create-token")
@click.argument("name")
@click.option("--scope", type=click.Choice(SCOPES), default="enrol", show_default=True)
def create_token(name: str, scope: str) -> None:
    """Make a token for a program that uses the HTTP interface; it is printed once."""
    try:
        token = api_tokens.make(_session(), clock.now(), name, scope, None)
    except api_tokens.RefusedToken as refusal:
        raise click.ClickException(refusal.reason) from None
    click.echo(token)


@group.command("list-tokens")
def list_tokens() -> None:
    """List the tokens that are good, with their numbers (TOKEN)."""
    rows = api_tokens.everyone(_session())
    if not rows:
        click.echo("There is no token yet: `mcs create-token NAME` makes one.")
    for row in rows:
        one = row.token
        used = f"last used {one.last_used_at:%Y-%m-%d %H:%M} UTC" if one.last_used_at else "unused"
        click.echo(f"{one.id:>6}  {one.scope:<7} …{one.ending}  {one.name}, {used}")


@group.command("revoke-token")
@click.argument("token_id", metavar="TOKEN", type=click.IntRange(1, 2**31 - 1))
def revoke_token(token_id: int) -> None:
    """End a token at once. `mcs list-tokens` tells the numbers."""
    try:
        api_tokens.revoke(_session(), clock.now(), token_id, None)
    except Unknown:
        raise click.ClickException(f"There is no token {token_id}.") from None
    click.echo("It no longer works.")


@group.command("plan-day")
@click.option(
    "--on",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Plan the scenarios of this date, as their campaigns' zones count it.",
)
def plan_day(on: datetime | None) -> None:
    """Plan the sendings of the day: the next 24 hours, or a given date. Twice is harmless."""
    day: date | None = on.date() if on else None
    made = planning.plan_day(_session(), clock.now(), _queue(), day)
    click.echo(f"{len(made)} planned or moved.")


@group.command("tick")
def tick() -> None:
    """Look for what is due and ring the workers, as the clock does each second."""
    callbacks = current_app.extensions["callbacks"].keys()
    due.tick(db.session(), clock.now(), _queue(), _settings().on_doubt, callbacks)
    click.echo("What is due was looked for, and the workers were rung for it.")


@group.command("import-contacts")
@click.argument("campaign_id", metavar="CAMPAIGN", type=int)
@click.argument("file", type=click.File("rb"))
def import_contacts(campaign_id: int, file: BinaryIO) -> None:
    """Add the contacts of a CSV FILE (- is standard input) to CAMPAIGN, and wait for the end.

    Rows that cannot be taken are listed with their line, field and reason; the others are kept.
    """
    session = _session()
    if session.get(Campaign, campaign_id) is None:
        raise click.ClickException(f"There is no campaign {campaign_id}.")
    name = "standard input" if file is sys.stdin.buffer else Path(file.name).name
    try:
        import_id = imports.upload(
            session,
            clock.now(),
            _queue(),
            campaign_id,
            name,
            _chunks(file),
            review=False,
            secret=_settings().secret_key,
        )
    except BadFile as bad:
        raise click.ClickException(bad.reason) from None
    done = _ended(session, import_id)
    if done.state == "failed":
        raise click.ClickException(done.error)
    click.echo(
        f"{done.added} added, {done.updated} updated, {done.unchanged} unchanged,"
        f" {done.rejected} rejected."
    )
    for line, reason, *_cells in islice(imports.rejected_table(session, import_id), 1, None):
        click.echo(f"line {line}: {reason}", err=True)


def _ended(session: Session, import_id: int) -> Import:
    """The import once it has ended: run here, unless a worker has claimed it first."""
    while True:
        imports.run(session, clock.now, import_id, secret=_settings().secret_key)
        session.rollback()
        found = session.get_one(Import, import_id, populate_existing=True)
        if found.state in ("done", "failed"):
            return found
        time.sleep(0.5)


@group.command("status")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def show_status(as_json: bool) -> None:
    """Say what is due, under way and in doubt, and whether every part answers."""
    found = asdict(status.status(_session(), clock.now(), _queue().health()))
    if as_json:
        click.echo(json.dumps(found, default=datetime.isoformat))
    else:
        for name, value in _lines(found):
            click.echo(f"{name:<20} {value}")
    if not (found["redis"] and found["workers"] and found["clock"]):
        sys.exit(UNWELL)


@group.command("list")
def show_list() -> None:
    """List the latest campaigns and emailers with their numbers (CAMPAIGN, EMAILER).

    A sending that has begun says how many it has reached.
    """
    session = _session()
    for noun, rows in (
        ("campaign", status.campaigns(session)),
        ("emailer", status.emailers(session)),
    ):
        for row in rows:
            click.echo(f"{noun:<9} {row.id:>6}  {row.state:<10} {row.words}")


@group.command("pause")
@click.argument("emailer_id", metavar="EMAILER", type=int)
def pause(emailer_id: int) -> None:
    """Stop a sending for now; messages on the wire end. `mcs list` tells the numbers."""
    _refuse_unknown(emailer_id)
    _act(lambda: emailers.pause(_session(), clock.now(), emailer_id))
    _say_progress(emailer_id)


@group.command("resume")
@click.argument("emailer_id", metavar="EMAILER", type=int)
def resume(emailer_id: int) -> None:
    """Go on with a paused sending."""
    _refuse_unknown(emailer_id)
    late_limit = timedelta(minutes=_settings().late_limit_minutes)
    _act(lambda: emailers.resume(_session(), clock.now(), _queue(), emailer_id, late_limit))
    _say_progress(emailer_id)


@group.command("cancel")
@click.argument("emailer_id", metavar="EMAILER", type=int)
@click.option("--yes", is_flag=True, help="Do not ask.")
def cancel(emailer_id: int, yes: bool) -> None:
    """Stop a sending for good, and say how many it reached."""
    _refuse_unknown(emailer_id)
    if not yes:
        click.confirm("Stop this sending for good?", abort=True)
    _act(lambda: emailers.cancel(_session(), clock.now(), emailer_id))
    _say_progress(emailer_id)


@group.command("retry")
@click.argument("emailer_id", metavar="EMAILER", type=int)
def retry(emailer_id: int) -> None:
    """Try the failed messages of a sending once more."""
    _refuse_unknown(emailer_id)
    _act(lambda: settling.retry_failed(_session(), clock.now(), _queue(), emailer_id))
    _say_progress(emailer_id)


@group.command("settle")
@click.argument("emailer_id", metavar="EMAILER", type=int)
@click.argument("answer", type=click.Choice(settling.ANSWERS))
def settle(emailer_id: int, answer: str) -> None:
    """Settle all messages in doubt of a sending: they were sent, failed, or go again."""
    _refuse_unknown(emailer_id)
    _act(lambda: settling.settle(_session(), clock.now(), _queue(), emailer_id, answer))
    _say_progress(emailer_id)


@group.command("ledger")
@click.argument("emailer_id", metavar="EMAILER", type=int)
@click.option(
    "--outcome", type=click.Choice(ledger.OUTCOMES), help="Only the messages that it is so of."
)
def write_ledger(emailer_id: int, outcome: str | None) -> None:
    """Write what became of each message of a sending: the CSV that its page offers.

    One row per recipient, to standard output, in UTF-8. Times are UTC.
    """
    _refuse_unknown(emailer_id)
    for piece in as_csv(ledger.table(_session(), emailer_id, outcome or "")):
        sys.stdout.buffer.write(piece.encode())


def _refuse_unknown(emailer_id: int) -> None:
    if _session().get(Emailer, emailer_id) is None:
        raise click.ClickException(f"There is no emailer {emailer_id}; `mcs list` lists them.")


def _act(verb: Callable[[], object]) -> None:
    try:
        verb()
    except emailers.NotPossible as refusal:
        raise click.ClickException(str(refusal)) from None


def _say_progress(emailer_id: int) -> None:
    progress = headway.progress(_session(), emailer_id)
    click.echo(
        f"{progress.state}: {progress.sent} of {progress.recipients} sent,"
        f" {progress.to_go} to go, {progress.skipped} skipped, {progress.failed} failed,"
        f" {progress.in_doubt} in doubt."
    )


def _lines(found: dict[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in found.items():
        if isinstance(value, dict):
            yield from ((f"{name} {key}", number) for key, number in value.items())
        elif isinstance(value, bool):
            yield name, "alive" if value else "does not answer"
        else:
            yield name.replace("_", " "), "-" if value is None else value


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _session() -> Session:
    session: Session = db.session()
    audit.come_through(session, program="command line")
    return session


def _queue() -> JobQueue:
    queue: JobQueue = current_app.extensions["jobqueue"]
    return queue


def _settings() -> Settings:
    settings: Settings = current_app.config["SETTINGS"]
    return settings
