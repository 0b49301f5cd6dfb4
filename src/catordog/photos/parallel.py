"""Apply a function to many items in parallel, in order and in bounded memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_thread = threading.local()


def is_one_of_many() -> bool:
    """Whether this thread is one of `in_parallel`'s with `alone`: work is not divided further."""
    return getattr(_thread, "alone", False)


def in_parallel(
    work: Callable[[In], Out], items: Iterable[In], ahead: int = 256, *, alone: bool = False
) -> Iterator[Out]:
    """Yield `work(item)` in the order of the items, in one thread per core.

    Threads suffice because Pillow and zlib release the GIL while they decode. The environment
    variable CATORDOG_THREADS sets another number of threads.

    Args:
        work: called from several threads; an exception that it raises is raised here.
        items: any number; they are taken as they are needed.
        ahead: the most items that are in work, or done and not yet yielded.
        alone: each item keeps one core busy, so what `work` calls should not use more: another
            `in_parallel` then works in the same thread, and ONNX Runtime with one thread.

    >>> list(in_parallel(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    if is_one_of_many():
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads(), initializer=_mark, initargs=(alone,))
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # after an error or Ctrl-C, what has not begun is dropped
        pool.shutdown(cancel_futures=True)


def batched(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Consecutive lists of at most `size` items; Python 3.12 has `itertools.batched`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def threads() -> int:
    """How many threads work: one per core, or what CATORDOG_THREADS says."""
    return int(os.environ.get("CATORDOG_THREADS", "0")) or os.cpu_count() or 1


def _mark(alone: bool) -> None:
    _thread.alone = alone
