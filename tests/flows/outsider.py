"""An outsider: a client over HTTP that knows the contracts (routes and form fields) and no more."""

import html
import http.client
import http.cookiejar
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass

_CSRF = re.compile(r'name="csrf_token"[^>]*?value="([^"]+)"')


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    location: str
    body: str


class _StayPut(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: object) -> None:
        return None


class Outsider:
    """Keeps its cookies, follows nothing, and fetches a page's csrf_token before it posts."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), _StayPut
        )

    def get(self, path: str) -> Answer:
        return self._open(urllib.request.Request(self._url(path)))

    def post(
        self,
        path: str,
        fields: dict[str, str],
        file: tuple[str, bytes] | None = None,
        form_at: str = "",
    ) -> Answer:
        """Post a form with the csrf_token of its page (``form_at``, or the same address)."""
        fields = fields | {"csrf_token": self.token(form_at or path)}
        if file is None:
            return self.post_raw(path, urllib.parse.urlencode(fields).encode())
        body, content_type = _multipart(fields, *file)
        return self.post_raw(path, body, content_type)

    def token(self, path: str) -> str:
        """The csrf_token of a page."""
        token = _CSRF.search(self.get(path).body)
        assert token, f"no csrf_token at {path}"
        return html.unescape(token.group(1))

    def post_raw(
        self, path: str, body: bytes, content_type: str = "application/x-www-form-urlencoded"
    ) -> Answer:
        return self._open(
            urllib.request.Request(
                self._url(path), data=body, headers={"Content-Type": content_type}, method="POST"
            )
        )

    def _url(self, path: str) -> str:
        return urllib.parse.urljoin(self.base_url, path)

    def _open(self, request: urllib.request.Request) -> Answer:
        try:
            with self._opener.open(request, timeout=30) as response:
                return _answer(response, response.status)
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error, error.code)


def _answer(response: http.client.HTTPResponse | urllib.error.HTTPError, status: int) -> Answer:
    return Answer(status, response.headers.get("Location", ""), response.read().decode())


def _multipart(fields: dict[str, str], filename: str, content: bytes) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        f"Content-Type: text/csv\r\n\r\n".encode()
        + content
        + b"\r\n"
    )
    return b"".join(
        parts
    ) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
