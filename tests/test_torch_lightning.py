"""The callback of docs/torch_lightning.py, where Lightning is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")
import torch  # noqa: E402

EXAMPLE = Path(__file__).parents[1] / "docs" / "torch_lightning.py"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("torch_lightning", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, about what it is built on


class Writer:
    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.append((tag, value, step))


def test_horizons_are_followed_and_written_while_a_model_is_fitted(example: Any) -> None:
    writer = Writer()

    class Logger(pl.loggers.Logger):
        name, version, experiment = "some", 0, writer

        def log_metrics(self, *_: Any, **__: Any) -> None: ...
        def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    horizons = example.Horizons(every=2)
    options = dict.fromkeys(
        ("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = pl.Trainer(
        max_steps=5, accelerator="cpu", logger=Logger(), callbacks=[horizons], **options
    )
    model = example.Echo()
    signs = torch.randint(2, (8, 12, 3, 1)).float() * 2 - 1
    trainer.fit(model, torch.utils.data.DataLoader(signs, batch_size=None))
    assert list(horizons.monitors) == ["rnn"]
    assert [record.step for record in horizons.monitors["rnn"].history] == [0, 2, 4]
    tags = {tag for tag, _, _ in writer.scalars}
    assert "rnn/horizon" in tags
    model.train()
    model.training_step(signs[0], 0).backward()  # no longer followed
    assert len(horizons.monitors["rnn"].history) == 3
