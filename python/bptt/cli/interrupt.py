"""Ctrl-C while networks are trained."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Ctrl-C as a request: the step under way ends, then everything that is done is written.

    A flag rather than an exception, so that no parameter is left half updated.
    """

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Here the first Ctrl-C sets `requested`; a second one stops at once as usual."""
        # Signals belong to the main thread, and who ignores SIGINT (nohup, &) means it.
        listens = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if listens:
            signal.signal(signal.SIGINT, self._request)
        try:
            yield
        finally:
            if listens:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
