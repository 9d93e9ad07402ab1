"""What is done before the processes start, on a database that is as it should be, or is not."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from mcs import prepare
from mcs.gateways import clock
from mcs.services import users


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    return fresh_database_url


@pytest.fixture(autouse=True)
def environ(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("MCS_INSTANCE", str(tmp_path / "100%"))


def test_it_prints_the_token_until_somebody_can_sign_in(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare.main() == 0
    token = capsys.readouterr().out.strip()
    assert users.invitation(session, clock.now(), token) is not None
    users.accept(session, clock.now(), token, "ann@shop.example", "correct horse battery staple")
    assert prepare.main() == 0
    assert capsys.readouterr().out == ""


def test_a_database_of_a_later_release_is_refused_with_a_line(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert prepare.main() == 1
    line = capsys.readouterr().err
    assert line.startswith("the database cannot be migrated: Can't locate revision")
    assert line.count("\n") == 1
