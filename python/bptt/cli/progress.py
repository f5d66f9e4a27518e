"""The live bar on a terminal; one line for each finished network everywhere."""

from __future__ import annotations

from types import TracebackType

__all__ = ["ProgressBar"]


class ProgressBar:
    """What is trained, how it goes, steps/s and the time left, over all networks of a run.

    It is drawn on stderr, and only if that is a terminal, so that logs stay short.
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

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
