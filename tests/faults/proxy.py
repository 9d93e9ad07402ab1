"""A TCP proxy in front of PostgreSQL that cuts a connection at its COMMIT.

``before`` the server sees it, or ``after`` it did it and before the client hears of it.
"""

import asyncio
import contextlib
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class Proxy:
    """Runs on a thread of its own. ``cut_at`` is the number of the COMMIT to cut, counted from when
    it was set; 0 for none.
    """

    def __init__(self, target: str, port: int) -> None:
        url = urlsplit(target)
        host = parse_qs(url.query).get("host", [url.hostname or ""])[0]
        self.socket = str(Path(host) / f".s.PGSQL.{url.port or 5432}") if host[:1] == "/" else ""
        self.host, self.server_port, self.port = host, url.port or 5432, port
        self.when, self.cut_at, self.cuts = "before", 0, 0
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()

    def arm(self, when: str, number: int) -> None:
        """Cut the COMMIT of that number from now on."""
        self.when, self.cut_at = when, number

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.create_task(asyncio.start_server(self._carry, "127.0.0.1", self.port))
        self.loop.run_forever()

    async def _carry(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if self.socket:
            server, on = await asyncio.open_unix_connection(self.socket)
        else:
            server, on = await asyncio.open_connection(self.host, self.server_port)
        cut = asyncio.Event()
        pumps = [
            asyncio.create_task(self._forward(client, on, back, cut)),
            asyncio.create_task(self._backward(server, back, cut)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        if cut.is_set():
            await asyncio.sleep(0.2)  # The server does what it was told, and nobody hears of it.
        for pump in pumps:
            pump.cancel()
        back.transport.abort()
        with contextlib.suppress(ConnectionError):
            on.close()

    async def _forward(
        self,
        client: asyncio.StreamReader,
        on: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        cut: asyncio.Event,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while said := await client.read(65536):
                if self.cut_at and b"COMMIT" in said:
                    self.cut_at -= 1
                    if not self.cut_at:
                        self.cuts += 1
                        if self.when == "before":
                            return
                        cut.set()
                        on.write(said)
                        await on.drain()
                        return
                on.write(said)
                await on.drain()

    async def _backward(
        self, server: asyncio.StreamReader, back: asyncio.StreamWriter, cut: asyncio.Event
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while said := await server.read(65536):
                if cut.is_set():
                    continue
                back.write(said)
                await back.drain()
