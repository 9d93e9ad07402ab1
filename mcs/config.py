"""Settings from the environment. A bad or missing value stops the start with one clear line."""

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

T = TypeVar("T")

DEVELOPMENT, PRODUCTION = "development", "production"
REQUIRED_IN_PRODUCTION = (
    "DATABASE_URL",
    "REDIS_URL",
    "SECRET_KEY",
    "MCS_UNSUBSCRIBE_KEYS",
    "MCS_BASE_URL",
    "MAIL_SERVER",
)
ROOT = Path(__file__).resolve().parent.parent


class BadSetting(Exception):
    """A setting that cannot be used; the text is the one line to show."""


@dataclass(frozen=True)
class Settings:
    """Everything the environment decides, parsed. Times are in seconds unless the name says."""

    env: str
    instance: Path
    database_url: str
    redis_url: str
    redis_tls_verify: bool
    secret_key: str
    unsubscribe_keys: tuple[str, ...]
    base_url: str
    port: int
    timezone: ZoneInfo
    mail_server: str
    mail_port: int
    mail_username: str
    mail_password: str
    mail_use_tls: bool
    mail_use_ssl: bool
    mail_default_sender: str
    embedded_redis: bool
    embedded_mail: bool
    smtp_connections: int
    send_rate: float | None
    on_doubt: str
    late_limit_minutes: int
    lease_seconds: int
    workers: int
    trusted_proxies: int
    webhook_allow: tuple[str, ...]

    @property
    def production(self) -> bool:
        return self.env == PRODUCTION

    @property
    def mail_domain(self) -> str:
        """The domain of Message-ID and List-Id: that of the base URL."""
        return urlsplit(self.base_url).hostname or "localhost"


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings, making up in ``MCS_INSTANCE`` what development may do without.

    Raises BadSetting with one line that names the variable and says what would be right.
    """
    source = os.environ if environ is None else environ
    read = _Reader({name: value.strip() for name, value in source.items() if value.strip()})
    env = read.one_of(
        "MCS_ENV", (DEVELOPMENT, PRODUCTION), PRODUCTION if read.has("DYNO") else DEVELOPMENT
    )
    if env == PRODUCTION:
        _refuse_unsafe_production(read)
    instance = Path(read.text("MCS_INSTANCE", str(ROOT / "instance"))).absolute()
    port = read.number("PORT", 8000, 1, 65535)
    embedded_mail = not read.has("MAIL_SERVER")
    use_ssl = read.flag("MAIL_USE_SSL", False)
    use_tls = read.flag("MAIL_USE_TLS", False)
    if use_ssl and use_tls:
        raise BadSetting(
            "MAIL_USE_SSL and MAIL_USE_TLS are both on: choose the one your relay uses"
        )
    return Settings(
        env=env,
        instance=instance,
        database_url=_database_url(read.text("DATABASE_URL", "sqlite:///mcs.db"), instance),
        redis_url=_redis_url(read.text("REDIS_URL", f"unix://{redis_socket(instance)}")),
        redis_tls_verify=read.flag("MCS_REDIS_TLS_VERIFY", True),
        secret_key=read.text("SECRET_KEY", "") or _kept_secret(instance, "secret_key"),
        unsubscribe_keys=_keys(read.text("MCS_UNSUBSCRIBE_KEYS", ""))
        or (_kept_secret(instance, "unsubscribe_key"),),
        base_url=_base_url(read.text("MCS_BASE_URL", f"http://127.0.0.1:{port}"), env),
        port=port,
        timezone=_zone(read.text("MCS_TIMEZONE", "UTC")),
        mail_server=read.text("MAIL_SERVER", "127.0.0.1"),
        mail_port=catcher_port(instance)
        if embedded_mail
        else read.number("MAIL_PORT", 465 if use_ssl else 587 if use_tls else 25, 1, 65535),
        mail_username=read.text("MAIL_USERNAME", ""),
        mail_password=read.text("MAIL_PASSWORD", ""),
        mail_use_tls=use_tls and not embedded_mail,
        mail_use_ssl=use_ssl and not embedded_mail,
        mail_default_sender=read.text("MAIL_DEFAULT_SENDER", ""),
        embedded_redis=not read.has("REDIS_URL"),
        embedded_mail=embedded_mail,
        smtp_connections=read.number("MCS_SMTP_CONNECTIONS", 8, 1, 1000),
        send_rate=read.rate("MCS_SEND_RATE"),
        on_doubt=read.one_of("MCS_ON_DOUBT", ("hold", "resend"), "hold"),
        late_limit_minutes=read.number("MCS_LATE_LIMIT_MINUTES", 120, 0, 60 * 24 * 7),
        lease_seconds=read.number("MCS_LEASE_SECONDS", 45, 2, 3600),
        workers=read.number("MCS_WORKERS", 2, 1, 64),
        trusted_proxies=read.number("MCS_TRUSTED_PROXIES", 1 if read.has("DYNO") else 0, 0, 10),
        webhook_allow=read.hosts("MCS_WEBHOOK_ALLOW"),
    )


def redis_socket(instance: Path) -> Path:
    """Where the embedded Redis of this instance folder listens.

    Not inside the folder: a unix socket's path ends at 108 bytes, and folders can be deeper.
    """
    digest = hashlib.sha256(str(instance).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"mcs-{os.getuid()}-{digest}" / "redis.sock"


def catcher_port_file(instance: Path) -> Path:
    """The file in which the running mail catcher says on which port it listens."""
    return instance / "catcher.port"


def catcher_port(instance: Path) -> int:
    """The embedded mail catcher's port: as it wrote it, or 8026 when it has not run yet."""
    try:
        return int(catcher_port_file(instance).read_text())
    except (OSError, ValueError):
        return 8026


