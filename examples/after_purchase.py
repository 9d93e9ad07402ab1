"""Three customers who bought on different days, ten days in a moment, on a clock of our own.

Each gets email 1 at once, email 2 two days later and email 3 four days later, at 10:00:
python examples/after_purchase.py
"""

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

# From a clone, where MCS is not an installed package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcs.library import Call, CampaignScheduler

BOUGHT = {1: "Jane", 2: "Julie", 5: "Jenny"}


class Clock:
    """What time it is, as far as this program goes."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 23, 8, 2, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at


def main(folder: str) -> None:
    """Live through ten days, hour by hour."""
    clock = Clock()

    def email(call: Call) -> None:
        assert call.contact is not None
        print(f"{clock.at:%a %d %b %H:%M}  {call.action_id} to {call.contact['email']}")

    db = {"dialect": "sqlite", "storage": Path(folder) / "campaigns.db"}
    with CampaignScheduler({"email": email}, db, clock=clock) as scheduler:
        scheduler.upsert_campaign(
            "after purchase",
            action_defs=[
                {"id": "email1", "callback": "email", "interval": "0days"},
                {"id": "email2", "callback": "email", "interval": _at_ten("2days")},
                {"id": "email3", "callback": "email", "interval": _at_ten("4days")},
            ],
        )
        for hour in range(24 * 10):
            day = hour // 24 + 1
            if hour % 24 == 0 and day in BOUGHT:
                name = BOUGHT[day]
                who = {"email": f"{name.lower()}@customers.example", "name": name}
                scheduler.schedule("after purchase", "customer", name, contact=who)
            scheduler.run_due()
            clock.at += timedelta(hours=1)
        print(scheduler.get_status().counts)


def _at_ten(offset: str) -> dict[str, str]:
    return {"offset": offset, "time": "10:00"}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
