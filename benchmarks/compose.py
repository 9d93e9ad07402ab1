"""How long one message takes to compose: CPU time, the best of several rounds.

python -m benchmarks.compose
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from mcs.core.message import Composer, MessageTemplate, Person

PEOPLE, ROUNDS = 2_000, 15
DATE = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
PROSE = "We have something new for you this week. " * 34
CONTENTS = {
    "text, 3 fields": (
        "text",
        f"Dear {{{{ name }}}},\n\n{PROSE}\n\nYour {{{{ company }}}} in {{{{ city }}}}.\n\nBye",
    ),
    "markdown, 3 fields": (
        "markdown",
        f"# Dear {{{{ name }}}}\n\n{PROSE}\n\n**{{{{ company }}}}** in {{{{ city }}}}, "
        "[come](https://shop.example/)\n\nBye",
    ),
    "markdown, if/else": (
        "markdown",
        f"Dear {{{{ name }}}},\n\n{PROSE}\n\n{{% if city == 'Rome' %}}\n"
        "**{{ company }}** is near.\n{% else %}\nCome from {{ city }}.\n{% endif %}\n\nBye",
    ),
}


def composer(format: str, content: str) -> Composer:
    return Composer(
        MessageTemplate(
            subject="News for {{ name }}",
            content=content,
            format=format,
            from_name="Ada's Shop",
            from_email="ada@shop.example",
            reply_to="",
            postal_address="Ada's Shop, 1 Main Street, 10115 Berlin",
            campaign_uid="campaign",
            campaign_name="Autumn",
            base_url="https://shop.example",
            mail_domain="shop.example",
        )
    )


def people(first_name: str, company: str) -> list[Person]:
    return [
        Person(
            email=f"person{number}@people.example",
            name=f"{first_name} {number}",
            attributes={"company": company, "city": ("Rome", "Oslo")[number % 2]},
            opaque=f"opaque{number:016}",
            unsubscribe_url=f"https://shop.example/u/{'WyJhYmNkZWZnaGlqa2' * 4}.{number:027}",
        )
        for number in range(PEOPLE)
    ]


def microseconds(made: Composer, recipients: Sequence[Person]) -> float:
    """CPU time per message."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for recipient in recipients:
            made.compose(recipient, DATE)
        best = min(best, time.process_time() - started)
    return best / len(recipients) * 1e6


def main() -> None:
    crowds = {"ASCII names": people("Ann", "Acme"), "other names": people("Jürgen", "Müller & Co")}
    for what, (format, content) in CONTENTS.items():
        for who, crowd in crowds.items():
            made = composer(format, content)
            size = len(made.compose(crowd[0], DATE).data)
            print(f"{what:20} {who:12} {microseconds(made, crowd):6.1f} us  {size} bytes")
    started = time.process_time()
    composer(*CONTENTS["markdown, if/else"])
    print(f"prepared once in {(time.process_time() - started) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
