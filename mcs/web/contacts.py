"""The pages of contacts: lists, one person's page, adding, holding back, removing, exporting."""

from typing import Any

from flask import (
    Blueprint,
    Response,
    abort,
    flash,
    redirect,
    render_template,
    request,
)
from flask_login import current_user
from werkzeug.wrappers import Response as WerkzeugResponse
from wtforms.validators import InputRequired, Length

from mcs.core import words
from mcs.extensions import db
from mcs.gateways import clock
from mcs.models import Campaign
from mcs.services import attributes, contacts, enrolling, subjects
from mcs.services.contacts import Refused
from mcs.services.unknown import find_campaign
from mcs.web.downloads import download, in_a_filename
from mcs.web.forms import Form, complain, trimmed
from mcs.web.parts import LARGEST_ID, id_in, line, place, searched, settings, word

bp = Blueprint("contacts", __name__)
REASONS = {
    "unsubscribed": "They unsubscribed",
    "blocked": "Blocked by hand",
    "bounced": "Their mail server says the address does not exist",
    "complained": "They reported a message as spam",
}
NOTHING = "Nothing is to come for them."


class ContactForm(Form):
    email = line("Email address", InputRequired("Enter the email address."))
    name = line("Name", Length(max=200, message="A name has up to 200 characters."))


@bp.get("/contacts/")
def index() -> str:
    return _list(None)


@bp.get(id_in("/campaigns/{campaign_id}/contacts"), strict_slashes=False)
def of_campaign(campaign_id: int) -> str:
    return _list(find_campaign(db.session(), campaign_id))


def _list(campaign: Campaign | None) -> str:
    chosen = campaign.id if campaign else None
    filters = {"search": searched(), "state": word("state", contacts.STATES)}
    return render_template(
        "contacts/index.html",
        campaign=campaign,
        page=contacts.listing(
            db.session(),
            campaign_id=chosen,
            search=filters["search"],
            state=filters["state"],
            at=place(),
        ),
        totals=contacts.totals(db.session(), chosen),
        filters=filters,
        filtered=any(filters.values()),
        zone=campaign.timezone if campaign else settings().timezone,
        reasons=REASONS,
    )


@bp.route(id_in("/campaigns/{campaign_id}/contacts/new"), methods=["GET", "POST"])
def new(campaign_id: int) -> Any:
    campaign = find_campaign(db.session(), campaign_id)
    form = ContactForm()
    names = attributes.listed(db.session(), campaign_id)
    given = {name: trimmed(request.form.get(f"attribute-{name}")) for name in names}
    if form.validate_on_submit():
        try:
            contact_id = contacts.add(
                db.session(),
                clock.now(),
                settings().secret_key,
                campaign_id,
                form.email.data,
                form.name.data,
                given,
                by=current_user.id,
            )
            flash(f"{form.email.data} is in {campaign.name}.")
            return redirect(f"/contacts/{contact_id}", 303)
        except Refused as refusal:
            reason = str(refusal)
            complain(form, refusal.field, f"{reason[:1].upper()}{reason[1:]}.")
    page = render_template(
        "contacts/new.html", campaign=campaign, form=form, names=names, given=given
    )
    return (page, 422) if request.method == "POST" else page


@bp.get(id_in("/contacts/{contact_id}"))
def show(contact_id: int) -> str:
    now = clock.now()
    card = contacts.card(db.session(), now, contact_id)
    return render_template(
        "contacts/show.html",
        card=card,
        contact=card.contact,
        origins=contacts.origins_of(db.session(), card.got),
        now=now,
        zone=settings().timezone,
        reasons=REASONS,
        journeys=subjects.of_contact(db.session(), contact_id),
        from_now=words.from_now,
    )


@bp.get(id_in("/contacts/{contact_id}/suppress"))
def ask_suppress(contact_id: int) -> str:
    campaign = _scope()
    contact = contacts.find(db.session(), contact_id)
    coming = len(_coming(contact_id, campaign))
    where = f"from {campaign.name}" if campaign else "from any campaign"
    return _ask(
        contact_id,
        "suppress",
        f"Write to {contact.email} no more?",
        [
            f"They get nothing {where} from now on, also when they are uploaded again.",
            f"{words.count(coming, 'email')} that would have gone to them "
            f"{'is' if coming == 1 else 'are'} left out."
            if coming
            else NOTHING,
        ],
        "Do not write to them",
        campaign,
    )


@bp.post(id_in("/contacts/{contact_id}/suppress"))
def suppress(contact_id: int) -> WerkzeugResponse:
    campaign = _scope()
    scope = campaign.id if campaign else None
    contacts.suppress(db.session(), clock.now(), contact_id, scope, by=current_user.id)
    flash("From now on nothing is sent to them" + (f" from {campaign.name}." if campaign else "."))
    return redirect(f"/contacts/{contact_id}", 303)


