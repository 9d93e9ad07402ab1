"""A supervisor: keeps processes running, puts what they say into one log, leaves none behind.

Each part runs in a session of its own, so that Ctrl-C reaches the supervisor alone, and ends when
the supervisor is killed. Why not one off the shelf: docs/adr/0004-supervisor.md.
"""

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType

import psutil

from mcs.gateways import lifeline

CALM_SECONDS = 30  # Who ran this long before it stopped is started again at once.
LONGEST_DELAY = 15
LOOP_STOPS, LOOP_SECONDS = 5, 60
LONGEST_LINE = 16_384
ORPHANS_PATIENCE = 10  # A horse whose worker was killed still drains.


class NotStarted(Exception):
    """Something that keeps the parts from starting; the text is the one line to show."""


@dataclass(frozen=True)
class Part:
    """A process to keep running. A foundation starts before the others and ends after them."""

    name: str
    command: Sequence[str]
    foundation: bool = False
    ready: Callable[[], bool] = lambda: True
    tidy: Callable[[str], str] = str.rstrip  # What to show of a line it says; nothing hides it.
    patience: float = 28
    sweep: bool = False  # Kill what a dead one left, since it would be in the next one's way.


@dataclass
class _Child:
    part: Part
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0
    start_at: float = 0
    in_a_row: int = 0
    stops: deque[float] = field(default_factory=deque)
    named_at: float = float("-inf")
    unfinished: bytes = b""
    last_line: str = "(nothing)"


