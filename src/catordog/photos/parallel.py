"""The same work on many items at once, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def in_parallel(work: Callable[[In], Out], items: Iterable[In], ahead: int = 256) -> Iterator[Out]:
    """Yield `work(item)` in the order of the items, never more than `ahead` of them in memory.

    Threads are enough: Pillow and zlib let go of Python's lock while they decode.
    """
    threads = int(os.environ.get("CATORDOG_THREADS", "0")) or os.cpu_count() or 1
    with ThreadPoolExecutor(max_workers=threads) as pool:
        waiting: deque[Future[Out]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
