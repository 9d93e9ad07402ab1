"""What guards every page, proven over the whole url_map, so that a new page cannot slip by."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.routing import Rule

from mcs import config
from mcs.app import create_app
from mcs.web import security
from tests.web.visitor import OWNER_EMAIL, PASSWORD, Visitor, make_owner, words

PUBLIC = re.compile(r"^/(login|setup|healthz|static/.*|u/.*|api/v1/openapi.json)$")
ONE_CLICK = re.compile(r"^/u/<[^/]*token>$")


# Programs prove themselves with a token, and nothing else: no session is asked, none is given.
FOR_PROGRAMS = "/api/v1/"


def addresses(app: Flask) -> Iterator[tuple[Rule, str]]:
    """Every rule with an address that fits it."""
    for rule in app.url_map.iter_rules():
        yield rule, re.sub(r"<(int[^>]*:)?[^>]*>", "1", rule.rule)


def test_every_page_but_the_public_ones_asks_for_sign_in(app: Flask, stranger: Visitor) -> None:
    walked = 0
    for rule, address in addresses(app):
        if PUBLIC.match(rule.rule):
            continue
        for method in ("GET", "POST", "PUT"):
            if method not in (rule.methods or ()):
                continue
            answer = stranger.client.open(address, method=method)
            if rule.rule.startswith(FOR_PROGRAMS):
                assert answer.status_code == 401, (method, address)
                continue
            assert answer.status_code == 303, (method, address)
            assert answer.location.startswith("/login"), (method, address)
            walked += 1
    assert walked > 20


def test_a_session_opens_nothing_to_programs(app: Flask, olga: Visitor) -> None:
    walked = 0
    for rule, address in addresses(app):
        if rule.rule.startswith(FOR_PROGRAMS) and not PUBLIC.match(rule.rule):
            for method in (rule.methods or set()) & {"GET", "POST", "PUT"}:
                # Signed in, and with the CSRF token: a browser that was led here by a page.
                fields = {"csrf_token": olga.token}
                answer = olga.client.open(address, method=method, data=fields)
                assert answer.status_code == 401, (method, address)
                assert "Set-Cookie" not in answer.headers
                walked += 1
    assert walked > 20


def test_addresses_that_lead_nowhere_tell_a_stranger_nothing(stranger: Visitor) -> None:
    assert stranger.get("/nowhere").location == "/login?next=/nowhere"


def test_every_post_needs_a_csrf_token(app: Flask, olga: Visitor) -> None:
    walked = 0
    for rule, address in addresses(app):
        if "POST" not in (rule.methods or ()) or ONE_CLICK.match(rule.rule):
            continue
        if rule.rule == "/setup" or rule.rule.startswith(("/u/", FOR_PROGRAMS)):
            continue
        answer = olga.client.post(address, data={"name": "x"})
        assert answer.status_code == 400, address
        assert "Nothing was changed" in words(answer), address
        walked += 1
    assert walked > 10


def test_a_stranger_cannot_post_a_login_without_a_token(stranger: Visitor) -> None:
    answer = stranger.client.post("/login", data={"email": OWNER_EMAIL, "password": PASSWORD})
    assert answer.status_code == 400


def test_pages_carry_the_security_headers(stranger: Visitor) -> None:
    headers = stranger.get("/login").headers
    policy = headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "Strict-Transport-Security" not in headers


def test_a_browser_can_go_back_to_what_a_post_answered(app: Flask, olga: Visitor) -> None:
    page = olga.get("/campaigns/new")
    assert page.headers["Vary"] == "Cookie"
    refused = olga.post("/campaigns/new", {"name": ""})
    assert refused.status_code == 422
    # Kept by the browser for itself, whatever cookie the page after it sets.
    assert refused.headers["Cache-Control"] == "private, no-cache"
    assert "Vary" not in refused.headers
    # Where no browser would forget it when she signs out, it is kept for this cookie alone.
    elsewhere = Visitor(app)
    elsewhere.client.get("/login", base_url="http://mcs.lan:8000")
    answer = elsewhere.client.post("/login", base_url="http://mcs.lan:8000")
    assert answer.headers["Vary"] == "Cookie"


def test_signing_out_has_the_browser_forget_what_it_kept(olga: Visitor) -> None:
    for way in ("/logout", "/account/sign-out-everywhere"):
        olga.sign_in()
        assert olga.post(way).headers["Clear-Site-Data"] == '"cache"'


def test_no_template_has_a_script_or_style_of_its_own() -> None:
    # The preview's frame is a document of its own, in a sandbox, with its own policy.
    frames = {config.ROOT / "templates" / "scenarios" / "frame.html"}
    own = re.compile(r"<style|<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", re.I)
    for path in set((config.ROOT / "templates").rglob("*.html")) - frames:
        assert not own.search(path.read_text()), path


def test_production_over_https_keeps_its_cookies_and_itself_to_https(
    settings: config.Settings, tmp_path: Path
) -> None:
    production = create_app(
        config.load(
            {
                "MCS_ENV": "production",
                "DATABASE_URL": settings.database_url,
                "REDIS_URL": settings.redis_url,
                "SECRET_KEY": "0123456789abcdef",
                "MCS_UNSUBSCRIBE_KEYS": "0123456789abcdef",
                "MCS_BASE_URL": "https://mcs.example",
                "MAIL_SERVER": "mail.example",
                "MCS_INSTANCE": str(tmp_path / "production"),
            }
        )
    )
    make_owner(production)
    answer = production.test_client().get("/login", base_url="https://mcs.example")
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    cookie = answer.headers["Set-Cookie"]
    for flag in ("Secure", "HttpOnly", "SameSite=Lax"):
        assert flag in cookie


def test_the_session_cookie_is_out_of_reach_for_scripts(stranger: Visitor) -> None:
    cookie = stranger.get("/login").headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie


def test_the_host_header_reaches_no_page(app: Flask, olga: Visitor) -> None:
    cookie = olga.client.get_cookie("mcs_session")
    assert cookie is not None
    evil = {"Host": "evil.example", "Cookie": f"mcs_session={cookie.value}"}
    for path in ("/", "/campaigns/", "/users/"):
        answer = app.test_client(use_cookies=False).get(path, headers=evil)
        assert answer.status_code == 200
        assert "evil.example" not in answer.text
    fields = {"csrf_token": olga.token, "email": "marie@shop.example"}
    answer = app.test_client(use_cookies=False).post("/users/", data=fields, headers=evil)
    assert "http://mcs.example/setup?token=" in answer.text
    assert "evil.example" not in answer.text


def test_a_form_may_have_two_megabytes(olga: Visitor) -> None:
    olga.get("/campaigns/new")
    answer = olga.post("/campaigns/new", {"name": "x" * (security.FORM_LIMIT + 1)})
    assert answer.status_code == 413
    assert "too large" in words(answer)


@pytest.mark.parametrize("path", ["/users/999/remove", "/campaigns/999", "/nowhere"])
def test_what_is_not_there_says_so(olga: Visitor, path: str) -> None:
    answer = olga.get(path)
    assert answer.status_code == 404
    assert "There is no such page" in words(answer)


def test_the_wrong_method_is_no_crash(olga: Visitor) -> None:
    answer = olga.get("/logout")
    assert answer.status_code == 405
    assert "does not take this" in words(answer)


def test_a_crash_says_that_it_is_our_fault(
    app: Flask, olga: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> str:
        raise RuntimeError("secret detail")

    monkeypatch.setitem(app.view_functions, "activity.index", crash)
    answer = olga.get("/activity/")
    assert answer.status_code == 500
    assert "our fault" in words(answer)
    assert "secret detail" not in answer.text
