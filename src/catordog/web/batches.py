"""Micro-batches: run photos of several requests together, which takes little longer than one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class BusyError(Exception):
    """The queue is full."""


class Batches(Generic[In, Out]):
    """Collects items of concurrent tasks into batches.

    No item waits for a batch to fill: the next batch collects while the current one is computed.

    Args:
        work: computes the results of a batch, in its order, in one thread.
        size: items in a batch, at most.
        queue: items that can wait; further ones raise `BusyError`.
        observe: called with the size of each batch.
    """

    def __init__(
        self,
        work: Callable[[list[In]], list[Out]],
        size: int = 16,
        queue: int = 256,
        observe: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._work, self._size, self._observe = work, size, observe
        self._queue: asyncio.Queue[tuple[In, asyncio.Future[Out]]] = asyncio.Queue(queue)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to compute batches, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def stop(self) -> None:
        """Stop after the current batch."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def ask(self, item: In) -> Out:
        """The result for one item.

        Raises:
            BusyError: the queue is full.
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
            while len(batch) < self._size and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            batch = [(item, answer) for item, answer in batch if not answer.done()]  # cancelled
            if not batch:
                continue
            self._observe(len(batch))
            try:
                results = await loop.run_in_executor(
                    self._thread, self._work, [item for item, _ in batch]
                )
            except Exception as error:  # belongs to the tasks that wait for this batch
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), result in zip(batch, results, strict=True):
                if not answer.done():
                    answer.set_result(result)
