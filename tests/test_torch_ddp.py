"""Two processes under torchrun make the steps of one."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
distributed = pytest.importorskip("torch.distributed")

EXAMPLE = Path(__file__).parents[1] / "docs" / "torch_ddp.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def losses(text: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"^step \d+ loss (\S+)$", text, re.M)]


@pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_gloo_available(),
    reason="PyTorch is built without gloo",
)
def test_two_processes_have_the_losses_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE))["train"](4, 0, 1)
    one = losses(capsys.readouterr().out)
    assert len(set(one)) == 4
    command = [sys.executable, *TORCHRUN, str(EXAMPLE), "--updates", "4"]
    two = losses(subprocess.check_output(command, text=True, timeout=120))
    assert two == pytest.approx(one, rel=1e-6)
