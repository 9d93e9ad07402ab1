"""Notify: post to a chat or a social network, through Apprise.

Apprise is imported when something is first posted: it takes half a second and 20 MB.
"""

import logging
from collections.abc import Mapping
from typing import Any

from mcs.core import posts
from mcs.core.calls import BadConfig, Call
from mcs.core.posts import BadPost


class NotPosted(Exception):
    """A post that was not taken; the text says why, and names no secret."""


class Notify:
    """A callback. ``config`` has ``url`` (a secret), ``text``, and a ``title`` if wished.

    Text and title may have the merge fields and conditions of a scenario.
    """

    secrets = ("url",)

    def check(self, config: Mapping[str, Any]) -> None:
        """Whether a step may be defined so. Raises BadConfig."""
        for name in config:
            if name not in ("url", "text", "title"):
                raise BadConfig(str(name), "notify has a url, a text and a title, and no more")
        for name, read in (("url", posts.service), ("text", posts.parse)):
            _checked(name, read, config.get(name, ""))
        if config.get("title"):
            _checked("title", posts.parse, config["title"])
        if _plugin(config["url"]) is None:
            raise BadConfig(
                "url", f"{posts.service(config['url'])} cannot read it: look it up there"
            )

    def __call__(self, call: Call) -> Mapping[str, Any]:
        config = call.config
        service = posts.service(config.get("url", ""))
        plugin = _plugin(config["url"])
        if plugin is None:
            raise NotPosted(f"{service} cannot read the url: look it up there")
        text = posts.write(posts.parse(config.get("text", "")), call.contact)
        given = config.get("title", "")
        title = posts.write(posts.parse(given), call.contact) if given else ""
        # Refusals are told by the answer; what Apprise logs may name the secret.
        if not plugin.notify(body=text, title=title, body_format="text"):
            raise NotPosted(f"{service} did not take it: look whether its url is still good")
        return {"service": service}


def _checked(name: str, read: Any, value: Any) -> None:
    try:
        read(value)
    except BadPost as error:
        raise BadConfig(name, str(error)) from None


def _plugin(url: str) -> Any:
    """Apprise's object for the url, or None where it cannot read it."""
    from apprise import Apprise, AppriseAsset

    # Its lines would name the secret.
    logging.getLogger("apprise").disabled = True
    return Apprise.instantiate(url, asset=AppriseAsset(async_mode=False))
