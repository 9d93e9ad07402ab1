"""What the environment may say, and the one line with which a start that cannot be is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mcs import config
from mcs.config import BadSetting, Settings
from mcs.gateways.jobqueue import connect

SECRET = "0123456789abcdef"
# As a Heroku-style host gives it: DYNO makes it production.
HOST = {
    "DYNO": "web.1",
    "PORT": "5000",
    "DATABASE_URL": "postgres://ada:secret@db.example:5432/mcs",
    "REDIS_URL": "rediss://:secret@redis.example:6380",
    "SECRET_KEY": SECRET,
    "MCS_UNSUBSCRIBE_KEYS": f"{SECRET}new,{SECRET}old",
    "MCS_BASE_URL": "https://mcs.example/",
    "MAIL_SERVER": "mail.example",
}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Settings]:
    """The settings of a host's environment with some values changed; None takes one away."""

    def load(**changes: str | None) -> Settings:
        environ = HOST | {"MCS_INSTANCE": str(tmp_path)} | changes
        return config.load({name: value for name, value in environ.items() if value is not None})

    return load


def test_what_a_host_gives_is_production(load: Callable[..., Settings]) -> None:
    settings = load()
    assert settings.production
    assert settings.database_url == "postgresql+psycopg://ada:secret@db.example:5432/mcs"
    assert (settings.port, settings.base_url) == (5000, "https://mcs.example")
    assert settings.unsubscribe_keys == (f"{SECRET}new", f"{SECRET}old")
    assert settings.mail_domain == "mcs.example"
    assert not settings.embedded_mail and not settings.embedded_redis
    assert settings.trusted_proxies == 1


@pytest.mark.parametrize("name", config.REQUIRED_IN_PRODUCTION)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_production_refuses_a_missing_part(
    load: Callable[..., Settings], name: str, value: str | None
) -> None:
    with pytest.raises(BadSetting, match=f"^MCS_ENV=production needs {name}: set it"):
        load(**{name: value})


def test_production_names_all_that_is_missing_at_once() -> None:
    with pytest.raises(BadSetting, match=", ".join(config.REQUIRED_IN_PRODUCTION)):
        config.load({"MCS_ENV": "production"})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"FLASK_DEBUG": "1"}, "FLASK_DEBUG is on: debug mode is refused in production"),
        ({"FLASK_DEBUG": "true"}, "FLASK_DEBUG is on"),
        ({"SECRET_KEY": "dev"}, "SECRET_KEY is too short to be secret"),
        ({"MCS_UNSUBSCRIBE_KEYS": f"{SECRET},old"}, "MCS_UNSUBSCRIBE_KEYS is too short"),
        ({"MCS_BASE_URL": "http://mcs.example"}, "unsubscribe links in production need https"),
        ({"MCS_BASE_URL": "mcs.example"}, "use https://your.host"),
        ({"MCS_ENV": "prod"}, "MCS_ENV=prod is not usable: use development or production"),
        ({"DATABASE_URL": "mysql://db"}, "DATABASE_URL is not usable: it starts with postgres://"),
        ({"REDIS_URL": "redis.example"}, "REDIS_URL is not usable: it starts with redis://"),
        ({"MAIL_USE_TLS": "1", "MAIL_USE_SSL": "1"}, "MAIL_USE_SSL and MAIL_USE_TLS are both on"),
        ({"MAIL_PORT": "0"}, "MAIL_PORT=0 is not usable: use a whole number from 1 to 65535"),
        ({"PORT": "http"}, "PORT=http is not usable"),
        ({"MCS_TIMEZONE": "Mars/Olympus"}, "MCS_TIMEZONE=Mars/Olympus is not a time zone"),
        ({"MCS_TIMEZONE": "../UTC"}, "is not a time zone"),
        ({"MCS_TIMEZONE": "Europe"}, "is not a time zone"),
        ({"MCS_TIMEZONE": "right/Europe/Berlin"}, "is not a time zone"),
        ({"MCS_SEND_RATE": "0"}, "MCS_SEND_RATE=0 is not usable: use messages a second"),
        ({"MCS_SEND_RATE": "nan"}, "MCS_SEND_RATE=nan is not usable"),
        ({"MCS_ON_DOUBT": "guess"}, "MCS_ON_DOUBT=guess is not usable: use hold or resend"),
        ({"MCS_LATE_LIMIT_MINUTES": "-1"}, "MCS_LATE_LIMIT_MINUTES=-1 is not usable"),
        ({"MCS_LEASE_SECONDS": "1"}, "MCS_LEASE_SECONDS=1 is not usable"),
        ({"MCS_SMTP_CONNECTIONS": "many"}, "MCS_SMTP_CONNECTIONS=many is not usable"),
        ({"MCS_REDIS_TLS_VERIFY": "perhaps"}, "MCS_REDIS_TLS_VERIFY=perhaps is not usable"),
        ({"MCS_WEBHOOK_ALLOW": "shop.example"}, "is not usable: use host:port, separated by"),
        ({"MCS_WEBHOOK_ALLOW": "https://shop.example:443"}, "is not usable: use host:port"),
        ({"MCS_WEBHOOK_ALLOW": "shop.example:443/hook"}, "is not usable: use host:port"),
        ({"MCS_WEBHOOK_ALLOW": "shop.example:99999"}, "is not usable: use host:port"),
    ],
)
def test_what_cannot_be_is_one_line(
    load: Callable[..., Settings], changes: dict[str, str], line: str
) -> None:
    with pytest.raises(BadSetting) as refused:
        load(**changes)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_hosts_of_one_s_own(load: Callable[..., Settings]) -> None:
    assert load().webhook_allow == ()
    given = load(MCS_WEBHOOK_ALLOW="Shop.example:8443, 10.0.0.7:80,")
    assert given.webhook_allow == ("shop.example:8443", "10.0.0.7:80")


