"""A TCP proxy on loopback that adds a round-trip time: ``python -m benchmarks.delay 2525 25 50``.

Each chunk is held for half of it, either way, without holding back what follows. Not asyncio, whose
timers are up to a millisecond late each way, and which costs three times as much.
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
        self._open = select.epoll()
        self._open.register(self._door, select.EPOLLIN)
        # By its number, a socket and the one at the other end.
        self._pairs: dict[int, tuple[socket.socket, socket.socket]] = {}
        # When what is to arrive where; nothing at all is the end of the connection.
        self._under_way: deque[tuple[float, socket.socket, bytes]] = deque()

    def serve(self) -> None:
        """For ever."""
        while True:
            left = self._under_way[0][0] - time.monotonic() if self._under_way else None
            # Epoll waits for whole milliseconds, and select looks at each of 200 sockets anew: so
            # select waits, for epoll.
            select.select([self._open], [], [], None if left is None else max(left, 0))
            for number, _ in self._open.poll(0):
                if number == self._door.fileno():
                    self._accept()
                else:
                    self._hear(number)
            self._deliver()

    def _accept(self) -> None:
        near, _ = self._door.accept()
        far = socket.create_connection(("127.0.0.1", self._back))
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[one.fileno()] = one, other
            self._open.register(one, select.EPOLLIN)

    def _hear(self, number: int) -> None:
        one, other = self._pairs[number]
        try:
            data = one.recv(LONGEST_CHUNK)
        except OSError:
            data = b""
        self._under_way.append((time.monotonic() + self._delay, other, data))
        if not data:
            self._open.unregister(one)
            del self._pairs[number]

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
