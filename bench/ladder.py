"""From naive loops to the kernels, rung by rung, at one shape: tanh, float32, B=32, T=I=H=128.

The rungs: loops compiled by Numba; NumPy; the Numba backend; the native backend with each
instruction set of this CPU on one thread, and with the best on all. Each computes the forward pass
and all gradients, which are checked before they are timed. The peak of a rung is that of as many
threads as it has. Half a minute; needs Numba.
"""

from argparse import Namespace
from collections.abc import Iterator

import numpy as np
from bptt import compiled

from . import session
from .cases import Case
from .peers import OwnBackend
from .problem import Array, Outputs, Peer, Problem, Workload, make_problem, named
from .timing import Task, contest

_CASE = Case("ladder", batch=32, steps=128, input_size=128, hidden_size=128)


def _tasks(options: Namespace) -> Iterator[Task]:
    yield contest(make_problem(_CASE, "tanh", "float32"), _rungs(options.threads), options)


def _rungs(threads: int) -> Iterator[Peer]:
    yield NaiveLoops()
    yield OwnBackend("numpy", "NumPy, a product of its BLAS each step", threads)
    yield OwnBackend("numba", "Numba backend: fused, parallel over rows", threads)
    isas = compiled.core.isas()
    for isa in reversed(isas):
        yield OwnBackend("native", f"native, {isa}, one thread", 1, isa)
    yield OwnBackend("native", f"native, {isas[0]}", threads, isas[0])


main = session.command(
    "ladder", __doc__, "from naive loops to the kernels", _tasks, rounds=(9, 1), min_time=(0.05, 0)
)


class NaiveLoops(Peer):
    """The loops of the equations, one multiply-add at a time, compiled by Numba for one thread,
    without leave to reorder sums. z_t is x_t beside S_{t-1}, w is W_x beside W_s."""

    name = "naive loops, compiled by Numba"
    package = "numba"
    threads = 1
    cells = ("tanh",)

    def prepare(self, problem: Problem, threads: int) -> Workload:
        import numba

        forward, backward = numba.njit(_forward), numba.njit(_backward)
        (steps, batch, inputs), hidden = problem.x.shape, problem.case.hidden_size
        w_ih, w_hh, b_ih, b_hh = problem.weights

        def call() -> Outputs:
            w, y = np.hstack([w_ih, w_hh]), np.empty_like(problem.dy)
            z = np.empty((steps + 1, batch, inputs + hidden), problem.dtype)
            z[:-1, :, :inputs], z[0, :, inputs:] = problem.x, problem.state[0]
            forward(z, w, b_ih + b_hh, y)
            dz, dw, db = backward(z, w, y, problem.dy)
            dx, dstate = dz[:-1, :, :inputs], dz[0, :, inputs:]
            return named(y, dx, [dstate], [dw[:, :inputs], dw[:, inputs:], db, db])

        return Workload(call, outputs=lambda outputs: outputs)


def _forward(z: Array, w: Array, b: Array, y: Array) -> None:
    steps, batch, hidden = y.shape
    width = w.shape[1]
    for t in range(steps):
        for r in range(batch):
            for h in range(hidden):
                a = b[h]
                for j in range(width):
                    a += w[h, j] * z[t, r, j]
                y[t, r, h] = np.tanh(a)
            z[t + 1, r, width - hidden :] = y[t, r]


def _backward(z: Array, w: Array, y: Array, dy: Array) -> tuple[Array, Array, Array]:
    steps, batch, hidden = y.shape
    width = w.shape[1]
    dz, dw, db = np.zeros_like(z), np.zeros_like(w), np.zeros(hidden, w.dtype)
    for r in range(batch):
        for t in range(steps - 1, -1, -1):
            for h in range(hidden):
                ds = dy[t, r, h] + dz[t + 1, r, width - hidden + h]
                da = ds * (1 - y[t, r, h] * y[t, r, h])
                db[h] += da
                for j in range(width):
                    dz[t, r, j] += w[h, j] * da
                    dw[h, j] += da * z[t, r, j]
    return dz, dw, db
