"""The live bar on a terminal; one line for each finished network everywhere."""

from __future__ import annotations

from types import TracebackType

from .plan import Network
from .results import NetworkResult

__all__ = ["ProgressBar"]


class ProgressBar:
    """Loss, accuracy, steps/s and the time left, over all networks of a run.

    It is drawn on stderr, and only if that is a terminal, so that logs stay short.
    """

    def __init__(self, networks: int, steps_per_network: int) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        self._networks = networks
        self._begun, self._text = 0, ""
        self._bar = tqdm(
            total=networks * steps_per_network,
            unit=" steps",
            disable=None,
            dynamic_ncols=True,
            bar_format="{desc} {bar} {percentage:3.0f}%, {rate_noinv_fmt}, {remaining} left",
        )

    def begin(self, network: Network) -> None:
        self._begun += 1
        self._text = f"{network.cell}, radius {network.radius} ({self._begun}/{self._networks})"
        self._bar.set_description_str(self._text)

    def step(self, loss: float, accuracy: float) -> None:
        text = f"{self._text}  loss {loss:<8.3g} accuracy {accuracy:4.0%}"
        self._bar.set_description_str(text, refresh=False)
        self._bar.update()

    def finish(self, result: NetworkResult, loss: float) -> None:
        network, history = result.network, result.history
        before, after = history.far_over_near[0], history.far_over_near[-1]
        line = (
            f"{network.cell:<6}  radius {network.radius}   loss {loss:8.3g}   held-out accuracy "
            f"{history.accuracy[-1]:6.1%}   first/last gradient {before:7.2g} -> {after:<7.2g} "
            f"{len(history.loss):4d} steps in {result.seconds:.1f} s"
            f"{'' if result.finished else '   (interrupted)'}"
        )
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
