"""Whether the mail server is there: asked for the health line, never while sending."""

import contextlib
import socket
import time

ASK_AGAIN_SECONDS = 15.0
PATIENCE_SECONDS = 1.0


class MailServerCheck:
    """Connects now and then, remembering the answer in between. It sends nothing."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self._answer = False
        self._good_until = 0.0

    def answers(self) -> bool:
        """Whether something accepts connections at the server's address. Never raises."""
        if time.monotonic() >= self._good_until:
            self._answer = self._connects()
            self._good_until = time.monotonic() + ASK_AGAIN_SECONDS
        return self._answer

    def _connects(self) -> bool:
        with contextlib.suppress(OSError, UnicodeError):
            with socket.create_connection((self.host, self.port), PATIENCE_SECONDS) as connection:
                # A polite goodbye, so that the server does not log a broken connection.
                connection.sendall(b"QUIT\r\n")
            return True
        return False
