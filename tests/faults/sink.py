"""A scripted SMTP server, in a process of its own, that plays every fault a real one has.

``python -m tests.faults.sink FOLDER PORT`` listens on 127.0.0.1. It appends each accepted message
to ``FOLDER/accepted`` (time, X-MCS-Delivery, recipient, subject), each kill to ``FOLDER/kills``,
and reads its rules from ``FOLDER/rules``, anew whenever they change.

A rule is a JSON object. ``at``: connect, ehlo, mail, rcpt, data, body, dot (its content is whole,
nothing is accepted yet), accepted (written down, no reply yet), answered. ``do``: a reply, or cut,
hang, garbage, kill (SIGKILL to the peer), stop (SIGSTOP). Which ones: ``nth`` of them, or those
with a ``chance``, or ``to`` a recipient that contains this, or the ``first`` try of each recipient.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

Rule = dict[str, Any]
GARBAGE = b"\x00\xff\x01 what? \x00\r\n99999 no\r\n"


class Cut(Exception):
    """The server ends the connection."""


class Sink:
    """All connections' server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.accepted = os.open(folder / "accepted", os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        self.rules: list[Rule] = []
        self.options: dict[str, Any] = {}
        self.read_at = -1.0
        self.seen: Counter[int] = Counter()
        self.tried: set[tuple[str, str]] = set()
        self.dice = random.Random(0)

    def read_rules(self) -> None:
        path = self.folder / "rules"
        changed = path.stat().st_mtime_ns
        if changed != self.read_at:
            told = json.loads(path.read_text())
            self.read_at, self.rules, self.options = changed, told["rules"], told
            self.seen.clear()
            self.tried.clear()
            self.dice = random.Random(told["seed"])

    def found(self, at: str, recipient: str, carried: int) -> str:
        """What the script says to do here; nothing for going on.

        ``carried`` is how many messages this connection has.
        """
        for number, rule in enumerate(self.rules):
            if rule["at"] != at or rule.get("to", "") not in recipient:
                continue
            if carried < rule.get("after", 0):
                continue
            if rule.get("first"):
                if (at, recipient) in self.tried:
                    continue
                self.tried.add((at, recipient))
            if "chance" in rule and self.dice.random() >= rule["chance"]:
                continue
            self.seen[number] += 1
            if "nth" in rule and self.seen[number] not in rule["nth"]:
                continue
            return str(rule["do"])
        return ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.read_rules()
        with contextlib.suppress(Cut, ConnectionError, asyncio.IncompleteReadError):
            await Talk(self, reader, writer).talk()
        with contextlib.suppress(ConnectionError):
            writer.transport.abort()


class Talk:
    """One connection."""

    def __init__(
        self, sink: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.sink, self.reader, self.writer = sink, reader, writer
        self.peer = writer.get_extra_info("peername")[1]
        self.recipient = ""
        self.carried = 0

    async def talk(self) -> None:
        if await self.play("connect", "220 sink.example ESMTP"):
            return
        while line := (await self.reader.readline()).decode("utf-8", "replace").strip():
            verb = line[:4].upper()
            if verb in ("EHLO", "HELO"):
                await self.play("ehlo", self.greeting())
            elif verb == "STAR":
                self.say("220 go on")
                tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                tls.load_cert_chain(self.sink.options["certificate"])
                await self.writer.start_tls(tls)
            elif verb == "MAIL":
                await self.play("mail", "250 2.1.0 OK")
            elif verb == "RCPT":
                self.recipient = line[line.index("<") + 1 : line.index(">")]
                refused = await self.play("rcpt", "250 2.1.5 OK")
                self.recipient = "" if refused else self.recipient
            elif verb == "DATA":
                await self.data()
            elif verb == "QUIT":
                self.say("221 2.0.0 Bye")
                return
            else:
                self.say("250 2.0.0 OK")

    def greeting(self) -> str:
        offers = ["sink.example", "8BITMIME", "SMTPUTF8"]
        offers += ["PIPELINING"] if self.sink.options.get("pipelining", True) else []
        offers += ["STARTTLS"] if self.sink.options.get("certificate") else []
        return "\r\n".join([f"250-{offer}" for offer in offers[:-1]] + [f"250 {offers[-1]}"])

    async def data(self) -> None:
        if not self.recipient:
            self.say("503 5.5.1 No recipient")
            return
        if await self.play("data", "354 go on"):
            return
        delivery, subject = "", ""
        begun = False
        while (line := await self.reader.readline()) != b".\r\n":
            if not line:
                raise Cut
            if not begun:
                begun = True
                await self.play("body", "")
            if line.lower().startswith(b"x-mcs-delivery:"):
                delivery = line.partition(b":")[2].strip().decode()
            if line.lower().startswith(b"subject:") and not subject:
                subject = line.partition(b":")[2].strip().decode("ascii", "replace")
        if await self.play("dot", ""):
            return
        entry = f"{time.time():.6f} {delivery} {self.recipient} {subject}\n"
        os.write(self.sink.accepted, entry.encode())
        self.carried += 1
        if not await self.play("accepted", "250 2.0.0 OK: taken"):
            await self.writer.drain()
            await self.play("answered", "")

    async def play(self, at: str, otherwise: str) -> bool:
        """Do what the script says at this point, or reply otherwise. True for a refusal."""
        do = self.sink.found(at, self.recipient, self.carried)
        if do == "cut":
            raise Cut
        if do == "hang":
            await asyncio.sleep(3600)
        if do in ("kill", "stop"):
            self.signal_peer(signal.SIGKILL if do == "kill" else signal.SIGSTOP)
            if do == "kill":
                raise Cut
        if do == "garbage":
            self.writer.write(GARBAGE)
            raise Cut
        if do[:1].isdigit():
            self.say(do)
            if do.startswith("421"):
                raise Cut
            return True
        if otherwise:
            self.say(otherwise)
        return False

    def say(self, line: str) -> None:
        self.writer.write(f"{line}\r\n".encode())

    def signal_peer(self, number: signal.Signals) -> None:
        for process in owners(self.peer):
            with open(self.sink.folder / "kills", "a") as kills:
                kills.write(f"{time.time()} {process} {number.name}\n")
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def owners(port: int) -> list[int]:
    """The processes that hold the loopback socket with this local port."""
    inode = ""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if int(columns[1].rpartition(":")[2], 16) == port and columns[9] != "0":
            inode = columns[9]
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(os.readlink(fd) == f"socket:[{inode}]" for fd in (process / "fd").iterdir()):
                found.append(int(process.name))
    return found


async def main(folder: str, port: str) -> None:
    sink = Sink(Path(folder))
    server = await asyncio.start_server(sink.serve, "127.0.0.1", int(port), backlog=500)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
