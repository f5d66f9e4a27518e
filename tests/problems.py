"""Random problems: parameters and data of one layer, drawn from a seed and of any size.

A problem prints as the call that made it, so every failure says how to have it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import bptt
import numpy as np
from bptt.states import as_given, as_tuple

BIASES = ("b_ih", "b_hh", "b_o")
LOSSES = ("squared_error", "cross_entropy")
# Every way to say where the loss is read.
AT = ("last", "all", "step", "step from the end", "weights")

# The recurrent matrix is this times an orthogonal one: no direction grows, and what happened n
# steps ago counts by at most RADIUS**n, so errors do not pile up over more than a few steps.
RADIUS = 0.9

Result = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Problem:
    """A layer with data and gradients that come in; see `make_problem`."""

    call: str
    cell: str
    params: bptt.Params
    x: np.ndarray  # (T, B, I)
    state: Any  # (B, H), a pair of them for an LSTM, or None
    dy: np.ndarray  # (T, B, H)
    dc: np.ndarray | None  # (T, B, H) of an LSTM
    dstate: Any  # like state, but not None
    target: np.ndarray  # (T, B, O)
    ids: np.ndarray  # (T, B)
    weights: np.ndarray  # (T, B)

    def __repr__(self) -> str:
        return self.call

    def astype(self, dtype: str | type) -> Problem:
        """The same numbers in another dtype."""
        names = ("params", "x", "state", "dy", "dc", "dstate", "target", "weights")
        cast = {name: each(lambda a: a.astype(dtype), getattr(self, name)) for name in names}
        return replace(self, call=f"{self.call}.astype({np.dtype(dtype).name!r})", **cast)

    def row(self, n: int) -> Problem:
        """Row n of the batch by itself."""
        cut = {
            name: getattr(self, name)[:, n : n + 1].copy()
            for name in ("x", "dy", "target", "ids", "weights")
        }
        for name in ("state", "dstate"):
            cut[name] = each(lambda a: a[n : n + 1].copy(), getattr(self, name))
        cut["dc"] = each(lambda a: a[:, n : n + 1].copy(), self.dc)
        return replace(self, call=f"{self.call}.row({n})", **cut)

    def loss_at(self, at: str, loss: str) -> tuple[Any, np.ndarray]:
        """The arguments `at` and `target` for one of `AT`."""
        steps = len(self.x)
        where: Any = {"step": steps // 2, "step from the end": -1 - steps // 3}.get(at, at)
        target = self.ids if loss == "cross_entropy" else self.target
        if at == "weights":
            return self.weights, target
        if at == "all":
            return where, target
        if steps == 0:
            return where, np.zeros(target.shape[1:], target.dtype)
        return where, target[-1 if at == "last" else where]

    def forward_backward(self, backend: str, *, dy: bool = True, dstate: bool = True) -> Result:
        """Everything that `bptt.forward` and `Tape.backward` return, by name."""
        tape = bptt.forward(self.cell, self.params, self.x, self.state, backend=backend)
        return {**recorded(tape), **by_name(self.backward(tape, dy=dy, dstate=dstate))}

    def backward(
        self, tape: bptt.Tape, *, dy: bool = True, dstate: bool = True, **options: Any
    ) -> bptt.Grads:
        """``Tape.backward`` from the gradients of every step and of the final state."""
        if dy and self.dc is not None:
            options["dc"] = self.dc
        return tape.backward(self.dy if dy else None, self.dstate if dstate else None, **options)

    def zeros(self) -> bptt.Grads:
        """Gradients to write to."""
        return bptt.Grads.zeros(self.params, *self.x.shape[:2], cell=self.cell)

    def value_and_grad(self, backend: str, loss: str, at: str, reduction: str = "mean") -> Result:
        """Everything that `bptt.value_and_grad` returns, by name."""
        where, target = self.loss_at(at, loss)
        value, grads = bptt.value_and_grad(
            self.cell,
            self.params,
            self.x,
            target,
            loss=loss,
            at=where,
            reduction=reduction,
            state=self.state,
            backend=backend,
        )
        return {"loss": value, **by_name(grads)}


def each(f: Callable[[Any], Any], value: Any) -> Any:
    """f(value), of each part of a pair, and None of None."""
    if value is None:
        return None
    return tuple(map(f, value)) if isinstance(value, tuple) else f(value)


def parts(name: str, state: Any) -> Result:
    """A state by name: its first part `name`, and the second, if there is one, `name`.c."""
    return dict(zip((name, f"{name}.c"), as_tuple(state), strict=False))


def recorded(tape: bptt.Tape) -> Result:
    """All arrays that a tape shows."""
    c = {"c": tape.c} if len(bptt.CELLS[tape.cell].states) > 1 else {}
    return {"y": tape.y, **c, **parts("last", tape.state)}


def by_name(grads: bptt.Grads) -> Result:
    """All gradients that are present; "dx" and "dstate" are those of the data."""
    return {"dx": grads.x, **parts("dstate", grads.state), **grads.arrays()}


def make_problem(
    cell: str,
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    outputs: int = 3,
    *,
    dtype: str = "float64",
    seed: int = 0,
    biases: tuple[str, ...] = BIASES,
    with_state: bool = True,
) -> Problem:
    """Draw a problem; numbers are drawn in float64 and rounded to `dtype`."""
    rng = np.random.default_rng(seed)
    call = (
        f"make_problem({cell!r}, {steps}, {batch}, {inputs}, {hidden}, {outputs}, "
        f"dtype={dtype!r}, seed={seed}, biases={biases}, with_state={with_state})"
    )

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    kind = bptt.CELLS[cell]
    rows = kind.gates * hidden
    blocks = [np.linalg.qr(rng.standard_normal((hidden, hidden)))[0] for _ in range(kind.gates)]
    drawn = {"b_ih": normal(rows), "b_hh": normal(rows), "b_o": normal(outputs)}
    params = bptt.Params(
        w_ih=(rng.standard_normal((rows, inputs)) / np.sqrt(inputs)).astype(dtype),
        w_hh=(RADIUS * np.concatenate(blocks)).astype(dtype),
        w_ho=(rng.standard_normal((outputs, hidden)) / np.sqrt(hidden)).astype(dtype),
        **{name: drawn[name] / np.dtype(dtype).type(2) for name in biases},
    )
    x = normal(steps, batch, inputs)

    def normal_state() -> Any:
        return as_given(tuple(normal(batch, hidden) for _ in kind.states))

    state = normal_state() if with_state else None
    if cell == "relu":
        _keep_off_the_kink(params, x, state, rng)
    return Problem(
        call=call,
        cell=cell,
        params=params,
        x=x,
        state=state,
        dy=normal(steps, batch, hidden),
        dc=normal(steps, batch, hidden) if len(kind.states) > 1 else None,
        dstate=normal_state(),
        target=normal(steps, batch, outputs),
        ids=rng.integers(0, outputs, (steps, batch)),
        weights=rng.uniform(0.5, 1.5, (steps, batch)).astype(dtype),
    )


def _keep_off_the_kink(
    params: bptt.Params, x: np.ndarray, state: np.ndarray | None, rng: np.random.Generator
) -> None:
    """Draw rows of `x` again until no pre-activation of relu lies near its kink.

    There the derivative jumps, and a rounding error decides on which side: no tolerance fits both.
    """
    wide = params.astype("float64")
    bias = sum(b for b in (wide.b_ih, wide.b_hh) if b is not None)
    near = np.ones(x.shape[1], bool)
    while True:
        s = np.zeros((x.shape[1], params.hidden_size)) if state is None else state
        near = np.zeros(x.shape[1], bool)
        for x_t in x.astype("float64"):
            a = x_t @ wide.w_ih.T + s @ wide.w_hh.T + bias
            near |= (np.abs(a) < 1e-5).any(axis=1)
            s = np.maximum(a, 0)
        if not near.any():
            return
        x[:, near] = rng.standard_normal(x[:, near].shape)
