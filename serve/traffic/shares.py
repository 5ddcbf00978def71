"""Which requests a candidate gets: by the client's key, the same on every replica, or by lot."""

from __future__ import annotations

import random
from hashlib import blake2b

_WHOLE = 1 << 64


def chosen(trial: str, share: float, sticky_key: bytes) -> bool:
    """Return whether a request falls into the share of a trial.

    A key falls where the hash of trial and key does, so a share that grows keeps the keys that it had, and
    another trial draws anew. Without a key each request is drawn by lot.
    """
    if not sticky_key:
        return random.random() < share
    digest = blake2b(sticky_key, digest_size=8, key=trial.encode()[:64]).digest()
    return int.from_bytes(digest, "big") < share * _WHOLE
