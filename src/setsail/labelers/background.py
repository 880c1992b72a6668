"""An event loop of its own for asynchronous reward functions, usable where another loop already runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any


class BackgroundLoop:
    """One event loop in a daemon thread, started at the first use and kept.

    Kept, because what a function opens in one call (an HTTP session, a semaphore) belongs to the loop it was
    opened in. In a thread, because a notebook already runs a loop in the main one.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def gather(self, coroutines: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run them concurrently; each gives its result, or the exception that ended it."""
        if not coroutines:
            return []
        future = asyncio.run_coroutine_threadsafe(_all(coroutines), self._started())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="setsail-reward-functions", daemon=True).start()
        return self._loop

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process starts a loop of its own."""
        return {"_loop": None}


async def _all(coroutines: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    return await asyncio.gather(*coroutines, return_exceptions=True)
