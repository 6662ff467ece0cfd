"""A thread that writes pictures one after the other, each with its line, while the next ones are drawn.

Whoever draws waits (`wait`) after the first step of a batch until the batch before is on the disk. So a kill
costs no more than a batch and a step, and hardly any time is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from t2i.batch.manifest import Record

# What may wait to be written: it takes memory, and a kill loses it.
MOST_WAITING, MOST_WAITING_BYTES = 16, 64 * 2**20


class Writer:
    """Does what writes, in the order of `put`; leaving its `with` waits for what is not done.

    Attributes:
        broken: What ended the writing, such as a manifest that cannot be written; None while all is well.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "t2i-writer")
        self._pending: deque[tuple[Future[Record], int]] = deque()
        self.broken: BaseException | None = None

    def put(self, write: Callable[[], Record], size: int) -> None:
        """Have something written; waits while too much is waiting.

        Args:
            write: Writes, and returns the line that it wrote. What it raises ends the writing.
            size: Bytes in memory until then.
        """
        while left := [item for item in self._pending if not item[0].done()]:
            if len(left) < MOST_WAITING and sum(held for _, held in left) + size <= MOST_WAITING_BYTES:
                break
            wait([left[0][0]])
        self._pending.append((self._thread.submit(self._do, write), size))

    def wait(self) -> None:
        """Until everything is on the disk, or cannot be."""
        wait([work for work, _ in self._pending])

    def written(self) -> Iterator[Record]:
        """The lines that are on the disk and were not given before."""
        while self._pending and self._pending[0][0].done():
            work, _ = self._pending.popleft()
            if work.exception() is None:
                yield work.result()

    def finish(self) -> Iterator[Record]:
        """Wait until all is written.

        Yields:
            The lines that were not given before.

        Raises:
            StorageError: The manifest cannot be written; what waited behind it is lost.
        """
        self.wait()
        yield from self.written()
        if self.broken is not None:
            raise self.broken

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._thread.shutdown()
        except BaseException:  # interrupted once more: only what is being written is finished
            self._thread.shutdown(cancel_futures=True)
            raise

    def _do(self, write: Callable[[], Record]) -> Record:
        """In the thread."""
        if self.broken is not None:
            raise self.broken
        try:
            return write()
        except BaseException as error:
            self.broken = error
            raise