class _Reader:
    def __init__(self, values: dict[str, str]) -> None:
        self.values = values

    def has(self, name: str) -> bool:
        return name in self.values

    def text(self, name: str, default: str) -> str:
        return self.values.get(name, default)

    def one_of(self, name: str, choices: tuple[str, ...], default: str) -> str:
        return self._parsed(
            name,
            default,
            lambda value: choices[choices.index(value)],
            f"use {' or '.join(choices)}",
        )

    def number(self, name: str, default: int, low: int, high: int) -> int:
        def parse(value: str) -> int:
            number = int(value)
            if not low <= number <= high:
                raise ValueError
            return number

        return self._parsed(name, default, parse, f"use a whole number from {low} to {high}")

    def rate(self, name: str) -> float | None:
        def parse(value: str) -> float:
            rate = float(value)
            if not 0 < rate <= 1_000_000:
                raise ValueError
            return rate

        return self._parsed(name, None, parse, "use messages a second, such as 50 or 0.5")

    def hosts(self, name: str) -> tuple[str, ...]:
        def parse(value: str) -> tuple[str, ...]:
            return tuple(_host_and_port(one.strip()) for one in value.split(",") if one.strip())

        return self._parsed(name, (), parse, "use host:port, separated by commas")

    def flag(self, name: str, default: bool) -> bool:
        words = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }
        return self._parsed(name, default, lambda value: words[value.lower()], "use 1 or 0")

    def _parsed(self, name: str, default: T, parse: Callable[[str], T], advice: str) -> T:
        if name not in self.values:
            return default
        try:
            return parse(self.values[name])
        except (ValueError, KeyError):
            raise BadSetting(f"{name}={self.values[name]} is not usable: {advice}") from None


def _refuse_unsafe_production(read: _Reader) -> None:
    missing = [name for name in REQUIRED_IN_PRODUCTION if not read.has(name)]
    if missing:
        raise BadSetting(f"MCS_ENV=production needs {', '.join(missing)}: set it and start again")
    if read.flag("FLASK_DEBUG", False):
        raise BadSetting("FLASK_DEBUG is on: debug mode is refused in production, unset it")
    for name, keys in (
        ("SECRET_KEY", (read.text("SECRET_KEY", ""),)),
        ("MCS_UNSUBSCRIBE_KEYS", _keys(read.text("MCS_UNSUBSCRIBE_KEYS", ""))),
    ):
        if any(len(key) < 16 for key in keys):
            raise BadSetting(
                f"{name} is too short to be secret: use 16 characters or more,"
                " such as the output of: python3 -c 'import secrets; print(secrets.token_hex())'"
            )


def _database_url(url: str, instance: Path) -> str:
    """``postgres://``, as hosts hand it out, names no driver: ours is psycopg 3.

    A file without a folder is in the instance folder, for each process, wherever it was started.
    """
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    if url.startswith("postgresql+psycopg://"):
        return url
    if url.startswith("sqlite:///"):
        return f"sqlite:///{instance / url.removeprefix('sqlite:///')}"
    raise BadSetting("DATABASE_URL is not usable: it starts with postgres:// or sqlite:///")


def _redis_url(url: str) -> str:
    if url.startswith(("redis://", "rediss://", "unix://")):
        return url
    raise BadSetting("REDIS_URL is not usable: it starts with redis://, rediss:// or unix://")


def _base_url(url: str, env: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadSetting(f"MCS_BASE_URL={url} is not usable: use https://your.host")
    if env == PRODUCTION and parts.scheme != "https":
        raise BadSetting(
            f"MCS_BASE_URL={url} is not usable: unsubscribe links in production need https"
        )
    return url.rstrip("/")


def _host_and_port(text: str) -> str:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or not parts.port or parts.netloc != text or "@" in text:
        raise ValueError(text)
    return f"{parts.hostname}:{parts.port}"


def _zone(name: str) -> ZoneInfo:
    # OSError: a folder of zones. The names of all would take 30 ms to read, in each process; that
    # list is without the copies that count leap seconds ("right/") or do not ("posix/").
    try:
        if name.startswith(("right/", "posix/")):
            raise ValueError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSetting(
            f"MCS_TIMEZONE={name} is not a time zone: use one such as Europe/Berlin"
        ) from None


def _keys(value: str) -> tuple[str, ...]:
    return tuple(key.strip() for key in value.split(",") if key.strip())


def _kept_secret(instance: Path, name: str) -> str:
    """A secret made once and kept in the instance folder, so that a restart changes nothing."""
    path = instance / name
    try:
        instance.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_once(path, secrets.token_hex(32))
        return path.read_text().strip()
    except OSError as error:
        raise BadSetting(
            f"{instance} cannot be used ({error.strerror}): set MCS_INSTANCE to a folder"
            " that can be written to"
        ) from None


def _write_once(path: Path, text: str) -> None:
    """Write whole or not at all: two processes starting at once end up with the same secret."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with open(handle, "w") as file:
        file.write(text)
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    os.unlink(draft)
