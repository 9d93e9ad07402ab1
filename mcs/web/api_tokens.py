"""Tokens for programs that use the HTTP interface: the owner's page."""

from flask import Blueprint, abort, flash, redirect, render_template, request
from flask_login import current_user
from werkzeug.wrappers import Response
from wtforms import SelectField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import InputRequired

from mcs.extensions import db
from mcs.gateways import clock
from mcs.services import api_tokens, users
from mcs.web.forms import Form, complain
from mcs.web.parts import id_in, line

bp = Blueprint("api_tokens", __name__, url_prefix="/api-tokens")

# Each may do what those before it may.
SCOPES = [
    SelectChoice("read", "Read"),
    SelectChoice("enrol", "Read, and enrol people"),
    SelectChoice("manage", "All that, and manage campaigns"),
]


class TokenForm(Form):
    name = line("What uses it", InputRequired("Say what uses it, such as: web shop."))
    scope = SelectField("What it may do", choices=SCOPES, default="enrol")


@bp.before_request
def owners_only() -> None:
    if current_user.role != users.OWNER:
        abort(403)


@bp.route("/", methods=["GET", "POST"])
def index() -> str | tuple[str, int]:
    form = TokenForm()
    made = ""
    if form.validate_on_submit():
        try:
            # Shown once, on this answer: only the token's hash is kept.
            made = api_tokens.make(
                db.session(), clock.now(), form.name.data or "", form.scope.data, current_user.id
            )
        except api_tokens.RefusedToken as refusal:
            complain(form, refusal.field, refusal.reason)
    page = render_template(
        "api_tokens/index.html",
        form=form,
        made=made,
        everyone=api_tokens.everyone(db.session()),
    )
    return (page, 422) if form.errors else page


@bp.route(id_in("/{token_id}/revoke"), methods=["GET", "POST"])
def revoke(token_id: int) -> Response | str:
    token = api_tokens.find(db.session(), token_id)
    name = token.name
    if request.method == "GET":
        return render_template(
            "confirm.html",
            question=f"Revoke the token of {name}?",
            consequences=(
                "What uses it is refused from the next request on.",
                "A token cannot be brought back: make a new one instead.",
            ),
            action=request.path,
            verb="Revoke",
            back="/api-tokens/",
        )
    api_tokens.revoke(db.session(), clock.now(), token_id, current_user.id)
    flash(f"The token of {name} no longer works.")
    return redirect("/api-tokens/", 303)
