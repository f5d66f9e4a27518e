"""How a run goes from network to network, and what Ctrl-C does to it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from .network import Network
from .results import Results


class Run:
    """A run that writes `results` into `folder`, and saves after each network what is known.

    In `listen` Ctrl-C is a request: the step under way ends, then everything that is done is
    written. A flag rather than an exception, so that no parameter is left half updated.
    """

    def __init__(self, results: Results, folder: Path) -> None:
        self.results, self.folder = results, folder
        self.stopping = False  # since Ctrl-C
        self.bar: Any = None  # tqdm's, in `each`

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Here the first Ctrl-C sets `stopping`; a second one stops at once as usual."""
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
        self.stopping = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def each(self, networks: list[Network], work: Callable[[Network], str], steps: int) -> None:
        """Do `work` on one network after the other; it returns the line that is printed of it.

        `steps` is how many steps of training there are in all: the bar is drawn on stderr, and only
        if that is a terminal. After Ctrl-C there is no next network.
        """
        from tqdm import tqdm  # type: ignore[import-untyped]

        look = "{desc}{postfix} {bar} {percentage:3.0f}%, {rate_noinv_fmt}, {remaining} left"
        shown = {"unit": " steps", "disable": None, "dynamic_ncols": True, "bar_format": look}
        with tqdm(total=steps, **shown) as self.bar:
            for number, network in enumerate(networks, 1):
                if self.stopping:
                    break
                self.bar.set_description_str(f"{network.title} ({number}/{len(networks)})")
                line = work(network)
                self.results.networks.append(network)
                self.results.save(self.folder)
                with self.bar.external_write_mode():
                    print(line + ("" if network.finished else "   (interrupted)"), flush=True)
                if not network.finished:
                    break
