"""What backends compute apart from BPTT: a readout, to the last bit that of the whole network, and
steps that are each for itself.
"""

from __future__ import annotations

from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends import resolve
from bptt.backends.protocol import ROUTES, Incoming, Layer, Request
from bptt.cells import get_cell
from bptt.losses import make_objective
from bptt.recorded import Recorded
from bptt.row_map import dense_rows
from bptt.states import as_tuple
from conftest import BACKENDS
from problems import AT, Problem, make_problem

pytestmark = pytest.mark.pairs  # of cells, dtypes, backends and shapes

native_only = pytest.mark.skipif(
    "native" not in BACKENDS, reason=f"native backend {bptt.backends()['native']}"
)

# T, B, I, H, O: slices of the batch for several threads, and for none; many outputs; one row.
SHAPES = [(9, 70, 3, 33, 9), (17, 3, 31, 65, 5), (12, 6, 5, 16, 90), (300, 1, 2, 24, 3)]
ISAS = [isa for isa in bptt.info().isas if isa != "generic"]


def readout_gradient(p: Problem, backend: str, loss: str, at: str) -> dict[str, Any]:
    """``Backend.readout_gradient`` of the states of `p`, by name."""
    where, target = p.loss_at(at, loss)
    steps, batch, _ = p.x.shape
    objective = make_objective(p.params, dense_rows(steps, batch), target, loss, where, "mean")
    tape = bptt.forward(p.cell, p.params, p.x, p.state, backend=backend)
    chosen = resolve(backend, get_cell(p.cell), p.x.dtype)
    value, dy, readout = chosen.readout_gradient(tape._layer, tape.y, objective)
    return {"loss": value, "dy": dy, **readout}


@native_only
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_and_the_gradients_have_the_bits_of_value_and_grad(
    shape: tuple[int, ...], at: str, loss: str, cell: str, dtype: str, keep_num_threads: None
) -> None:
    p = make_problem(cell, *shape, dtype=dtype)
    whole = p.value_and_grad("native", loss, at)
    for threads in (1, 2, 3, 7):
        bptt.set_num_threads(threads)
        found = readout_gradient(p, "native", loss, at)
        for name in ("loss", "w_ho", "b_o"):
            np.testing.assert_array_equal(found[name], whole[name], err_msg=f"{name} of {p}")


@native_only
@pytest.mark.parametrize("shape", SHAPES)
def test_no_bit_depends_on_threads_or_instruction_sets(
    shape: tuple[int, ...], dtype: str, core: Any, keep_isa: None, keep_num_threads: None
) -> None:
    p = make_problem("tanh", *shape, dtype=dtype)
    y = bptt.forward("tanh", p.params, p.x, p.state, backend="native").y
    native, found = resolve("native", get_cell("tanh"), p.x.dtype), []
    for isa in ISAS:
        core.select_isa(isa)
        for threads in (1, 2, 3, 7):
            bptt.set_num_threads(threads)
            of_loss = readout_gradient(p, "native", "squared_error", "all")
            found.append({"outputs": native.read_out(p.params, y), **of_loss})
    for other in found[1:]:
        for name, array in found[0].items():
            np.testing.assert_array_equal(other[name], array, err_msg=f"{name} of {p}")


@pytest.mark.parametrize("at", AT)
def test_the_gradients_are_those_of_the_reference(at: str, loss: str, backend: str) -> None:
    for shape in SHAPES:
        p = make_problem("gru", *shape)
        expected = readout_gradient(p, "numpy", loss, at)
        for name, array in readout_gradient(p, backend, loss, at).items():
            np.testing.assert_allclose(
                array, expected[name], rtol=1e-10, atol=1e-13, err_msg=f"{name} of {p}"
            )


