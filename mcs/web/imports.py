"""Imports: upload a CSV to a campaign, review it, watch it, and mend what was not taken."""

from collections.abc import Iterator

from flask import (
    Blueprint,
    flash,
    redirect,
    render_template,
    request,
    send_file,
)
from flask.typing import ResponseReturnValue
from flask_login import current_user
from flask_wtf.file import FileField
from werkzeug.datastructures import FileStorage

from mcs.config import ROOT
from mcs.core import words
from mcs.core.columns import USES, WORDS
from mcs.core.tables import DELIMITERS, BadFile, Layout
from mcs.extensions import db
from mcs.gateways import clock
from mcs.models import Import
from mcs.services import imports
from mcs.services.unknown import find_campaign
from mcs.web.downloads import download
from mcs.web.forms import FileForm, Form, complain
from mcs.web.parts import id_in, place, queue, settings

bp = Blueprint("imports", __name__)

ONE = id_in("/imports/{import_id}")
PREVIEW_ROWS = 6
ENCODINGS = {"utf-8-sig": "UTF-8", "cp1252": "Windows (cp1252)"}


class UploadForm(FileForm):
    """One file; ``review`` comes beside it, from our own page only."""

    file = FileField("CSV file")


@bp.route(id_in("/campaigns/{campaign_id}") + "/contacts/upload", methods=["GET", "POST"])
def upload(campaign_id: int) -> ResponseReturnValue:
    campaign = find_campaign(db.session(), campaign_id)
    form = UploadForm()
    if form.validate_on_submit():
        import_id = _taken(form, campaign_id)
        if import_id is not None:
            return redirect(f"/imports/{import_id}", 303)
    page = render_template(
        "imports/upload.html",
        form=form,
        campaign=campaign,
        latest=imports.latest(db.session(), campaign_id),
    )
    return (page, 422) if form.errors else page


def _taken(form: UploadForm, campaign_id: int) -> int | None:
    """The import's id, or None with the complaint at the form's field."""
    file = form.file.data
    if not isinstance(file, FileStorage) or not file.filename:
        complain(form, "file", "Choose a CSV file.")
        return None
    try:
        return imports.upload(
            db.session(),
            clock.now(),
            queue(),
            campaign_id,
            file.filename,
            _pieces(file),
            bool(request.form.get("review")),
            secret=settings().secret_key,
            by=current_user.id,
        )
    except BadFile as bad:
        complain(form, "file", bad.reason)
        return None


def _pieces(file: FileStorage) -> Iterator[bytes]:
    while piece := file.stream.read(imports.CHUNK):
        yield piece


@bp.get(ONE)
def show(import_id: int) -> str:
    found = imports.find(db.session(), import_id)
    if found.state == "review":
        return _review(found)
    return render_template(
        "imports/show.html",
        form=UploadForm(),
        found=found,
        campaign=found.campaign,
        rejected=imports.rejected(db.session(), import_id, place()),
        layout=Layout.from_json(found.mapping),
    )


def _review(found: Import, error: str = "", uses: list[str] | None = None) -> str:
    layout = Layout.from_json(found.mapping)
    return render_template(
        "imports/review.html",
        form=Form(),
        found=found,
        campaign=found.campaign,
        layout=layout,
        encoding=ENCODINGS.get(layout.encoding, layout.encoding.upper()),
        delimiter=DELIMITERS[layout.delimiter],
        uses=uses or [column.use for column in layout.columns],
        choices=[(use, WORDS[use]) for use in USES],
        sample=imports.preview(db.session(), found.id, PREVIEW_ROWS),
        exact=found.size <= imports.INLINE,
        days=imports.REVIEW_DAYS,
        error=error,
    )


@bp.post(f"{ONE}/confirm")
def confirm(import_id: int) -> ResponseReturnValue:
    found = imports.find(db.session(), import_id)
    uses = request.form.getlist("use")
    try:
        imports.confirm(
            db.session(),
            clock.now(),
            queue(),
            import_id,
            uses,
            secret=settings().secret_key,
            by=current_user.id,
        )
    except ValueError as refusal:
        known = uses if len(uses) == len(found.mapping["columns"]) else None
        return _review(found, str(refusal), known), 422
    except imports.NotInReview:
        flash("This file was confirmed before. Here is what became of it.")
    return redirect(f"/imports/{import_id}", 303)


@bp.get(f"{ONE}/progress")
def progress(import_id: int) -> ResponseReturnValue:
    """The part of the page that moves; at the end it asks for the whole page once more."""
    found = imports.find(db.session(), import_id)
    fragment = render_template("imports/progress.html", found=found)
    return (fragment, {"HX-Refresh": "true"}) if found.state in ("done", "failed") else fragment


@bp.get(f"{ONE}/rejected.csv")
def rejected(import_id: int) -> ResponseReturnValue:
    found = imports.find(db.session(), import_id)
    delimiter = Layout.from_json(found.mapping).delimiter
    table = imports.rejected_table(db.session(), import_id)
    return download(table, f"rejected-{import_id}.csv", delimiter)


@bp.get("/examples/contacts.csv")
def example() -> ResponseReturnValue:
    return send_file(
        ROOT / "examples" / "contacts.csv", mimetype="text/csv", as_attachment=True, max_age=0
    )


@bp.app_template_filter("rows")
def rows(count: int | None) -> str:
    return words.count(count or 0, "row")


@bp.app_template_filter("capital")
def capital(reason: str) -> str:
    """A reason that stands by itself: with a capital letter."""
    return reason[:1].upper() + reason[1:]
