"""Two steps for one order, on a SQLite file: python examples/quick_start_sqlite.py"""

import sys
import tempfile
import time
from pathlib import Path

# From a clone, where MCS is not an installed package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcs.library import Call, CampaignScheduler


def say(call: Call) -> str:
    """A callback: what it returns is kept as the action's result."""
    print(f"{call.action_id} for {call.subject} {call.subject_id}")
    return "said"


def main(folder: str) -> None:
    """Enrol an order, let a worker run what is due, and look at it."""
    storage = Path(folder) / "campaigns.db"
    with CampaignScheduler({"say": say}, {"dialect": "sqlite", "storage": storage}) as scheduler:
        scheduler.upsert_campaign(
            "after purchase",
            action_defs=[
                {"id": "thanks", "callback": "say", "interval": "0days"},
                {"id": "how_is_it", "callback": "say", "interval": "2 seconds"},
                {
                    "id": "review",
                    "callback": "say",
                    "interval": {"offset": "2days", "time": "10:00-15:00", "days": "mon-fri"},
                },
            ],
        )
        scheduler.schedule("after purchase", "order", "A-17")
        scheduler.add_worker()
        while scheduler.get_status().counts["completed"] < 2:
            time.sleep(0.1)
        for action in scheduler.get_actions(subject="order", subject_id="A-17"):
            print(f"{action.action_id}: {action.state}, expected at {action.expected_at}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(folder)
