"""Posts: which services there are, and the words for one contact."""

import pytest

from mcs.core import posts
from mcs.core.posts import BadPost

ANN = {"name": "Ann Lee", "email": "ann@people.example", "attributes": {"city": "Berlin"}}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "Discord"),
        ("slack://T1/A1/Tx/#general", "Slack"),
        ("tgram://123456789:abcdefg/12315544/", "Telegram"),
        ("x://key/secret/token/secret?mode=tweet", "X"),
    ],
)
def test_services(url: str, name: str) -> None:
    assert posts.service(url) == name
    assert posts.named(url) == name


@pytest.mark.parametrize(
    "url",
    ["", "discord", "discord://", "json://localhost/", "jsons://shop.example/", "xml://127.0.0.1/",
     "form://127.0.0.1/", "mailto://ann:pw@people.example", "file:///etc/passwd", "syslog://",
     "https://discord.com/api/webhooks/1/abc", "mastodon://token@localhost", "ntfy://localhost/a",
     "matrix://user:pw@10.0.0.1", "apprise://localhost/x", "dbus://", "Discord://1/2",
     "discord://1/2?verify=no", "discord://1/2?mode=a&template=/etc/passwd", "discord://1/2?%76erify=no",
     "discord://1/a b", "discord://1/2\n", "workflows://evil.example/a/b"],
)  # fmt: skip
def test_what_else_apprise_knows_is_refused(url: str) -> None:
    with pytest.raises(BadPost):
        posts.service(url)


def test_a_refusal_keeps_the_secret() -> None:
    with pytest.raises(BadPost) as refusal:
        posts.service("json://user:hunter2secret@localhost/")
    assert "hunter2secret" not in str(refusal.value)
    assert posts.named("json://user:hunter2secret@localhost/") == "a channel"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("New: {{ name }} from {{ city }}", "New: Ann Lee from Berlin"),
        ('{% if city == "Berlin" %}Hallo{% else %}Hi{% endif %} {{ first_name }}', "Hallo Ann"),
        ("{{ email }} {{ street | default(\"?\") }}", "ann@people.example ?"),
    ],
)  # fmt: skip
def test_the_text_is_written_for_one_contact(text: str, written: str) -> None:
    assert posts.write(posts.parse(text), ANN) == written


def test_a_subject_without_a_contact_has_empty_fields() -> None:
    assert posts.write(posts.parse("[{{ name }}]"), None) == "[]"


def test_somebody_named_everyone_calls_nobody() -> None:
    named = {"name": "@everyone", "email": "e@x.example", "attributes": {"city": "<!channel>"}}
    said = posts.write(posts.parse("{{ name }} {{ city }}"), named)
    assert "@everyone" not in said and "<!channel>" not in said


@pytest.mark.parametrize("text", ["", "  ", "{{ name", "{% for x in y %}", "x" * 4001, None, 3])
def test_texts_that_cannot_be(text: str) -> None:
    with pytest.raises(BadPost):
        posts.parse(text)
