"""Which database it is, from a URL or from its parts."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from mcs.library.arguments import BadArgument
from mcs.models import configure_engine, ping_when_rested

DEFAULT_STORAGE = "campaigns.db"
_DRIVERS = {
    "sqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_DB_KEYS = ["url", "dialect", "storage", "host", "port", "username", "password", "database"]
_DB_KEYS += ["schema", "force", "logging"]


def read_options(db: str | Mapping[str, Any] | None) -> dict[str, Any]:
    if db is None:
        return {"dialect": "sqlite", "storage": DEFAULT_STORAGE}
    if isinstance(db, str):
        return {"url": db}
    if not isinstance(db, Mapping):
        raise BadArgument("db", f"{db!r}: give a URL or a mapping")
    for name in db:
        if name not in _DB_KEYS:
            raise BadArgument(f"db[{name!r}]", f"unknown: use {', '.join(_DB_KEYS)}")
    return dict(db)


def make_engine(options: Mapping[str, Any]) -> Engine:
    url = _url(options)
    settings: dict[str, Any] = {"echo": bool(options.get("logging", False))}
    dialect = url.get_backend_name()
    if dialect in ("mysql", "mariadb"):
        # What a worker reads must not be older than what others have committed.
        settings["isolation_level"] = "READ COMMITTED"
    schema = options.get("schema")
    if schema is not None:
        if dialect != "postgresql" or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(schema)):
            raise BadArgument("db['schema']", f"{schema!r}: a plain name, and only on PostgreSQL")
        settings["execution_options"] = {"schema_translate_map": {None: schema}}
    return ping_when_rested(configure_engine(create_engine(url, **settings)))


def _url(options: Mapping[str, Any]) -> URL:
    given = options.get("url")
    if given is None:
        return _built_url(options)
    try:
        url = make_url(given)
    except ArgumentError:
        raise BadArgument("db", f"{given!r} is no database URL") from None
    name, _, driver = url.drivername.partition("+")
    if name not in _DRIVERS:
        raise BadArgument("db", f"{name!r}: use {', '.join(_DRIVERS)}")
    return _filed(url if driver else url.set(drivername=_DRIVERS[name]))


def _built_url(options: Mapping[str, Any]) -> URL:
    dialect = options.get("dialect", "sqlite")
    if dialect not in _DRIVERS:
        raise BadArgument("db['dialect']", f"{dialect!r}: use {', '.join(_DRIVERS)}")
    if dialect == "sqlite":
        return _filed(URL.create("sqlite", database=str(options.get("storage", DEFAULT_STORAGE))))
    if not options.get("database"):
        raise BadArgument("db['database']", "name the database")
    return URL.create(
        _DRIVERS[dialect],
        username=options.get("username"),
        password=options.get("password"),
        host=options.get("host", "localhost"),
        port=options.get("port"),
        database=options["database"],
    )


def _filed(url: URL) -> URL:
    if url.get_backend_name() != "sqlite":
        return url
    if not url.database or url.database == ":memory:":
        raise BadArgument("db", "SQLite in memory cannot be shared by threads: name a file")
    Path(url.database).absolute().parent.mkdir(parents=True, exist_ok=True)
    return url