class Supervisor:
    """Runs parts in the foreground. ``ledger`` is the file in which it notes its processes."""

    def __init__(self, environ: Mapping[str, str], folder: Path, ledger: Path) -> None:
        self.environ, self.folder, self.ledger = environ, folder, ledger
        self.children: list[_Child] = []
        self.sessions: set[int] = set()
        self.selector = selectors.DefaultSelector()
        self.asked_to_stop_at: float | None = None
        self.hurry = False

    # Starting.

    def start(self, parts: Sequence[Part], seconds: float = 30) -> None:
        """Start parts and wait until they are ready. Raises NotStarted when one is not."""
        started = [_Child(part) for part in parts]
        self.children += started
        deadline = time.monotonic() + seconds
        while not self.stopping:
            self._turn(0.05)
            late = [child.part for child in started if not child.part.ready()]
            if not late:
                return
            if time.monotonic() > deadline:
                names = ", ".join(part.name for part in late)
                raise NotStarted(f"{names} did not come up within {seconds:.0f} s")

    def run(self, ready: Callable[[], bool], greeting: str) -> None:
        """Keep everything running until a signal; say the greeting once it is ready."""
        greeted = False
        while not self.stopping:
            self._turn(1 if greeted else 0.05)
            if not greeted and ready():
                greeted = True
                self.say(greeting)

    def take_signals(self) -> None:
        """SIGINT, SIGTERM and SIGHUP stop everything; a second one does it in a hurry."""
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakers = (reader, writer)
        self.selector.register(reader, selectors.EVENT_READ, None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked_to_stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    @property
    def stopping(self) -> bool:
        return self.asked_to_stop_at is not None

    def say(self, text: str, name: str = "run") -> None:
        """A line of the log: the time, who says it, what."""
        with contextlib.suppress(OSError):  # A closed terminal; the signal for that is coming.
            for line in text.splitlines():
                sys.stdout.write(f"{datetime.now():%H:%M:%S} {name:<9} {line}\n")  # noqa: DTZ005
            sys.stdout.flush()

    def _asked_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked_to_stop_at is None:
            self.asked_to_stop_at = time.monotonic()
        elif time.monotonic() - self.asked_to_stop_at > 1:  # make and a terminal both send it.
            self.hurry = True

    # One turn: read what they say, see who ended, start who is due.

    def _turn(self, seconds: float) -> None:
        due = [child.start_at for child in self.children if child.process is None]
        if due and not self.stopping:
            seconds = min(seconds, max(0, min(due) - time.monotonic()))
        for key, _events in self.selector.select(seconds):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._wakers[0].recv(4096)
            else:
                self._read(key.data)
        for child in self.children:
            if child.process is not None and child.process.poll() is not None:
                self._ended(child, child.process)
        if not self.stopping:
            for child in self.children:
                if child.process is None and child.start_at <= time.monotonic():
                    self._start(child)

    def _start(self, child: _Child) -> None:
        mine = os.getpid()
        child.process = subprocess.Popen(
            child.part.command,
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: lifeline.end_with_parent(mine, signal.SIGTERM),
        )
        child.started_at = time.monotonic()
        self.sessions.add(child.process.pid)
        _note(self.ledger, child.process.pid)
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self.selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _read(self, child: _Child) -> None:
        assert child.process is not None
        assert child.process.stdout is not None
        try:
            heard = os.read(child.process.stdout.fileno(), 65536)
        except BlockingIOError:
            return
        if not heard:
            self.selector.unregister(child.process.stdout)
        *lines, child.unfinished = (child.unfinished + heard).split(b"\n")
        if child.unfinished and (not heard or len(child.unfinished) > LONGEST_LINE):
            lines.append(child.unfinished)
            child.unfinished = b""
        for line in lines:
            text = child.part.tidy(line.decode(errors="replace"))
            if text:
                child.last_line = text
                self.say(text, child.part.name)

    def _ended(self, child: _Child, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with contextlib.suppress(KeyError):
            self._read(child)
            self.selector.unregister(process.stdout)
        process.stdout.close()
        child.process = None
        if child.part.sweep:
            _signal({process.pid}, signal.SIGKILL)
        if not self.stopping:
            self._plan_restart(child, process.returncode)

    def _plan_restart(self, child: _Child, code: int) -> None:
        moment = time.monotonic()
        calm = moment - child.started_at > CALM_SECONDS
        child.in_a_row = 1 if calm else child.in_a_row + 1
        delay = 0.0 if child.in_a_row == 1 else min(2.0 ** (child.in_a_row - 2), LONGEST_DELAY)
        child.start_at = moment + delay
        child.stops.append(moment)
        while child.stops[0] < moment - LOOP_SECONDS:
            child.stops.popleft()
        when = f"in {delay:.0f} s" if delay else "at once"
        self.say(f"{child.part.name} stopped ({_how(code)}): starting it again {when}")
        if len(child.stops) >= LOOP_STOPS and moment - child.named_at > LOOP_SECONDS:
            child.named_at = moment
            self.say(
                f"{child.part.name} keeps stopping: {len(child.stops)} times in a minute;"
                f" its last line was: {child.last_line}"
            )

    # Stopping.

    def stop(self) -> None:
        """End every part, foundations last, and whatever they started."""
        self.asked_to_stop_at = self.asked_to_stop_at or time.monotonic()
        self._stop([child for child in self.children if not child.part.foundation])
        self._stop([child for child in self.children if child.part.foundation])
        _end(self.sessions, 0 if self.hurry else ORPHANS_PATIENCE)
        self.ledger.unlink(missing_ok=True)

    def _stop(self, children: list[_Child]) -> None:
        deadline = time.monotonic() + max((child.part.patience for child in children), default=0)
        for child in children:
            if child.process is not None:
                child.process.terminate()
        while any(child.process for child in children):
            if self.hurry or time.monotonic() > deadline:
                for child in children:
                    if child.process is not None:
                        child.process.kill()
            self._turn(0.1)


def clear_leftovers(ledger: Path, seconds: float = 30) -> None:
    """End what a supervisor that was killed left behind: it may still hold our port and files."""
    _end(_noted(ledger), seconds)
    ledger.unlink(missing_ok=True)


def _note(ledger: Path, process: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess), open(ledger, "a") as lines:
        lines.write(f"{process} {psutil.Process(process).create_time()}\n")


def _noted(ledger: Path) -> set[int]:
    """The sessions in the ledger, less those whose number the system has given to another."""
    try:
        notes = [line.split() for line in ledger.read_text().splitlines()]
    except OSError:
        return set()
    return {int(note[0]) for note in notes if len(note) == 2 and not _reused(*note)}


def _reused(process: str, created_at: str) -> bool:
    """A dead leader's number stays taken while its session has members, so only a live one lies."""
    try:
        really: float = psutil.Process(int(process)).create_time()
        return abs(really - float(created_at)) > 1
    except psutil.NoSuchProcess:
        return False


def _members(sessions: set[int]) -> list[psutil.Process]:
    """The live processes of these sessions."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _end(sessions: set[int], seconds: float) -> None:
    """Ask the members of these sessions to end, and kill those that have not after a while."""
    _signal(sessions, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while _members(sessions) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(sessions, signal.SIGKILL)


def _signal(sessions: set[int], number: signal.Signals) -> None:
    for process in _members(sessions):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
