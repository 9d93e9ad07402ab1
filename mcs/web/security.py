"""What guards every page: who may come in, how much may be sent, what a browser may do."""

from datetime import timedelta
from urllib.parse import quote, urlsplit

from flask import Flask, Response, current_app, redirect, request
from flask.sessions import SecureCookieSessionInterface, SessionMixin
from flask_login import current_user
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from mcs.config import Settings
from mcs.extensions import csrf, db, login
from mcs.services import users
from mcs.web.parts import by_htmx

# Pages that ask for no sign-in, by their rule. Everything else does.
PUBLIC_RULES = ("/login", "/setup", "/healthz", "/static/<path:filename>")
PUBLIC_PREFIX = "/u/"
# It asks for a token itself, where it asks for anything.
API_PREFIX = "/api/v1/"
UPLOAD_SUFFIX = "/contacts/upload"

LOOPBACK = ("localhost", "127.0.0.1", "::1")

MEGABYTE = 1024 * 1024
FORM_LIMIT = 2 * MEGABYTE
UPLOAD_LIMIT = 200 * MEGABYTE

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-src 'self'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
        "manifest-src 'self'",
    )
)


def init_app(app: Flask, settings: Settings) -> None:
    """Order matters: limits and sign-in come before CSRF protection, which reads the body."""
    app.config.update(
        MAX_CONTENT_LENGTH=FORM_LIMIT,
        MAX_FORM_MEMORY_SIZE=FORM_LIMIT,
        SESSION_COOKIE_NAME="mcs_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.production,
        # Fourteen days from sign-in, not from the last visit: a page then sets no cookie.
        PERMANENT_SESSION_LIFETIME=timedelta(days=14),
        SESSION_REFRESH_EACH_REQUEST=False,
        # As long as the session: a form left open over lunch must not lose what was typed.
        WTF_CSRF_TIME_LIMIT=None,
        # The token suffices; many honest clients and proxies send no Referer.
        WTF_CSRF_SSL_STRICT=False,
        SEND_FILE_MAX_AGE_DEFAULT=timedelta(days=365),
    )
    app.session_interface = Sessions()
    app.before_request(allow_large_uploads)
    app.before_request(require_sign_in)
    csrf.init_app(app)
    login.init_app(app)
    app.after_request(add_headers)


class Sessions(SecureCookieSessionInterface):
    """Flask's sessions in signed cookies, whose answers to a POST a browser can go back to."""

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        super().save_session(app, session, response)
        if request.method == "POST" and _is_trustworthy():
            # Back shows such a page as it was kept, or "confirm form resubmission" where the next
            # page set another cookie. Nobody shares it: Cache-Control says private; and signing out
            # has the browser forget it.
            response.vary.discard("Cookie")


def forget_pages(response: WerkzeugResponse) -> WerkzeugResponse:
    """Have the browser forget the pages it kept, for whoever sits there next."""
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def _is_trustworthy() -> bool:
    """Whether browsers heed Clear-Site-Data here (Secure Contexts, section 3.1)."""
    return request.is_secure or urlsplit(f"//{request.host}").hostname in LOOPBACK


def allow_large_uploads() -> None:
    if request.url_rule is not None and request.url_rule.rule.endswith(UPLOAD_SUFFIX):
        request.max_content_length = UPLOAD_LIMIT


def require_sign_in() -> WerkzeugResponse | None:
    """Send strangers to /login, and everybody to /setup until there is an owner.

    A page of theirs that asks for one of its parts is loaded again, and so sent there itself.
    """
    if is_public():
        return None
    if not owner_exists():
        return redirect("/setup", 303)
    if current_user.is_authenticated:
        return None
    if request.method == "GET" and by_htmx():
        # Sent on, the sign-in page would be shown in the part's place, and lead to the part alone.
        return Response(status=401, headers={"HX-Refresh": "true"})
    wanted = request.full_path.rstrip("?") if request.method == "GET" else "/"
    return redirect("/login" if wanted == "/" else f"/login?next={quote(wanted)}", 303)


def is_public() -> bool:
    """Whether this request may be answered to a stranger.

    An address that leads nowhere is not: strangers learn nothing from the difference.
    """
    if request.url_rule is None:
        return isinstance(request.routing_exception, NotFound | MethodNotAllowed) and (
            request.path.startswith((PUBLIC_PREFIX, "/static/"))
        )
    rule = request.url_rule.rule
    return rule in PUBLIC_RULES or rule.startswith((PUBLIC_PREFIX, API_PREFIX))


def owner_exists() -> bool:
    """Whether the installation is set up. Once true it stays so, and is not asked again."""
    if not current_app.extensions.get("mcs_owner_exists"):
        current_app.extensions["mcs_owner_exists"] = users.has_owner(db.session())
    return bool(current_app.extensions["mcs_owner_exists"])


def safe_next(target: str | None) -> str:
    """Where to go after sign-in: a path of ours, or home when the target is anything else.

    Browsers read a backslash as a slash and skip control characters, so both are refused.
    """
    if not target or not target.startswith("/") or target.startswith("//"):
        return "/"
    if "\\" in target or any(ord(letter) < 33 or ord(letter) == 127 for letter in target):
        return "/"
    parts = urlsplit(target)
    return "/" if parts.scheme or parts.netloc else target


def add_headers(response: Response) -> Response:
    """Set what a view has not set itself: a preview brings its own, stricter policy."""
    headers = response.headers
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "SAMEORIGIN")
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    headers.setdefault(
        "Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()"
    )
    if current_app.config["SETTINGS"].production and request.is_secure:
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    if request.endpoint != "static":
        headers.setdefault("Cache-Control", "private, no-cache")
    return response
