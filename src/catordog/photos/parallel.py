"""Apply a function to many items in parallel, in order and in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def in_parallel(work: Callable[[In], Out], items: Iterable[In], ahead: int = 256) -> Iterator[Out]:
    """Yield `work(item)` in the order of the items, in one thread per core.

    Threads suffice because Pillow and zlib release the GIL while they decode. The environment
    variable CATORDOG_THREADS sets another number of threads.

    Args:
        work: called from several threads; an exception that it raises is raised here.
        items: any number; they are taken as they are needed.
        ahead: the most items that are in work, or done and not yet yielded.

    >>> list(in_parallel(abs, [-1, 2, -3]))
    [1, 2, 3]
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
