"""A program that uses the library: it runs what is due, and notes each call in a file.

python -m tests.faults.library_worker DATABASE_URL FILE
"""

import os
import sys
import time

from mcs.library import Call, CampaignScheduler


def main(url: str, path: str) -> None:
    """Run what is due, for ever."""
    notes = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(call: Call) -> None:
        # One write appends whole, whoever else writes.
        os.write(notes, f"{call.subject_id} {call.action_id} {call.idempotency_key}\n".encode())

    with CampaignScheduler({"note": note}, url, lease_seconds=2) as scheduler:
        scheduler.add_worker(concurrency=50, poll_ms=200)
        while True:
            time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
