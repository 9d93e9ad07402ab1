"""A TCP proxy on loopback that adds a round-trip time: ``python -m benchmarks.delay 2525 25 50``.

Each chunk is held for half of it, either way, without holding back what follows.
"""

import asyncio
import sys


class _Side(asyncio.Protocol):
    """One end of a proxied connection; what it receives leaves at ``other`` after the delay."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        for data in self._early:
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self._delay, self._pass_on, data)

    def connection_lost(self, exc: Exception | None) -> None:
        asyncio.get_running_loop().call_later(self._delay, self._hang_up)

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _pass_on(self, data: bytes) -> None:
        if self.other is not None:
            self.other.write(data)

    def _hang_up(self) -> None:
        if self.other is not None:
            self.other.close()


async def serve(front: int, back: int, milliseconds: float) -> None:
    """Pass 127.0.0.1:front on to 127.0.0.1:back, for ever."""
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[None]] = set()

    def accept() -> _Side:
        near, far = (_Side(milliseconds / 2000) for _ in range(2))
        near.other, far.other = far, near
        task = loop.create_task(_connect(far, back))
        pending.add(task)
        task.add_done_callback(pending.discard)
        return near

    server = await loop.create_server(accept, "127.0.0.1", front, backlog=1000)
    await server.serve_forever()


async def _connect(far: _Side, port: int) -> None:
    await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", port)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