def test_rows_that_a_weight_of_zero_leaves_out_are_not_read(backend: str) -> None:
    p = make_problem("tanh", 5, 4, 2, 3, 6)
    p.weights[2] = 0
    clean = readout_gradient(p, backend, "squared_error", "weights")
    p.target[2] = np.nan
    for name, array in readout_gradient(p, backend, "squared_error", "weights").items():
        np.testing.assert_array_equal(array, clean[name], err_msg=name)
    assert not clean["dy"][2].any()


@pytest.mark.parametrize("rows", [(), (1,), (0, 3), (4, 0), (700, 2)])
def test_states_of_any_number_of_rows_are_read_out(rows: tuple[int, ...], backend: str) -> None:
    p = make_problem("linear", 1, 1, 2, 7, 70)
    y = np.random.default_rng(1).standard_normal((*rows, 7))
    found = resolve(backend, get_cell("linear"), y.dtype).read_out(p.params, y)
    assert found.shape == (*rows, 70)
    np.testing.assert_allclose(found, y @ p.params.w_ho.T + p.params.b_o, rtol=1e-12, atol=1e-13)


def test_an_infinite_state_spoils_its_own_outputs_only(backend: str) -> None:
    p = make_problem("linear", 1, 1, 2, 3, 4)
    y = np.ones((6, 3))
    y[2, 1] = np.inf
    found = resolve(backend, get_cell("linear"), y.dtype).read_out(p.params, y)
    assert np.isinf(found[2]).all()
    assert np.isfinite(np.delete(found, 2, axis=0)).all()


@native_only
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("at", ["last", "all", "weights"])
def test_lags_and_truncation_leave_the_gradients_of_the_readout_alone(at: str, cell: str) -> None:
    p = make_problem(cell, 9, 33, 20, 64, 9, dtype="float32")
    where, target = p.loss_at(at, "squared_error")
    call = {"loss": "squared_error", "at": where, "state": p.state, "backend": "native"}
    loss, full = bptt.value_and_grad(cell, p.params, p.x, target, **call)
    lags = bptt.lag_gradients(cell, p.params, p.x, target, **call)
    assert lags.loss == loss
    found = [lags.total]
    if at != "last":  # one fused call of fewer steps
        value, near = bptt.value_and_grad(cell, p.params, p.x, target, truncate=2, **call)
        assert value == loss
        found.append(near.arrays())
    for gradients in found:
        np.testing.assert_array_equal(gradients["w_ho"], full.w_ho)
        np.testing.assert_array_equal(gradients["b_o"], full.b_o)


def test_one_step_of_many_is_the_step_of_each(cell: str, backend: str) -> None:
    """Along the whole route and the direct one, of passes of one step each."""
    p = make_problem(cell, 4, 3, 2, 5)
    kind, chosen = get_cell(cell), resolve(backend, get_cell(cell), p.x.dtype)
    layer = Layer(kind, p.params, p.x, as_tuple(p.zeros().state))
    record = chosen.forward(layer, "gates")
    recorded = Recorded(chosen, layer, record)
    dstates = tuple(
        np.random.default_rng(n).standard_normal(p.dy.shape) for n in range(len(kind.states))
    )
    for route in ROUTES:
        found, before = recorded.pull_back(dstates, weights=True, route=route)
        total = {name: np.zeros_like(g) for name, g in found.items()}
        for t in range(4):
            one = recorded.part(t, t + 1)
            incoming = Incoming((None,) * len(dstates), tuple(d[t] for d in dstates))
            grads = chosen.backward(one.layer, one._record, incoming, Request(route=route))
            for part, g in zip(before, as_tuple(grads.state), strict=True):
                np.testing.assert_allclose(part[t], g, rtol=1e-12, atol=1e-13)
            for name in total:
                total[name] += getattr(grads, name)
        for name, g in found.items():
            np.testing.assert_allclose(g, total[name], rtol=1e-12, atol=1e-13, err_msg=name)
        if route == "direct" and kind.keeps is None and kind.step is None:
            assert not any(part.any() for part in before)
