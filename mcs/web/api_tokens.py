"""Tokens for programs that use the HTTP interface: the owner's page."""

from flask import (
    Blueprint,
    abort,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    session,
)
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
# What the session keeps from making a token to showing it.
MADE = "made_api_token"


class TokenForm(Form):
    name = line("What uses it", InputRequired("Say what uses it, such as: web shop."))
    scope = SelectField("What it may do", choices=SCOPES, default="enrol")


@bp.before_request
def owners_only() -> None:
    if current_user.role != users.OWNER:
        abort(403)


@bp.route("/", methods=["GET", "POST"])
def index() -> Response | str | tuple[str, int]:
    form = TokenForm()
    if form.validate_on_submit():
        name = form.name.data or ""
        try:
            token = api_tokens.make(
                db.session(), clock.now(), name, form.scope.data, current_user.id
            )
        except api_tokens.RefusedToken as refusal:
            complain(form, refusal.field, refusal.reason)
        else:
            # On a page of its own: neither a reload nor a second press there makes another token.
            session[MADE] = {"name": name, "token": token}
            return redirect("/api-tokens/made", 303)
    page = render_template(
        "api_tokens/index.html", form=form, everyone=api_tokens.everyone(db.session())
    )
    return (page, 422) if form.errors else page


@bp.get("/made")
def made() -> Response:
    """The token that was just made, once: only its hash is kept."""
    kept = session.pop(MADE, None)
    if kept is None:
        return redirect("/api-tokens/", 303)
    page = make_response(render_template("api_tokens/made.html", **kept))
    page.headers["Cache-Control"] = "no-store"
    return page


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
