"""How far a result may lie from the reference: derived here, once, for all tests.

    |result - reference| <= FEW * ceil(log2(K T)) * eps * scale

* **scale.** Every number that a layer returns is a sum of products. Its rounding error is relative
  to the same sum over absolute values, not to the result, which may have cancelled to nothing
  (Higham 2002, *Accuracy and Stability of Numerical Algorithms*, eq. 3.5). `scales` evaluates those
  sums from the reference's numbers: |dS|^T |S_prev| for dW_s, |dS| |W_x| for dx, and so on. All
  entries of an array share its largest scale, since what reaches one of them through the
  recurrence has passed through the others.
* **What the recurrence hands on.** An error e of dS_t leaves f' e + |dS_t| eps in da_t (the error
  of f' = 1 - S^2 is eps, not eps f'), and W_s takes it to the step before with at most ``RADIUS``
  times its norm (problems.py; |f'| <= 1). The scale of dS carries this sum along.
* **log2(K T).** A sum of K terms in blocks has error log2(K) eps (ibid., section 4.2), and T steps
  follow each other. K is the longest sum of the problem.
* **FEW.** The worst seen of any backend is 0.6 log2(K T) eps scale, and in most places a tenth.
"""

from __future__ import annotations

import math

import bptt
import numpy as np
from bptt.backends.numpy_cells import step_of
from bptt.states import as_tuple
from problems import RADIUS, Problem, Result

FEW = 2


def scales(problem: Problem, do: np.ndarray | None = None) -> Result:
    """The sums of absolute values behind each result, by name, in float64.

    For ``value_and_grad``, `do` (T, B, O) holds the scale of dL/dO; see `output_gradient_scale`.
    """
    p = problem.astype("float64")
    if bptt.CELLS[p.cell].gates > 1:
        return _gated_scales(p, do)
    step, step_back = step_of(bptt.CELLS[p.cell])
    steps, batch, _ = p.x.shape
    w_ih, w_hh = p.params.w_ih, p.params.w_hh
    b_ih = 0 if p.params.b_ih is None else p.params.b_ih
    b_hh = 0 if p.params.b_hh is None else p.params.b_hh
    s = np.zeros((batch, len(w_hh))) if p.state is None else p.state

    states, saved, a = [s], [], np.zeros((steps, batch, len(w_hh)))
    for t, x_t in enumerate(p.x):
        a[t] = np.abs(x_t) @ np.abs(w_ih.T) + np.abs(s) @ np.abs(w_hh.T) + np.abs(b_ih + b_hh)
        (s,), saved_t = step(x_t @ w_ih.T + b_ih, s @ w_hh.T + b_hh, (s,))
        states.append(s)
        saved.append(saved_t)
    y = np.array(states)[1:]
    previous = np.concatenate([np.abs(states[:1]), a])[:steps]  # the error of y is a eps

    dy, ds = p.dy, p.dstate
    if do is not None:
        dy, ds = do @ np.abs(p.params.w_ho), np.zeros_like(p.dstate)
    ds_scale, carried = np.zeros_like(y), np.abs(ds)
    for t in reversed(range(steps)):
        ds = ds + dy[t]
        ds_scale[t] = np.abs(dy[t]) + carried
        da, _, _ = step_back(saved[t], (ds,))
        slope, _, _ = step_back(saved[t], (np.ones_like(ds),))
        error = np.abs(slope) * ds_scale[t] + np.abs(ds)
        norm = np.sqrt(np.mean(error * error, axis=1, keepdims=True))
        ds, carried = da @ w_hh, np.abs(da) @ np.abs(w_hh) + RADIUS * norm

    found = {
        "y": a,
        "last": a[-1] if steps else s,
        "dx": ds_scale @ np.abs(w_ih),
        "dstate": carried,
        "w_ih": np.tensordot(ds_scale, np.abs(p.x), axes=((0, 1), (0, 1))),
        "w_hh": np.tensordot(ds_scale, previous, axes=((0, 1), (0, 1))),
        "b_ih": ds_scale.sum(axis=(0, 1)),
        "b_hh": ds_scale.sum(axis=(0, 1)),
    }
    if do is not None:
        found["w_ho"] = np.tensordot(do, a, axes=((0, 1), (0, 1)))  # the error of y is a eps
        found["b_o"] = do.sum(axis=(0, 1))
    return found


