"""The rate limit: how near to what was asked for, across workers. ``make bench`` runs it too.

For each rate and number of workers an emailer is sent with MCS_SEND_RATE; the ledger's own times
say how many messages started per second, from the first message on.
"""

import argparse
import math
import signal
import sys
import time
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from benchmarks.parts import Installation, Stage, wait_until
from mcs.models import Delivery, Emailer
from mcs.services import emailers

RATES = (50, 500, 2000)
WORKERS = (1, 2, 4)


def main() -> None:
    """Run what the command line asks for, and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.throttle", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rates", type=int, nargs="*", default=RATES)
    parser.add_argument("--workers", type=int, nargs="*", default=WORKERS)
    parser.add_argument("--connections", type=int, default=8, help="MCS_SMTP_CONNECTIONS")
    parser.add_argument("--only", choices=("sqlite", "postgres"), default="postgres")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with Stage() as stage:
        stage.redis()
        port = stage.sink()
        new = stage.sqlite if asked.only == "sqlite" else stage.postgres
        here = Installation(stage, new())
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {asked.only}, {asked.seconds} s each")
        print(f"{'asked':>8}{'workers':>9}{'got':>10}{'off by':>9}{'worst second':>14}")
        for rate in asked.rates:
            campaign_id = here.campaign(rate * (asked.seconds + 5))
            for workers in asked.workers:
                with here.working(workers, port, asked.connections, MCS_SEND_RATE=str(rate)):
                    emailer_id = send(here, campaign_id, asked.seconds)
                got, worst = measure(here, emailer_id, asked.seconds)
                off = got / rate - 1
                print(f"{rate:>8}{workers:>9}{got:>10.1f}{off:>9.2%}{worst:>14}", flush=True)


def send(here: Installation, campaign_id: int, seconds: int) -> int:
    """Send for so many seconds, and a few more; the emailer."""
    second = math.ceil(time.time() + 1.5)
    emailer_id = here.plan(campaign_id, datetime.fromtimestamp(second, UTC))
    # Its ledger is written first: 4 s for the 130,000 of a minute at 2,000 a second.
    wait_until(lambda: _sends(here, emailer_id), 60)
    time.sleep(seconds + 3)
    with here.sessions() as session:
        emailers.cancel(session, datetime.now(UTC), emailer_id)
    return emailer_id


def _sends(here: Installation, emailer_id: int) -> bool:
    with here.sessions() as session:
        return session.get_one(Emailer, emailer_id).state == "sending"


def measure(here: Installation, emailer_id: int, seconds: int) -> tuple[float, int]:
    """Messages started a second over the whole, and in the fullest second of it."""
    with here.sessions() as session:
        first = session.scalars(
            select(func.min(Delivery.started_at)).where(Delivery.emailer_id == emailer_id)
        ).one()
        started = session.scalars(
            select(Delivery.started_at).where(
                Delivery.emailer_id == emailer_id,
                Delivery.started_at < first + timedelta(seconds=seconds),
            )
        ).all()
    per_second = [0] * seconds
    for moment in started:
        per_second[int((moment - first).total_seconds())] += 1
    return len(started) / seconds, max(per_second)


if __name__ == "__main__":
    main()
