"""Limits of requests: sizes, number of photos, rate and time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_CLIENTS = 10_000
"""Clients with a bucket; the one that was idle for longest is dropped first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request.

    Attributes:
        photo_bytes: of one photo.
        request_bytes: of a request with several photos.
        photos: in one request.
        rate: requests per second from one address, on average; 0: unlimited.
        seconds: from the first byte of a request to its answer.
        megapixels: of one photo.
        sessions: of the page that teaches, at the same time.
        idle_seconds: after which such a session, and all that it holds, is dropped.
        session_photos: that one of them holds, as features.
        session_classes: in one of them.
    """

    photo_bytes: int = 32 * 2**20
    request_bytes: int = 64 * 2**20
    photos: int = 32
    rate: float = 200.0
    seconds: float = 30.0
    megapixels: float = 100.0
    sessions: int = 16
    idle_seconds: float = 1800.0
    session_photos: int = 500
    session_classes: int = 20


class Rate:
    """Limits the rate of each client with a token bucket that holds two seconds' worth.

    Args:
        rate: requests per second; 0: unlimited.
        now: a clock, in seconds.
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._now = rate, now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str) -> bool:
        """Whether a client may send a request now; if so, count it."""
        if not self._rate:
            return True
        now, burst = self._now(), max(1.0, 2 * self._rate)
        tokens, before = self._left.pop(client, (burst, now))
        tokens = min(burst, tokens + (now - before) * self._rate)
        allowed = tokens >= 1
        self._left[client] = (tokens - 1 if allowed else tokens, now)
        if len(self._left) > MOST_CLIENTS:
            self._left.popitem(last=False)
        return allowed
