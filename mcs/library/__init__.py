"""MCS as a library: a series of actions per subject, each at its right moment.

No web server and no Redis: a database (SQLite, PostgreSQL, MySQL or MariaDB) and threads.

    from mcs.library import CampaignScheduler

    def remind(call):
        print(call.action_id, "for", call.subject, call.subject_id)

    with CampaignScheduler({"remind": remind}) as scheduler:
        scheduler.upsert_campaign(
            "after purchase",
            action_defs=[
                {"id": "thanks", "callback": "remind", "interval": "0days"},
                {"id": "review", "callback": "remind",
                 "interval": {"offset": "2days", "time": "10:00"}},
            ],
        )
        scheduler.schedule("after purchase", "order", "A-17")
        scheduler.add_worker()

Instants are aware datetimes in UTC. Arguments that cannot be raise ``BadArgument``, whose text
begins with the argument's name.
"""

from mcs.core.calls import Call
from mcs.library.arguments import BadArgument
from mcs.library.infos import (
    ActionInfo,
    CampaignInfo,
    PlannedAction,
    ScheduleInfo,
    SchedulerStatus,
    Worker,
)
from mcs.library.scheduler import CampaignScheduler

__all__ = [
    "ActionInfo",
    "BadArgument",
    "Call",
    "CampaignInfo",
    "CampaignScheduler",
    "PlannedAction",
    "ScheduleInfo",
    "SchedulerStatus",
    "Worker",
]
