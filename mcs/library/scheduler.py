"""The scheduler: the parts of the library as one."""

from mcs.library.actions import Actions
from mcs.library.campaigns import Campaigns
from mcs.library.schedules import Schedules
from mcs.library.workers import Workers


class CampaignScheduler(Campaigns, Schedules, Actions, Workers):
    """Campaigns of actions, their subjects, and the workers that run what is due.

    ``callbacks`` maps the ids that action definitions name to functions of one argument, a
    ``Call``; what one returns is kept as the action's result, what it raises as its error. A
    callback runs at least once: ``call.idempotency_key`` is the same on every attempt.

    ``db`` is a URL, or a mapping of: ``url``; or ``dialect`` (sqlite, postgres, mysql, mariadb),
    ``storage`` (SQLite's file), ``host``, ``port``, ``username``, ``password``, ``database``;
    ``schema`` (PostgreSQL); ``force`` (drop the library's tables in ``init``); ``logging`` (log
    the SQL). Without it: SQLite in ``campaigns.db``.

    Besides these there are ``webhook`` (a JSON POST to ``config["url"]``, signed with
    ``config["secret"]``; ``webhook_allow`` names hosts of your own as ``host:port``, others must be
    public and speak https), ``notify`` (a post to a chat, by ``config["url"]`` and
    ``config["text"]``), and what packages install as entry points of group ``mcs.callbacks``.

    ``timezone`` is that of campaigns that do not name theirs. ``clock`` says what time it is, for
    tests. Use it as a context manager, or call ``init`` first and ``close`` at the end.
    """
