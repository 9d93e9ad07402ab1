"""A TCP proxy on loopback that adds a round-trip time: ``python -m benchmarks.delay 2525 25 50``.

Each chunk is held for half of it, either way, without holding back what follows. Plain ``select``,
since asyncio's timers are up to a millisecond late each way, and cost three times as much.
"""

import select
import socket
import sys
import time
from collections import deque

LONGEST_CHUNK = 65536


class Proxy:
    """Passes 127.0.0.1:front on to 127.0.0.1:back."""

    def __init__(self, front: int, back: int, milliseconds: float) -> None:
        self._back = back
        self._delay = milliseconds / 2000
        self._door = socket.create_server(("127.0.0.1", front), backlog=1000)
        self._others: dict[socket.socket, socket.socket] = {}
        # When what is to arrive where; nothing at all is the end of the connection.
        self._under_way: deque[tuple[float, socket.socket, bytes]] = deque()

    def serve(self) -> None:
        """For ever."""
        while True:
            left = self._under_way[0][0] - time.monotonic() if self._under_way else None
            wait = None if left is None else max(left, 0)
            readable, _, _ = select.select([self._door, *self._others], [], [], wait)
            for one in readable:
                if one is self._door:
                    self._accept()
                else:
                    self._hear(one)
            self._deliver()

    def _accept(self) -> None:
        near, _ = self._door.accept()
        far = socket.create_connection(("127.0.0.1", self._back))
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._others[one] = other

    def _hear(self, one: socket.socket) -> None:
        try:
            data = one.recv(LONGEST_CHUNK)
        except OSError:
            data = b""
        self._under_way.append((time.monotonic() + self._delay, self._others[one], data))
        if not data:
            del self._others[one]

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._under_way and self._under_way[0][0] <= now:
            _, one, data = self._under_way.popleft()
            try:
                if data:
                    one.sendall(data)
                else:
                    one.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # It has hung up.


if __name__ == "__main__":
    Proxy(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])).serve()
