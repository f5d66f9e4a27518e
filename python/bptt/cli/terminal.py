"""What a person at the terminal sees and presses while networks are trained: a bar, and Ctrl-C."""

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


class ProgressBar:
    """What is trained, how it goes, steps/s and the time left, over all networks of a run.

    The live bar is drawn on stderr, and only if that is a terminal, so that logs stay short;
    everywhere each network that is done has its line.
    """

    def __init__(self, networks: int, steps: int) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        self._networks = networks
        self._begun, self._text = 0, ""
        self._bar = tqdm(
            total=steps,
            unit=" steps",
            disable=None,
            dynamic_ncols=True,
            bar_format="{desc} {bar} {percentage:3.0f}%, {rate_noinv_fmt}, {remaining} left",
        )

    def begin(self, name: str) -> None:
        """The next network."""
        self._begun += 1
        self._text = f"{name} ({self._begun}/{self._networks})"
        self._bar.set_description_str(self._text)

    def step(self, how: str) -> None:
        """One step more, and how it goes."""
        self._bar.set_description_str(f"{self._text}  {how}", refresh=False)
        self._bar.update()

    def finish(self, line: str) -> None:
        """Print the line of a network."""
        with self._bar.external_write_mode():
            print(line, flush=True)

    def close(self) -> None:
        self._bar.close()
