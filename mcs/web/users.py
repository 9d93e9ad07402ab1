"""Who may sign in: the owner's page."""

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request
from flask_login import current_user
from werkzeug.wrappers import Response
from wtforms.validators import InputRequired

from mcs.extensions import db
from mcs.gateways import clock
from mcs.models import User
from mcs.services import users
from mcs.web.forms import Form, complain
from mcs.web.parts import id_in, line

bp = Blueprint("users", __name__, url_prefix="/users")


class InviteForm(Form):
    email = line("Email address", InputRequired("Enter the person's email address."))


@bp.before_request
def owners_only() -> None:
    if current_user.role != users.OWNER:
        abort(403)


@bp.route("/", methods=["GET", "POST"])
def index() -> str | tuple[str, int]:
    form = InviteForm()
    link = ""
    if form.validate_on_submit():
        email = form.email.data or ""
        try:
            token = users.invite(db.session(), clock.now(), email, current_user.id)
        except users.RefusedUser as refusal:
            complain(form, refusal.field, refusal.reason)
        else:
            # Shown once, on this answer: only the token's hash is kept.
            link = f"{current_app.config['SETTINGS'].base_url}/setup?token={token}"
    page = render_template(
        "users/index.html",
        form=form,
        link=link,
        everyone=users.everyone(db.session()),
        waiting=users.waiting_invitations(db.session(), clock.now()),
    )
    return (page, 422) if form.errors else page


@bp.route(id_in("/{user_id}/remove"), methods=["GET", "POST"])
def remove(user_id: int) -> Response | str:
    user = db.session().get(User, user_id)
    if user is None or user.removed_at is not None:
        abort(404)
    if request.method == "GET":
        return render_template(
            "confirm.html",
            question=f"Remove {user.email}?",
            consequences=(
                "They are signed out at once, and cannot sign in again.",
                "Their campaigns and scenarios stay, and go out as planned.",
                "API tokens that they made stop working.",
            ),
            action=request.path,
            verb="Remove",
            back="/users/",
        )
    email = user.email
    try:
        users.remove(db.session(), clock.now(), user_id, current_user.id)
    except users.RefusedUser as refusal:
        flash(refusal.reason, "error")
    else:
        flash(f"{email} can no longer sign in.")
    return redirect("/users/", 303)


@bp.post(id_in("/invitations/{token_id}/withdraw"))
def withdraw(token_id: int) -> Response:
    users.withdraw_invitation(db.session(), clock.now(), token_id, current_user.id)
    flash("The invitation is withdrawn: its link no longer works.")
    return redirect("/users/", 303)
