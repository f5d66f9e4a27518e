"""What sequences as people have them cost, each figure with a goal.

- ragged: `forward` and `Tape.backward` of rows of several lengths, for each step that is there,
  over those of a dense batch; and over PyTorch's packed sequences (needs PyTorch)
- `batch_first=True` and `reverse=True` over the plain call
- `value_and_grad` under a limit of 64 MiB: its time over that without a limit, and its memory over
  PyTorch's
- memory of a whole process that takes the gradient of a recording of a million steps in a file
- a step of `Stepper`, in microseconds

The two of a pair take turns, outputs are compared first. Some four minutes.
"""

import itertools
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import bptt
import numpy as np

from . import session
from .cases import Case
from .peers import all_peers
from .peers.torch import layer
from .problem import Array, Problem, make_problem
from .records import Row
from .timing import Sample, Task, Timed, judged

_CELLS = ("tanh", "lstm", "gru")
_RAGGED = (40, 160, 72, 136)  # B, T, I, H; lengths T/B, 2 T/B, ..., T
_SMALL_LONG = (8, 2000, 64, 64)
_PLAIN = ((32, 128, 64, 64), (32, 128, 128, 128))
_LONG = (4, 49_152, 96, 224)
_RAGGED_GOAL, _PACKED_GOAL, _SMALL_LONG_GOAL = 1 / 0.8, 1 / 8, 1 / 20
_LAYOUT_GOAL, _LIMIT_GOAL, _MEMORY_GOAL, _STEP_GOAL = 1.1, 1.35, 1 / 10, 4e-6
_LIMIT = 64 << 20
_RECORDING = (1, 1_000_000, 16, 64)
_RECORDING_LIMIT, _RECORDING_GOAL = 32 << 20, 256 << 20


def _tasks(options: Namespace) -> Iterator[Task]:
    rounds, quick = options.rounds, options.quick
    for cell in _CELLS:
        yield ragged(_problem(cell, *_shorter(_RAGGED, quick)), rounds)
    if all_peers()["torch"].missing() is None:
        for cell in _CELLS:
            packed = partial(against_packed, rounds=min(rounds, 3), threads=options.threads)
            yield packed(_problem(cell, *_shorter(_RAGGED, quick)), _PACKED_GOAL)
            yield packed(_problem(cell, *_shorter(_SMALL_LONG, quick)), _SMALL_LONG_GOAL)
    for cell, shape in itertools.product(_CELLS, _PLAIN[: 1 if quick else None]):
        for name in ("batch_first", "reverse"):
            yield layout(_problem(cell, *shape), name, rounds)
    yield limited(*_shorter(_LONG, quick), rounds=min(rounds, 3))
    if all_peers()["torch"].missing() is None:
        yield memory(*_shorter(_LONG, quick))
    yield recording(*_shorter(_RECORDING, quick))
    yield step(rounds)


_PEERS = ("native", "torch")
_TITLE = "sequences as people have them"
main = session.command(
    "sequences", __doc__, _TITLE, _tasks, *_PEERS, rounds=(9, 1), min_time=(0, 0)
)


