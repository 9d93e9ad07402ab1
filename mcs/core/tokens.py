"""Signed tokens for links: what is in them, and how they are checked.

One salt per purpose, so that a token for one thing is never good for another; SHA-256, and an
HMAC-derived key. They never expire: law and providers expect an old message's link to work.
"""

import hashlib
import hmac
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from typing import NamedTuple

from itsdangerous import BadData, URLSafeSerializer
from itsdangerous.encoding import base64_encode

UNSUBSCRIBE = "mcs.unsubscribe"
RESUBSCRIBE = "mcs.resubscribe"


class Recipient(NamedTuple):
    """Whom a link speaks of, by the opaque uids: no address, no internal id."""

    contact_uid: str
    campaign_uid: str


class Signer:
    """Signs with the newest key (the first), accepts any."""

    def __init__(self, keys: Sequence[str], purpose: str) -> None:
        self._serializer = URLSafeSerializer(
            # itsdangerous signs with the last key of a list.
            list(reversed(keys)),
            salt=purpose,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )
        key = self._serializer.make_signer(purpose).derive_key()
        self._keyed = hmac.new(key, digestmod="sha256")

    def sign(self, recipient: Recipient) -> str:
        # What the serializer's dumps() makes, but for deriving the key, and trying to compress,
        # anew for each message.
        said = ",".join(map(encode_basestring_ascii, recipient))
        payload = base64_encode(f"[{said}]")
        keyed = self._keyed.copy()
        keyed.update(payload)
        signature = base64_encode(keyed.digest())
        return f"{payload.decode()}.{signature.decode()}"

    def read(self, token: str) -> Recipient | None:
        """Whom the token speaks of, or None when it was not signed by us for this purpose."""
        try:
            payload = self._serializer.loads(token)
        except BadData:
            return None
        match payload:
            case [str(contact_uid), str(campaign_uid)]:
                return Recipient(contact_uid, campaign_uid)
        return None
