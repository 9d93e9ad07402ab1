"""Signing in and out, the first run, and one's own account."""

from flask import Blueprint, current_app, flash, redirect, render_template, request, session
from flask_login import UserMixin, current_user, login_user, logout_user
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Response
from wtforms import PasswordField
from wtforms.validators import EqualTo, InputRequired

from mcs.extensions import db, login
from mcs.gateways import clock
from mcs.models import User
from mcs.services import users
from mcs.web.forms import Form, complain
from mcs.web.frame import THEME_COOKIE, THEMES
from mcs.web.parts import line, settings
from mcs.web.security import forget_pages, safe_next

bp = Blueprint("sessions", __name__)

WRONG = "The address or the password is not right."
TOO_MANY = "Too many attempts. Wait a quarter of an hour, then try again."


class SignedIn(UserMixin):
    """A user as Flask-Login wants one: the id it keeps ends with the user's session key."""

    def __init__(self, user: User) -> None:
        self.id = user.id
        self.email = user.email
        self.role = user.role
        self.session_key = user.session_key

    def get_id(self) -> str:
        return f"{self.id}:{self.session_key}"


@login.user_loader
def load(session_id: str) -> SignedIn | None:
    number, _, key = session_id.partition(":")
    user = users.find(db.session(), int(number), key) if number.isdigit() else None
    return SignedIn(user) if user else None


def begin(user: User) -> None:
    """Sign a user in on this browser. What the session held before is dropped."""
    session.clear()
    session.permanent = True
    login_user(SignedIn(user))


class SetupForm(Form):
    email = line("Email address", InputRequired("Enter your email address."))
    password = PasswordField("Password", [InputRequired("Choose a password.")])


class LoginForm(Form):
    email = line("Email address", InputRequired("Enter your email address."))
    password = PasswordField("Password", [InputRequired("Enter your password.")])


class PasswordForm(Form):
    current = PasswordField("Current password", [InputRequired("Enter your current password.")])
    password = PasswordField("New password", [InputRequired("Choose a new password.")])
    again = PasswordField(
        "New password again",
        [InputRequired("Type the new password once more."), EqualTo("password", "The two differ.")],
    )


@bp.route("/setup", methods=["GET", "POST"])
def setup() -> Response | str | tuple[str, int]:
    token = request.args.get("token", "")
    now = clock.now()
    invitation = users.invitation(db.session(), now, token) if token else None
    if invitation is None:
        if users.has_owner(db.session()) and not token:
            return redirect("/login", 303)
        return render_template(
            "sessions/no_setup.html",
            token=token,
            has_owner=users.has_owner(db.session()),
            production=settings().production,
        ), 403 if token else 200
    form = SetupForm(email=invitation.email) if request.method == "GET" else SetupForm()
    if invitation.email and request.method == "POST":
        form.email.data = invitation.email
    if form.validate_on_submit():
        try:
            user = users.accept(
                db.session(), now, token, form.email.data or "", form.password.data or ""
            )
        except users.RefusedUser as refusal:
            complain(form, refusal.field, refusal.reason)
        else:
            begin(user)
            return redirect("/", 303)
    page = render_template("sessions/setup.html", form=form, invitation=invitation)
    return (page, 422) if form.errors else page


@bp.route("/login", methods=["GET", "POST"], endpoint="login")
def sign_in() -> Response | str | tuple[str, int]:
    if not users.has_owner(db.session()):
        return redirect("/setup", 303)
    target = safe_next(request.args.get("next"))
    form = LoginForm()
    code = 422
    if form.validate_on_submit():
        try:
            user = users.sign_in(
                db.session(),
                clock.now(),
                form.email.data or "",
                form.password.data or "",
                request.remote_addr or "",
            )
        except users.TooManyAttempts:
            complain(form, "", TOO_MANY)
            code = 429
        else:
            if user is not None:
                begin(user)
                return redirect(target, 303)
            complain(form, "", WRONG)
    page = render_template("sessions/login.html", form=form)
    return (page, code) if form.errors else page


@bp.post("/logout")
def logout() -> Response:
    return _sign_out()


@bp.route("/account", methods=["GET", "POST"])
def account() -> Response | str | tuple[str, int]:
    form = PasswordForm()
    if form.validate_on_submit():
        try:
            user = users.change_password(
                db.session(),
                clock.now(),
                current_user.id,
                form.current.data or "",
                form.password.data or "",
            )
        except users.TooManyAttempts:
            complain(form, "", TOO_MANY)
        except users.RefusedUser as refusal:
            complain(form, refusal.field, refusal.reason)
        else:
            begin(user)
            flash("Your password is changed, and everywhere else you are signed out.")
            return redirect("/account", 303)
    page = render_template("sessions/account.html", form=form)
    return (page, 422) if form.errors else page


@bp.post("/account/sign-out-everywhere")
def sign_out_everywhere() -> Response:
    users.sign_out_everywhere(db.session(), clock.now(), current_user.id)
    return _sign_out()


def _sign_out() -> Response:
    logout_user()
    session.clear()
    return forget_pages(redirect("/login", 303))


@bp.post("/theme")
def theme() -> Response:
    chosen = request.form.get("theme", "")
    if chosen not in THEMES:
        raise BadRequest
    answer = redirect(safe_next(request.form.get("next", "").rstrip("?")), 303)
    answer.set_cookie(
        THEME_COOKIE,
        chosen,
        max_age=365 * 24 * 3600,
        httponly=True,
        samesite="Lax",
        secure=bool(current_app.config["SESSION_COOKIE_SECURE"]),
    )
    return answer
