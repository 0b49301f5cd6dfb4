"""Photos of many requests, looked at together: a batch takes little longer than one photo."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class BusyError(Exception):
    """More is waiting than can be answered in time."""


class Batches(Generic[In, Out]):
    """Collects what several tasks ask at the same time, and answers it at once.

    Nobody waits for company: while one batch is worked on, the next one gathers.

    Args:
        work: answers a batch, in its order; it runs in a thread of its own.
        most: so many go into one batch.
        waiting: so many may wait; further ones are turned away.
        seen: is told the size of each batch.
    """

    def __init__(
        self,
        work: Callable[[list[In]], list[Out]],
        most: int = 16,
        waiting: int = 256,
        seen: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._work, self._most, self._seen = work, most, seen
        self._queue: asyncio.Queue[tuple[In, asyncio.Future[Out]]] = asyncio.Queue(waiting)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer; there has to be a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def stop(self) -> None:
        """Answer nothing more."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def ask(self, item: In) -> Out:
        """The answer to one item.

        Raises:
            BusyError: too many are waiting.
        """
        answer: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((item, answer))
        except asyncio.QueueFull:
            raise BusyError from None
        return await answer

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._most and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            batch = [(item, answer) for item, answer in batch if not answer.done()]  # gone away
            if not batch:
                continue
            self._seen(len(batch))
            try:
                found = await loop.run_in_executor(
                    self._thread, self._work, [item for item, _ in batch]
                )
            except Exception as error:  # whoever asked has to hear of it
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), result in zip(batch, found, strict=True):
                if not answer.done():
                    answer.set_result(result)