def _shorter(shape: tuple[int, ...], quick: bool) -> tuple[int, ...]:
    return (shape[0], shape[1] // 20, *shape[2:]) if quick else shape


def _problem(cell: str, *shape: int) -> Problem:
    return make_problem(Case("sequences", *shape), cell, "float32")


def _lengths(problem: Problem) -> Array:
    """Lengths (B,) that rise evenly to T, in no order."""
    steps, batch, _ = problem.x.shape
    lengths = np.ceil(steps * np.arange(1, batch + 1) / batch).astype(int)
    return np.random.default_rng(0).permutation(lengths)


def _both_passes(problem: Problem, x: Array, dy: Array, **how: Any) -> Callable[[], Any]:
    """`forward` and `Tape.backward` into the arrays of the call before, as in training."""
    inputs = (problem.cell, problem.params, x, problem.given_state)
    tape = bptt.forward(*inputs, **how)
    grads = tape.backward(dy)

    def call() -> tuple[Array, bptt.Grads]:
        again = bptt.forward(*inputs, **how, out=tape)
        return again.y, again.backward(dy, out=grads)

    return call


def _each(call: Callable[[], Any], steps: int) -> Callable[[], Sample]:
    """Turns that tell the time of one of so many steps of sequences."""
    turn = Timed(call)

    def take() -> Sample:
        sample = turn()
        return sample._replace(value=sample.value / steps)

    return take


def ragged(problem: Problem, rounds: int) -> Task:
    """The time of a step that is there, of a ragged batch and of a dense one."""
    x, dy, lengths = problem.x, problem.dy, _lengths(problem)
    turns = {
        "ragged": _each(_both_passes(problem, x, dy, lengths=lengths), lengths.sum()),
        "dense": _each(_both_passes(problem, x, dy), x.shape[0] * x.shape[1]),
    }
    row = problem.row("a step of a ragged batch, over a dense one's")
    return judged(row, _RAGGED_GOAL, turns, rounds)


def against_packed(problem: Problem, goal: float, rounds: int, threads: int) -> Task:
    """A ragged batch over PyTorch's packed sequences: forward, and all gradients."""
    import torch

    torch.set_num_threads(threads)
    lengths = _lengths(problem)
    ours = _both_passes(problem, problem.x, problem.dy, lengths=lengths)
    module = layer(problem)
    weights = list(module.parameters())
    x = torch.tensor(problem.x, requires_grad=True)
    state = tuple(torch.tensor(s[None]) for s in problem.state)
    dy = torch.tensor(problem.dy)

    def theirs() -> Any:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        y, _ = module(packed, state if len(state) > 1 else state[0])
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
        return y, torch.autograd.grad(y, (x, *weights), dy)

    (y, grads), (theirs_y, (dx, *_)) = ours(), theirs()
    np.testing.assert_allclose(y, theirs_y.detach(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(grads.x, dx, rtol=1e-2, atol=1e-3)
    turns = {"bptt": Timed(ours), "torch packed": Timed(theirs)}
    return judged(problem.row("a ragged batch, over PyTorch's packed path"), goal, turns, rounds)


def layout(problem: Problem, name: str, rounds: int) -> Task:
    """A call with another layout of its arrays, over the plain one."""
    x, dy = problem.x, problem.dy
    plain = _both_passes(problem, x, dy)
    if name == "batch_first":
        x, dy = (np.ascontiguousarray(a.swapaxes(0, 1)) for a in (x, dy))
    turns = {name: Timed(_both_passes(problem, x, dy, **{name: True})), "plain": Timed(plain)}
    return judged(problem.row(f"{name}, over the plain call"), _LAYOUT_GOAL, turns, rounds)


def limited(*shape: int, rounds: int) -> Task:
    """`value_and_grad` that may hold 64 MiB, over one that holds all states."""
    problem = _problem("lstm", *shape)
    call = _with_loss(problem)
    limit = partial(call, memory_limit=_LIMIT)
    assert limit()[0] == call()[0]
    turns = {"64 MiB": Timed(limit), "all states": Timed(call)}
    return judged(problem.row("a limit on memory, over none"), _LIMIT_GOAL, turns, rounds)


def _with_loss(problem: Problem) -> Callable[..., Any]:
    i, h = problem.case.input_size, problem.case.hidden_size
    params = bptt.init_params(problem.cell, input_size=i, hidden_size=h, output_size=10, rng=0)
    ids = np.zeros(problem.x.shape[:2], int)
    inputs = (problem.cell, params, problem.x, ids)
    return partial(bptt.value_and_grad, *inputs, loss="cross_entropy", at="all")


def memory(*shape: int) -> Task:
    """Peak of a process with that limit over one with PyTorch, beside what it had before."""
    turns = {"64 MiB": partial(_peak, "bptt", shape), "torch": partial(_peak, "torch", shape)}
    row = _problem("lstm", *shape).row("memory of a limited call, over PyTorch's", "MB")
    return judged(row, _MEMORY_GOAL, turns, 1)


def recording(*shape: int) -> Task:
    """Peak of a whole process whose x is a file of so many steps, with a loss at every step."""
    turn = {"bptt": partial(_peak, "recording", shape)}
    case = Case("sequences", *shape)
    row = Row(case.family, "memory of a process with a recording", f"lstm {case.name}", unit="MB")
    return judged(row, _RECORDING_GOAL, turn, 1)


def _peak(who: str, shape: tuple[int, ...]) -> Sample:
    command = [sys.executable, "-m", "bench.sequences", who, *map(str, shape)]
    return Sample(float(subprocess.check_output(command)))


def _print_peak(who: str, *shape: int) -> None:
    """What a process holds at most during a call beside its arrays and dx, in bytes."""
    problem = _problem("lstm", *shape)
    limited = partial(_with_loss(problem), memory_limit=_LIMIT)
    call = limited if who == "bptt" else _torch_with_loss(problem)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on
    before = _status("VmRSS")
    results = call()
    print(max(_status("VmHWM") - before - problem.x.nbytes, 0))
    del results  # held until then


def _print_recording_peak(batch: int, steps: int, inputs: int, hidden: int) -> None:
    """What this process holds at most, in bytes, the pages of the file among it."""
    params = bptt.init_params("lstm", input_size=inputs, hidden_size=hidden, output_size=10, rng=0)
    ids = np.zeros((steps, batch), np.int64)
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(steps * batch * inputs * 4)
        x = np.memmap(file.name, np.float32, "r", shape=(steps, batch, inputs))
        call = partial(bptt.value_and_grad, "lstm", params, x, ids, loss="cross_entropy", at="all")
        results = call(memory_limit=_RECORDING_LIMIT)
        print(_status("VmHWM"))
        del results  # held until then


def _torch_with_loss(problem: Problem) -> Callable[[], Any]:
    import torch

    module, x = layer(problem), torch.tensor(problem.x, requires_grad=True)
    readout = torch.nn.Linear(problem.case.hidden_size, 10)
    ids = torch.zeros(x.shape[0] * x.shape[1], dtype=torch.long)

    def call() -> Any:
        o = readout(module(x)[0]).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(o, ids)
        return torch.autograd.grad(loss, [x, *module.parameters(), *readout.parameters()])

    return call


def _status(name: str) -> int:
    """Bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def step(rounds: int) -> Task:
    """A step of an LSTM with B = 1, H = 64, by `Stepper` from Python."""
    problem = _problem("lstm", 1, 1, 64, 64)
    stepper = bptt.Stepper("lstm", problem.params)
    turn = Timed(partial(stepper, problem.x[0], out=np.empty((1, 64), np.float32)), 0.05)
    return judged(problem.row("a step of Stepper", "us"), _STEP_GOAL, {"bptt": turn}, rounds)


if __name__ == "__main__":
    who, *sizes = sys.argv[1:]
    of_recording = who == "recording"
    (_print_recording_peak if of_recording else partial(_print_peak, who))(*map(int, sizes))