@bp.get(id_in("/contacts/{contact_id}/allow"))
def ask_allow(contact_id: int) -> str:
    campaign = _scope()
    contact = contacts.find(db.session(), contact_id)
    suppression = contacts.suppression(db.session(), contact_id, campaign.id if campaign else None)
    reason = REASONS.get(suppression.reason, suppression.reason) if suppression else ""
    asked = "Writing to somebody who unsubscribed needs their clear, recent wish: the law asks it."
    return _ask(
        contact_id,
        "allow",
        f"Write to {contact.email} again?",
        [f"{reason}." if reason else "Nothing holds them back here.", asked],
        "Write to them again",
        campaign,
    )


@bp.post(id_in("/contacts/{contact_id}/allow"))
def allow(contact_id: int) -> WerkzeugResponse:
    campaign = _scope()
    scope = campaign.id if campaign else None
    contacts.allow(db.session(), clock.now(), contact_id, scope, by=current_user.id)
    flash("They can be written to again.")
    return redirect(f"/contacts/{contact_id}", 303)


@bp.get(id_in("/contacts/{contact_id}/remove"))
def ask_remove(contact_id: int) -> str:
    campaign = _scope()
    contact = contacts.find(db.session(), contact_id)
    name = campaign.name if campaign else "the campaign"
    coming = sum(not each.schedule_id for each in _coming(contact_id, campaign))
    return _ask(
        contact_id,
        "remove",
        f"Remove {contact.email} from {name}?",
        [
            _lost(coming, "of it", contact_id, campaign),
            "They stay a contact, and in their other campaigns. What they got stays in the ledger.",
        ],
        "Remove",
        campaign,
    )


@bp.post(id_in("/contacts/{contact_id}/remove"))
def remove(contact_id: int) -> WerkzeugResponse:
    campaign = _scope()
    if campaign is None:
        abort(400)
    contacts.remove(db.session(), clock.now(), contact_id, campaign.id, by=current_user.id)
    flash(f"They are no longer in {campaign.name}.")
    return redirect(f"/contacts/{contact_id}", 303)


@bp.get(id_in("/contacts/{contact_id}/delete"))
def ask_delete(contact_id: int) -> str:
    card = contacts.card(db.session(), clock.now(), contact_id)
    coming = sum(not each.schedule_id for each in card.coming)
    return _ask(
        contact_id,
        "delete",
        f"Delete {card.contact.email}?",
        [
            f"Name, address and attributes are erased, in "
            f"{words.count(len(card.places), 'campaign')}; this cannot be undone.",
            _lost(coming, "to come", contact_id, None),
            "Ledgers keep a line without a name, so that their numbers still add up. If they "
            "unsubscribed, that holds, also when the address is uploaded again.",
        ],
        "Delete for good",
        None,
    )


@bp.post(id_in("/contacts/{contact_id}/delete"))
def delete(contact_id: int) -> WerkzeugResponse:
    secret = settings().secret_key
    contacts.delete(db.session(), clock.now(), secret, contact_id, by=current_user.id)
    flash("The contact is deleted.")
    return redirect("/contacts/", 303)


@bp.get(id_in("/campaigns/{campaign_id}/contacts.csv"))
def export(campaign_id: int) -> Response:
    """The batch as a CSV."""
    campaign = find_campaign(db.session(), campaign_id)
    name = in_a_filename(campaign.name, "campaign")
    return download(contacts.export(db.session(), campaign_id), f"{name}-contacts.csv")


def _scope() -> Campaign | None:
    """The campaign that the address or the form names, or None for all of them.

    A name that is none is not taken for "all": 404.
    """
    if not request.values.get("campaign"):
        return None
    number = request.values.get("campaign", type=int)
    if number is None or not 0 < number <= LARGEST_ID:
        abort(404)
    return find_campaign(db.session(), number)


def _coming(contact_id: int, campaign: Campaign | None) -> list[contacts.Coming]:
    """What is to go to them, of sendings and of sequences."""
    card = contacts.card(db.session(), clock.now(), contact_id)
    return [
        each
        for each in card.coming
        if not each.suppressed and (campaign is None or each.scenario.campaign_id == campaign.id)
    ]


def _lost(coming: int, whence: str, contact_id: int, campaign: Campaign | None) -> str:
    """What will not go to them, and what a sequence still owed them, in a sentence each."""
    pending = enrolling.pending_of(db.session(), contact_id, campaign.id if campaign else None)
    sentences = []
    if coming:
        sentences.append(f"{words.count(coming, 'email')} {whence} will not go to them.")
    if pending:
        sentences.append(f"{words.count(pending, 'action')} of a sequence will not happen.")
    return " ".join(sentences) or NOTHING


def _ask(
    contact_id: int,
    verb: str,
    question: str,
    consequences: list[str],
    button: str,
    campaign: Campaign | None,
) -> str:
    scope = f"?campaign={campaign.id}" if campaign else ""
    return render_template(
        "confirm.html",
        question=question,
        consequences=consequences,
        action=f"/contacts/{contact_id}/{verb}{scope}",
        verb=button,
        back=f"/contacts/{contact_id}",
    )
