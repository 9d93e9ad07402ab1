"""A server of one's own that webhooks go to: it notes each call before it answers."""

import json
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass(frozen=True)
class Heard:
    """A call: when it came, whose it is, and its key."""

    at: float
    subject_id: str
    action: str
    key: str


@dataclass
class Receiver:
    """The server, on a free loopback port. It takes ``seconds`` to answer."""

    seconds: float = 0.0
    heard: list[Heard] = field(default_factory=list)

    def __enter__(self) -> "Receiver":
        receiver = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                at = time.time()
                told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                key = self.headers["Idempotency-Key"]
                # One append is whole, whatever the other threads do.
                receiver.heard.append(Heard(at, told["subject_id"], told["action"], key))
                time.sleep(receiver.seconds)
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, request: object, client_address: object) -> None:
                """Who asked was killed: nobody is there to be answered."""

        self._server = Server(("127.0.0.1", 0), Answer)
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def place(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self._server.server_port}"
