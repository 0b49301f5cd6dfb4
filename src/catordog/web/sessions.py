"""Sessions of the page `/teach`: what each has been given, in memory, few, and none for long."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from catordog.model.taught_file import Examples
from catordog.model.taught_layer import TaughtLayer
from catordog.photos.records import Records
from catordog.web.batches import BusyError
from catordog.web.limits import Limits

_SPARED_SECONDS = 60.0
"""A session without photos that was used so recently is not dropped for a new one."""


@dataclass(slots=True, eq=False)
class Example:
    """A photo of a session.

    Attributes:
        group: the number of its class on the page.
        record: its features.
    """

    group: int
    record: Records


@dataclass(slots=True, eq=False)
class Session:
    """What one page has been given.

    Attributes:
        examples: by content key.
        used: when it was last used, on the monotonic clock.
        layer: the newest model; None: none yet.
        taught: the examples that it has learnt from.
        lock: held while it learns.
    """

    examples: dict[int, Example] = field(default_factory=dict)
    used: float = 0.0
    layer: TaughtLayer | None = None
    taught: Examples | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    """All sessions, in memory.

    Args:
        limits: their number, and how long they stay idle.
        now: a clock, in seconds.
    """

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._now = limits, now
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def new(self) -> str:
        """Start a session, and return its token.

        Raises:
            BusyError: there are too many, with photos or just opened.
        """
        self.drop_idle()
        if len(self._sessions) >= self._limits.sessions:
            empty = {
                token: each.used for token, each in self._sessions.items() if not each.examples
            }
            oldest = min(empty, key=lambda token: empty[token], default=None)
            if oldest is None or self._now() - empty[oldest] < _SPARED_SECONDS:
                raise BusyError
            del self._sessions[oldest]
        token = secrets.token_urlsafe(24)
        self._sessions[token] = Session(used=self._now())
        return token

    def get(self, token: str) -> Session | None:
        """The session with this token; None if it is unknown or was dropped."""
        self.drop_idle()
        session = self._sessions.get(token)
        if session is not None:
            session.used = self._now()
        return session

    def drop(self, token: str) -> None:
        """Forget a session."""
        self._sessions.pop(token, None)

    def drop_idle(self) -> None:
        """Forget sessions that have been idle for too long."""
        before = self._now() - self._limits.idle_seconds
        for token in [token for token, each in self._sessions.items() if each.used < before]:
            del self._sessions[token]