def test_a_secret_may_have_commas(load: Callable[..., Settings]) -> None:
    assert load(SECRET_KEY="a, b, c and so on, up to 16").secret_key.endswith("up to 16")


def test_no_line_shows_a_secret(load: Callable[..., Settings]) -> None:
    for changes in ({"SECRET_KEY": "hunter2"}, {"DATABASE_URL": "mysql://ada:hunter2@db.example"},
                    {"REDIS_URL": "http://:hunter2@redis.example"}):  # fmt: skip
        with pytest.raises(BadSetting) as refused:
            load(**changes)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://ada@db/mcs", "postgresql+psycopg://ada@db/mcs"),
        (
            "postgresql://ada@db/mcs?sslmode=require",
            "postgresql+psycopg://ada@db/mcs?sslmode=require",
        ),
        ("postgresql+psycopg://ada@db/mcs", "postgresql+psycopg://ada@db/mcs"),
        ("sqlite:////srv/mcs.db", "sqlite:////srv/mcs.db"),
    ],
)
def test_the_driver_of_a_database_url_is_ours(
    load: Callable[..., Settings], given: str, used: str
) -> None:
    assert load(DATABASE_URL=given).database_url == used


def test_a_file_without_a_folder_is_the_same_for_all_processes(
    load: Callable[..., Settings],
) -> None:
    settings = load(DATABASE_URL="sqlite:///shop.db")
    assert settings.database_url == f"sqlite:///{settings.instance / 'shop.db'}"


def test_a_host_may_show_a_certificate_that_it_signed_itself(
    load: Callable[..., Settings],
) -> None:
    assert load().redis_tls_verify
    checked = connect(load().redis_url, load().redis_tls_verify)
    assert checked.connection_pool.connection_kwargs.get("ssl_cert_reqs", "required") == "required"
    settings = load(MCS_REDIS_TLS_VERIFY="0")
    trusting = connect(settings.redis_url, settings.redis_tls_verify)
    assert trusting.connection_pool.connection_kwargs["ssl_cert_reqs"] == "none"
    assert trusting.connection_pool.connection_kwargs["ssl_check_hostname"] is False


def test_development_makes_up_what_is_missing_and_keeps_it(tmp_path: Path) -> None:
    given = {"MCS_INSTANCE": str(tmp_path / "instance")}
    settings, again = config.load(given), config.load(given)
    assert not settings.production
    assert settings.embedded_mail and settings.embedded_redis
    assert len(settings.secret_key) >= 32
    assert (settings.secret_key, settings.unsubscribe_keys) == (
        again.secret_key,
        again.unsubscribe_keys,
    )
    assert settings.database_url == f"sqlite:///{tmp_path / 'instance' / 'mcs.db'}"


@pytest.mark.parametrize(
    ("given", "port"),
    [
        ({}, 25),
        ({"MAIL_USE_TLS": "1"}, 587),
        ({"MAIL_USE_SSL": "1"}, 465),
        ({"MAIL_USE_SSL": "1", "MAIL_PORT": "2525"}, 2525),
    ],
)
def test_the_relays_usual_port(
    load: Callable[..., Settings], given: dict[str, str], port: int
) -> None:
    assert load(**given).mail_port == port
