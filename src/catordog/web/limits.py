"""What a server takes from anybody: so many bytes, so often, within such a time."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_CLIENTS = 10_000
"""So many are remembered; whoever was quiet for longest is forgotten first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a server takes.

    Attributes:
        photo_bytes: of one photo.
        request_bytes: of a whole request.
        photos: in one request.
        rate: requests a second from one address, over a while; 0: any.
        seconds: for one request, from its first byte to its answer.
        megapixels: of one photo.
    """

    photo_bytes: int = 32 * 2**20
    request_bytes: int = 64 * 2**20
    photos: int = 32
    rate: float = 200.0
    seconds: float = 30.0
    megapixels: float = 100.0


class Rate:
    """A token bucket for each client: a burst of two seconds' worth, then the rate.

    Args:
        rate: requests a second; 0: any.
        now: a clock, in seconds.
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._now = rate, now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str) -> bool:
        """Count a request of a client, if it may have one more."""
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
