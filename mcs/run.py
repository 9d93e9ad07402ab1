"""``make run``: starts all of MCS on this machine, keeps it running, and stops all of it.

Redis and a mail catcher are started where REDIS_URL and MAIL_SERVER name none.
"""

import argparse
import contextlib
import fcntl
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from mcs import config
from mcs.gateways import journal
from mcs.gateways.jobqueue import connect
from mcs.gateways.redis_server import redis_program
from mcs.gateways.supervisor import NotStarted, Part, Supervisor, clear_leftovers

HOST = "127.0.0.1"
USUAL_OF_REDIS = (
    "oO0OoO0OoO0Oo Redis is starting",
    "Redis version=",
    "Configuration loaded",
    "Server initialized",
    "WARNING Memory overcommit must be enabled",
    "Received SIGTERM",
    "User requested shutdown",
    "Redis is now ready to exit",
    "Valkey is now ready to exit",
)


def main(arguments: list[str] | None = None) -> int:
    """Run until Ctrl-C or SIGTERM. Exit code 1, and one line, when it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m mcs.run",
        description="Start MCS on this machine: web pages, workers, the clock, and an embedded"
        " Redis and mail catcher where none is named. Ctrl-C stops all of it.",
        epilog="Settings come from the environment: PORT, MCS_WORKERS, MCS_INSTANCE, DATABASE_URL,"
        " REDIS_URL, MAIL_SERVER and more.",
    )
    parser.parse_args(arguments)
    try:
        _run(config.load())
    except (config.BadSetting, NotStarted) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _run(settings: config.Settings) -> None:
    instance = settings.instance
    ledger = instance / "processes"
    with _alone(instance):
        clear_leftovers(ledger)
        _refuse_taken_port(settings.port)
        supervisor = Supervisor(_environ(os.environ), config.ROOT, ledger)
        supervisor.take_signals()
        try:
            preparing = _begin_preparing(supervisor.environ)
            supervisor.start(_foundations(settings))
            token = _prepared(preparing, supervisor)
            supervisor.start(_others(settings))
            supervisor.run(lambda: _listens(settings.port), _greeting(settings.port, token))
        finally:
            supervisor.stop()


@contextlib.contextmanager
def _alone(instance: Path) -> Iterator[None]:
    """Hold the instance folder; the system lets go of it however we end."""
    try:
        instance.mkdir(parents=True, exist_ok=True)
        lock = open(instance / "run.lock", "a+")  # noqa: SIM115  # Held while we run.
    except OSError as error:
        raise NotStarted(
            f"{instance} cannot be used ({error.strerror}): set MCS_INSTANCE to a folder"
            " that can be written to"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise NotStarted(
                f"MCS runs already on {instance} (process {lock.read().strip()}):"
                " stop it first, or set MCS_INSTANCE to another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise NotStarted(
                f"port {port} cannot be used ({error.strerror}): stop what uses it, or choose"
                f" another, such as: PORT={port + 1 if port < 65535 else 8000} make run"
            ) from None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _environ(given: Mapping[str, str]) -> dict[str, str]:
    return {**given, "PYTHONUNBUFFERED": "1", journal.PREFIXED: "1"}


def _foundations(settings: config.Settings) -> list[Part]:
    parts = []
    if settings.embedded_redis:
        parts.append(_redis(settings.instance))
    if settings.embedded_mail:
        parts.append(_mail(settings.instance))
    return parts


def _redis(instance: Path) -> Part:
    folder = instance / "redis"
    folder.mkdir(exist_ok=True)
    socket_path = config.redis_socket(instance)
    _own_folder(socket_path.parent)
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    command = [redis_program()]
    for name, value in options.items():
        command += [f"--{name}", value]
    client = connect(f"unix://{socket_path}")

    def ready() -> bool:
        with contextlib.suppress(Exception):
            return bool(client.ping())
        return False

    return Part("redis", command, foundation=True, ready=ready, tidy=_redis_line)


def _redis_line(line: str) -> str:
    """Without its own process id and time, and without the lines of every start."""
    said = re.sub(r"^\d+:\S+ (\(\d+\) |\d+ \w+ \d{4} [\d:.]+ \S )", "", line).strip()
    return "" if said.startswith(USUAL_OF_REDIS) else said


def _own_folder(folder: Path) -> None:
    """A folder under the shared temporary one, which nobody else may have put there for us."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink():
        raise NotStarted(f"{folder} belongs to somebody else: remove it, or set REDIS_URL")
    folder.chmod(0o700)


def _mail(instance: Path) -> Part:
    command = [sys.executable, "-m", "mcs.gateways.catcher", str(instance)]

    def ready() -> bool:
        return _listens(config.catcher_port(instance))

    return Part("mail", command, foundation=True, ready=ready)


def _others(settings: config.Settings) -> list[Part]:
    gunicorn = [sys.executable, "-m", "gunicorn", "--bind", f"{HOST}:{settings.port}", "wsgi:app"]
    worker = [sys.executable, "worker.py"]
    return [
        Part("web", gunicorn, sweep=True),
        Part("clock", [sys.executable, "-m", "mcs.clock"]),
        *(Part(f"worker-{number}", worker) for number in range(1, settings.workers + 1)),
    ]


def _begin_preparing(environ: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "mcs.prepare"],
        cwd=config.ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _prepared(preparing: "subprocess.Popen[str]", supervisor: Supervisor) -> str:
    """The token of the setup link, or nothing. Raises NotStarted."""
    token, trouble = preparing.communicate()
    if preparing.returncode and not supervisor.stopping:
        raise NotStarted(trouble.strip() or "the database could not be prepared")
    return token.strip()


def _greeting(port: int, token: str) -> str:
    address = f"http://{HOST}:{port}"
    if not token:
        return f"MCS runs: open {address}/"
    return f"MCS runs: open {address}/setup?token={token} to make the first user"


if __name__ == "__main__":
    sys.exit(main())
