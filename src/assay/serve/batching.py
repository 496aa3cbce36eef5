"""Dynamic batching for models whose answers take longer than a hand-over: what arrives while a batch is answered makes up the next one.

Nothing waits for a batch to fill: a lone request is answered at once (compare Crankshaw et al. 2017, Clipper, NSDI, whose batches have a delay).
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from assay.errors import AssayError
from assay.serve.held import Arm
from assay.serve.http import Refused

MOST_ROWS = 64  # of a batch that several requests share; one request may be larger
MOST_WAITING = 1024  # rows; what arrives then is refused, so that nobody waits for an answer that comes after the deadline


class Line:
    """The requests that wait for one arm. All methods on the event loop; answers are made on one thread of its own."""

    def __init__(self, arm: Arm, *, most_rows: int = MOST_ROWS, most_waiting: int = MOST_WAITING) -> None:
        self.arm = arm
        self._most_rows, self._most_waiting = most_rows, most_waiting
        self._queue: deque[tuple[Any, int, asyncio.Future[Any]]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"answers-{arm.version.model}")
        self._task: asyncio.Task[None] | None = None
        self.waiting = 0

    async def ask(self, rows: Any, count: int) -> list[dict[str, Any]]:
        """The answers to these rows (a list of objects, or a frame of `count` rows). Raises Refused 429 if too many rows wait, or what the bundle raises."""
        if self.waiting and self.waiting + count > self._most_waiting:
            wait = max(0.1, (self.arm.row_ms or 50.0) * self.waiting / 1000)
            raise Refused(429, "{rows} rows are waiting already. Try again in {wait:.1f} seconds.", rows=self.waiting, wait=wait, retry_s=wait)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.append((rows, count, future))
        self.waiting += count
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            batch: list[tuple[Any, int, asyncio.Future[Any]]] = []
            size = 0
            while self._queue and (not batch or (size + self._queue[0][1] <= self._most_rows and isinstance(batch[0][0], list) and isinstance(self._queue[0][0], list))):
                rows, count, future = self._queue.popleft()
                if future.cancelled():  # its deadline passed while it waited
                    self.waiting -= count
                    continue
                batch.append((rows, count, future))
                size += count
            if not batch:
                continue
            done = await loop.run_in_executor(self._pool, _answered, self.arm, [rows for rows, _, _ in batch])
            for (_, count, future), result in zip(batch, done, strict=True):
                self.waiting -= count
                if future.cancelled():
                    continue
                if isinstance(result, BaseException):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        self._task = None

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _answered(arm: Arm, asked: list[Any]) -> list[Any]:
    """Answers or the error of each request. If the whole batch is refused, each is asked alone, so that nobody is refused for a neighbour's row."""
    if len(asked) > 1:
        try:
            answers = arm.bundle.predict([row for rows in asked for row in rows])
            if len(answers) == sum(len(rows) for rows in asked):
                cut, out = 0, []
                for rows in asked:
                    out.append(answers[cut:cut + len(rows)])
                    cut += len(rows)
                return out
        except Exception:
            pass
    return [_alone(arm, rows) for rows in asked]


def _alone(arm: Arm, rows: Any) -> Any:
    try:
        if isinstance(rows, list) and len(rows) == 1:
            return [arm.bundle.predict_one(rows[0])]
        found = arm.bundle.predict(rows)
        return found if isinstance(found, list) else found.to_dicts()
    except AssayError as error:
        return error
    except Exception as error:
        return error