def _gated_scales(p: Problem, do: np.ndarray | None) -> Result:
    """The same for a gated cell, more roughly: all its gates share the largest scale of a unit.

    The sums behind the gates have error a eps; the memory adds it up, and forgets it by the gate
    that keeps it. On the way back everything that reaches a unit is multiplied by slopes and
    values below 1, whose own errors are those of the forward pass.
    """
    kind = bptt.CELLS[p.cell]
    step, step_back = step_of(bptt.CELLS[p.cell])
    steps, batch, _ = p.x.shape
    rows, hidden = p.params.w_hh.shape
    w_ih, w_hh = p.params.w_ih, p.params.w_hh
    b_ih = np.zeros(rows) if p.params.b_ih is None else p.params.b_ih
    b_hh = np.zeros(rows) if p.params.b_hh is None else p.params.b_hh
    zeros = tuple(np.zeros((batch, hidden)) for _ in kind.states)
    state = zeros if p.state is None else as_tuple(p.state)
    keeps = kind.gate_names.index(kind.keeps)

    memory = np.abs(state[-1])
    states, saved, scale = [state[0]], [], np.zeros((steps, batch, hidden))
    for t, x_t in enumerate(p.x):
        sums = np.abs(x_t) @ np.abs(w_ih.T) + np.abs(state[0]) @ np.abs(w_hh.T)
        sums += np.abs(b_ih) + np.abs(b_hh)
        state, saved_t = step(x_t @ w_ih.T + b_ih, state[0] @ w_hh.T + b_hh, state)
        memory = saved_t[keeps] * memory + sums.reshape(batch, kind.gates, hidden).max(axis=1)
        scale[t] = memory
        states.append(state[0])
        saved.append(saved_t)
    previous = np.concatenate([np.abs(states[:1]), scale])[:steps]

    dy, ds = p.dy, as_tuple(p.dstate)
    dhistory = (p.dy, np.zeros_like(p.dy) if p.dc is None else p.dc)[: len(kind.states)]
    if do is not None:
        dy, ds = do @ np.abs(p.params.w_ho), tuple(np.zeros_like(d) for d in ds)
        dhistory = (dy, *(np.zeros_like(dy) for _ in dhistory[1:]))
    carried = sum(map(np.abs, ds))
    error = np.zeros((steps, batch, hidden))
    for t in reversed(range(steps)):
        ds = tuple(d + outside[t] for d, outside in zip(ds, dhistory, strict=True))
        outside = sum(np.abs(d[t]) for d in dhistory)
        error[t] = sum(map(np.abs, ds)) * (1 + scale[t]) + outside + carried
        norm = np.sqrt(np.mean(error[t] * error[t], axis=1, keepdims=True))
        _, dg_h, direct = step_back(saved[t], ds)
        ds = (dg_h @ w_hh + direct[0], *direct[1:])
        carried = np.abs(dg_h) @ np.abs(w_hh) + sum(map(np.abs, direct)) + RADIUS * norm
    deltas = np.tile(error, kind.gates)
    found = {
        "y": scale,
        "last": scale[-1] if steps else states[0],
        "dx": deltas @ np.abs(w_ih),
        "dstate": carried,
        "w_ih": np.tensordot(deltas, np.abs(p.x), axes=((0, 1), (0, 1))),
        "w_hh": np.tensordot(deltas, previous, axes=((0, 1), (0, 1))),
        "b_ih": deltas.sum(axis=(0, 1)),
        "b_hh": deltas.sum(axis=(0, 1)),
    }
    if len(kind.states) > 1:
        found.update({"c": scale, "last.c": found["last"], "dstate.c": carried})
    if do is not None:
        found["w_ho"] = np.tensordot(do, scale, axes=((0, 1), (0, 1)))
        found["b_o"] = do.sum(axis=(0, 1))
    return found


def output_scales(
    problem: Problem, y: np.ndarray, loss: str, at: str, reduction: str
) -> tuple[np.ndarray, float]:
    """The scales of dL/dO (T, B, O) and of the loss, given the states y in float64."""
    p = problem.astype("float64")
    w_ho, b_o = np.abs(p.params.w_ho), p.params.b_o
    o = np.abs(y) @ w_ho.T + (0 if b_o is None else np.abs(b_o))
    counts = np.zeros(y.shape[:2])
    where, _ = p.loss_at(at, loss)
    if at == "weights":
        counts[:] = where
    elif at == "all":
        counts[:] = 1
    elif len(y):
        counts[-1 if at == "last" else where] = 1
    if reduction == "mean" and counts.size:
        counts /= counts.sum()
    if loss == "squared_error":
        do = o + np.abs(p.target)
        terms = (do * do).sum(axis=-1)
    else:
        # softmax has relative error |O| eps, and lies below one.
        do = np.broadcast_to(1 + o.max(axis=-1, keepdims=True), o.shape)
        terms = do.sum(axis=-1)
    return counts[..., None] * do, float((counts * terms).sum())


def tolerance(problem: Problem, dtype: str | type, scale: np.ndarray | float) -> float:
    """The largest difference from the reference that rounding in `dtype` explains."""
    steps, batch, inputs = problem.x.shape
    longest_sum = max(batch, inputs + problem.params.hidden_size, problem.params.output_size)
    depth = max(1, math.ceil(math.log2(max(1, longest_sum * steps))))
    largest = float(np.max(scale, initial=0.0))
    # Below the normal numbers an error is no longer relative.
    return FEW * depth * float(np.finfo(dtype).eps) * largest + float(np.finfo(dtype).tiny)


def assert_close(
    actual: Result, reference: Result, scale: Result, problem: Problem, dtype: str | type
) -> None:
    """Compare results by name; the message tells how to have the problem again."""
    assert actual.keys() == reference.keys(), problem
    for name, expected in reference.items():
        found = np.asarray(actual[name])
        assert found.shape == np.shape(expected), f"{name} of {problem}"
        if name != "loss":
            assert found.dtype == dtype, f"{name} of {problem}"
        allowed = tolerance(problem, dtype, scale[name])
        error = np.max(np.abs(found.astype("float64") - expected), initial=0.0)
        assert error <= allowed, f"{name} of {problem}: error {error:.3g} > {allowed:.3g}"
