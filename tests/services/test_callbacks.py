"""What a step may call: refused when it is defined, with words that say what would be right."""

from datetime import date, datetime, time
from typing import Any

import pytest
from sqlalchemy.orm import Session

from mcs.core.calls import BadConfig
from mcs.core.sequences import BadDefinition
from mcs.gateways import callbacks as table
from mcs.models import Campaign
from mcs.services import callbacks, sequences
from mcs.services.definitions import SEND_EMAIL, Step
from tests.people import add_campaign, add_contact, add_scenario

KNOWN = table.table(["localhost:9000"])
SECRET = "0123456789abcdef"
DISCORD = "discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js"


@pytest.fixture
def campaign(session: Session) -> Campaign:
    """Ann lives in Berlin."""
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann", city="Berlin")
    return campaign


def letter(session: Session, campaign: Campaign, **given: Any) -> dict[str, Any]:
    fields = {"state": "draft", "date": None, "time": None} | given
    return {"scenario": add_scenario(session, campaign, **fields).id}


def refusal(
    session: Session, now: datetime, campaign: Campaign, callback: str, config: dict[str, Any]
) -> str:
    step = Step("one", callback, "0days", config=config)
    with pytest.raises(BadDefinition) as refused:
        sequences.define(session, now, campaign.id, [step], known=KNOWN)
    with pytest.raises(BadDefinition):
        sequences.preview(session, now, campaign.id, [step], known=KNOWN)
    assert refused.value.key == "one"
    return f"{refused.value.part}: {refused.value.reason}"


def test_what_will_do(session: Session, now: datetime, campaign: Campaign) -> None:
    steps = [
        Step("mail", SEND_EMAIL, "0days", config=letter(session, campaign)),
        Step("hook", "webhook", "0days", config={"url": "https://a.example/", "secret": SECRET}),
        Step("own", "webhook", "1day", config={"url": "http://localhost:9000/", "secret": SECRET}),
        Step("post", "notify", "2days", config={"url": DISCORD, "text": "{{ city }}"}),
    ]
    sequences.define(session, now, campaign.id, steps, known=KNOWN)
    shown = [callbacks.without_secrets(step, KNOWN) for step in steps]
    assert shown[0] == steps[0]
    assert shown[1].config == {"url": "https://a.example/"}
    assert shown[3].config == {"text": "{{ city }}"}
    assert callbacks.with_known_secrets(shown, steps, KNOWN) == steps


@pytest.mark.parametrize(
    ("callback", "config", "words"),
    [
        ("fax", {}, "callback: there is no 'fax': use notify, send_email, webhook"),
        ("webhook", {}, "config.url: it is missing"),
        ("webhook", {"url": "https://localhost/", "secret": SECRET}, "not a public name"),
        ("webhook", {"url": "https://a.example/"}, "config.secret: "),
        ("webhook", {"url": "https://a.example/", "secret": SECRET, "x": 1}, "config.x: "),
        ("notify", {"url": "json://localhost", "text": "hi"}, "config.url: json://"),
        ("notify", {"url": DISCORD, "text": "{{ street }}"}, "config.text: {{ street }} is not"),
        (SEND_EMAIL, {}, "config.scenario: name the scenario"),
        (SEND_EMAIL, {"scenario": "1"}, "config.scenario: name the scenario"),
        (SEND_EMAIL, {"scenario": True}, "config.scenario: name the scenario"),
        (SEND_EMAIL, {"scenario": 1, "cc": "x"}, "config.scenario: name the scenario"),
        (SEND_EMAIL, {"scenario": 999}, "config.scenario: this campaign has no scenario 999"),
    ],
)
def test_what_will_not(
    session: Session,
    now: datetime,
    campaign: Campaign,
    callback: str,
    config: dict[str, Any],
    words: str,
) -> None:
    assert words in refusal(session, now, campaign, callback, config)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"date": date(2026, 11, 24)}, "has a date or a time"),
        ({"time": time(10, 0)}, "has a date or a time"),
        ({"state": "scheduled", "date": date(2026, 11, 24), "time": time(10, 0)}, "has a date"),
        ({"subject": ""}, "The subject is empty"),
        ({"content": "Dear {{ street }}"}, "{{ street }} is not a field"),
        ({"content": "{% for x in y %}"}, "cannot be sent as it is"),
    ],
)
def test_scenarios_that_no_step_can_send(
    session: Session, now: datetime, campaign: Campaign, given: dict[str, Any], words: str
) -> None:
    config = letter(session, campaign, **given)
    assert words in refusal(session, now, campaign, SEND_EMAIL, config)


def test_another_campaign_s_scenario_is_none(
    session: Session, now: datetime, campaign: Campaign
) -> None:
    config = letter(session, add_campaign(session))
    assert "no scenario" in refusal(session, now, campaign, SEND_EMAIL, config)


def test_one_s_own_callback_is_asked_whether_its_config_will_do() -> None:
    def fax(_call: object) -> None:
        """Nothing."""

    def check(config: dict[str, Any]) -> None:
        if "number" not in config:
            raise BadConfig("number", "give one")

    fax.check = check  # type: ignore[attr-defined]
    callbacks.check_config(Step("one", "fax", "0days", config={"number": 1}), {"fax": fax})
    with pytest.raises(BadDefinition, match="give one"):
        callbacks.check_config(Step("one", "fax", "0days"), {"fax": fax})
