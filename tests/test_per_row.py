"""``per_row``: each row's own gradient, or its norm, is that of the row as a batch of one."""

from __future__ import annotations

from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY
from bptt.backends.protocol import Request
from bptt.budget import Budget
from bptt.losses import Objective
from bptt.states import as_tuple
from problems import AT, LOSSES, Problem, make_problem
from ragged import LENGTHS, ragged

# Beneath them are backends whose full products are tested elsewhere.
pytestmark = pytest.mark.pairs

native = REGISTRY["native"]

# Enough rows for several groups of them; steps for several sums; weights for few rows at a time.
SHAPES = [
    (1, 1, 1, 1),
    (9, 3, 7, 17),
    (70, 2, 2, 64),
    (300, 5, 16, 16),
    (5, 260, 3, 8),
    (3, 31, 129, 100),
]
EMPTY = [(0, 3, 4, 5), (4, 0, 3, 5), (0, 0, 1, 1)]


def norms(rows: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, rows.ndim))
    return np.sqrt(np.square(rows, dtype=np.float64).sum(axis=axes)).astype(rows.dtype)


def tape_of(p: Problem, backend: str, save: str = "gates") -> bptt.Tape:
    return bptt.forward(p.cell, p.params, p.x, p.state, backend=backend, save=save)


def check_norms(found: bptt.Grads, each: bptt.Grads, p: Problem) -> None:
    assert found.arrays().keys() == each.arrays().keys()
    for name, rows in each.arrays().items():
        norm = getattr(found, name)
        assert norm.shape == (p.x.shape[1],)
        assert norm.dtype == p.x.dtype
        np.testing.assert_allclose(norm, norms(rows), rtol=4 * np.finfo(norm.dtype).eps)


@pytest.mark.parametrize("shape", [*SHAPES, *EMPTY])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_each_row_has_the_bits_of_a_batch_of_one(
    threads: int,
    shape: tuple[int, ...],
    cell: str,
    dtype: str,
    core: object,
    keep_num_threads: None,
) -> None:
    bptt.set_num_threads(threads)
    p = make_problem(cell, *shape, dtype=dtype)
    tape = tape_of(p, "native", ("gates", "minimal")[threads % 2])
    each = p.backward(tape, per_row="gradient")
    check_norms(p.backward(tape, per_row="norm"), each, p)
    for name, rows in each.arrays().items():
        assert rows.shape == (shape[1], *getattr(p.params, name).shape)
    for b in range(0, shape[1], 1 + shape[1] // 9):
        row = p.row(b)
        for name, g in row.backward(tape_of(row, "native")).arrays().items():
            np.testing.assert_array_equal(getattr(each, name)[b], g, err_msg=f"{name} of row {b}")


@pytest.mark.parametrize("shape", [(9, 3, 7, 17), (5, 0, 3, 8), (0, 2, 3, 8)])
def test_rows_add_up_to_the_gradient_of_the_batch_on_every_backend(
    shape: tuple[int, ...], cell: str, backend: str
) -> None:
    p = make_problem(cell, *shape)
    tape = tape_of(p, backend)
    whole, each = p.backward(tape), p.backward(tape, per_row="gradient")
    check_norms(p.backward(tape, per_row="norm"), each, p)
    np.testing.assert_array_equal(each.x, whole.x)
    for one, other in zip(as_tuple(each.state), as_tuple(whole.state), strict=True):
        np.testing.assert_array_equal(one, other)
    for name, g in whole.arrays().items():
        np.testing.assert_allclose(getattr(each, name).sum(axis=0), g, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("at", AT)
def test_rows_of_a_loss_add_up_to_its_gradient(
    at: str, loss: str, reduction: str, cell: str, backend: str
) -> None:
    p = make_problem(cell, 33, 5, 7, 9)
    where, target = p.loss_at(at, loss)

    def call(p: Problem, target: np.ndarray, where: Any, **options: Any) -> Any:
        return bptt.value_and_grad(
            cell,
            p.params,
            p.x,
            target,
            loss=loss,
            at=where,
            state=p.state,
            backend=backend,
            **options,
        )

    value, whole = call(p, target, where, reduction=reduction)
    again, each = call(p, target, where, reduction=reduction, per_row="gradient")
    _, norm = call(p, target, where, reduction=reduction, per_row="norm")
    assert again == pytest.approx(value, rel=1e-14)
    np.testing.assert_array_equal(each.x, whole.x)
    check_norms(norm, each, p)
    assert set(each.arrays()) == {"w_ih", "w_hh", "b_ih", "b_hh", "w_ho", "b_o"}
    for name, g in whole.arrays().items():
        np.testing.assert_allclose(getattr(each, name).sum(axis=0), g, rtol=1e-9, atol=1e-11)
    # A row alone is divided by its own number of terms, so its sum is compared.
    row, terms = p.row(2), {"last": 5, "step": 5, "step from the end": 5, "all": 5 * 33}
    scale = 1 / terms.get(at, p.weights.sum()) if reduction == "mean" else 1
    at_row, of_row = row.loss_at(at, loss)
    _, alone = call(row, of_row, at_row, reduction="sum")
    for name, g in alone.arrays().items():
        np.testing.assert_allclose(getattr(each, name)[2], scale * g, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_of_different_lengths_are_those_of_batches_of_one(
    threads: int, cell: str, lengths: list[int], keep_num_threads: None
) -> None:
    bptt.set_num_threads(threads)
    case = ragged(cell, lengths, (5, 17), "float64")
    record = native.forward(case.layer, "gates")
    each, norm = (
        native.backward(case.layer, record, case.incoming, Request(per_row=per_row))
        for per_row in ("gradient", "norm")
    )
    whole = native.backward(case.layer, record, case.incoming, Request())
    np.testing.assert_array_equal(each.x, whole.x)
    for b in range(len(lengths)):
        layer, incoming = case.row(b)
        alone = native.backward(layer, native.forward(layer, "gates"), incoming, Request())
        for name, g in alone.arrays().items():
            # Packed rows sum w_hh from the first step on in one go, a dense batch in two.
            np.testing.assert_allclose(getattr(each, name)[b], g, rtol=1e-11, atol=1e-13)
    for name, rows in each.arrays().items():
        np.testing.assert_allclose(getattr(norm, name), norms(rows), rtol=1e-14)


@pytest.mark.parametrize("lengths", [[300, 3, 3, 2, 1], [200] * 5], ids=str)
@pytest.mark.parametrize("per_row", ["gradient", "norm"])
def test_segments_have_the_bits_of_all_steps_at_once(per_row: str, lengths: list[int]) -> None:
    case = ragged("lstm", lengths, (6, 16), "float32")
    layer = case.layer if len(set(lengths)) > 1 else case.as_dense()
    ids = np.random.default_rng(0).integers(0, 3, layer.x.shape[:-1])
    objective = Objective("cross_entropy", ids, None, None, 0.5)
    loss, whole = native.value_and_grad(layer, objective, Request(per_row=per_row))
    again, cut = native.value_and_grad(
        layer, objective, Request(per_row=per_row, budget=Budget(64, 2))
    )
    assert again == loss
    for name, g in whole.arrays().items():
        np.testing.assert_array_equal(getattr(cut, name), g)


def test_the_caller_may_give_arrays_for_rows_and_add_to_them(cell: str, backend: str) -> None:
    p = make_problem(cell, 6, 4, 3, 9)
    tape = tape_of(p, backend)
    each = p.backward(tape, per_row="gradient", wanted=("params", "x"))
    out = p.backward(tape, per_row="gradient")
    assert p.backward(tape, per_row="gradient", out=out, accumulate=True) is out
    for name, g in each.arrays().items():
        np.testing.assert_allclose(getattr(out, name), 2 * g, rtol=1e-12)
    np.testing.assert_allclose(out.x, 2 * each.x, rtol=1e-12)
    norm = p.backward(tape, per_row="norm", wanted="w_hh")
    norm.w_hh[:] = np.nan
    p.backward(tape, per_row="norm", wanted="w_hh", out=norm)
    np.testing.assert_allclose(norm.w_hh, norms(each.w_hh), rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_norms_are_right_where_squares_leave_the_range(scale: float, backend: str) -> None:
    p = make_problem("linear", 6, 4, 3, 9)
    tape = tape_of(p, backend)
    norm = tape.backward(p.dy, per_row="norm")
    scaled = tape.backward(scale * p.dy, per_row="norm")
    for name, expected in norm.arrays().items():
        np.testing.assert_allclose(getattr(scaled, name), scale * expected, rtol=1e-12)


def test_a_row_that_is_not_finite_has_a_norm_that_is_not(backend: str) -> None:
    p = make_problem("linear", 6, 3, 3, 9)
    p.dy[2, 1, 0] = np.nan
    norm = tape_of(p, backend).backward(p.dy, per_row="norm")
    np.testing.assert_array_equal(np.isnan(norm.w_hh), [False, True, False])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"per_row": "sum"}, ValueError, "per_row: expected one of norm, gradient, got 'sum'"),
        ({"per_row": True}, TypeError, "per_row: expected a string, got bool"),
        ({"per_row": "norm", "accumulate": True}, ValueError, "per_row: norms do not add up"),
        ({"per_row": "norm", "truncate": 1}, ValueError, "per_row: expected neither truncate"),
        ({"per_row": "norm", "detach_every": 2}, ValueError, "per_row: expected neither truncate"),
        ({"per_row": "norm"}, ValueError, r"out.w_ih: expected shape \(3,\)"),
        ({"per_row": "gradient"}, ValueError, r"out.w_ih: expected shape \(3, 4, 2\)"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_written(
    options: dict[str, Any], error: type[Exception], message: str, backend: str
) -> None:
    p = make_problem("tanh", 5, 3, 2, 4)
    out = p.zeros()
    with pytest.raises(error, match=message):
        p.backward(tape_of(p, backend), out=out, **options)
    with pytest.raises(error, match=message):
        bptt.value_and_grad(
            "tanh", p.params, p.x, p.target, loss="squared_error", at="all", out=out, **options
        )
    assert not any(g.any() for g in (out.x, out.state, *out.arrays().values()))


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(
    "how",
    [
        {"lengths": np.array([4, 0, 9, 2, 9])},
        {"lengths": np.array([4, 0, 9, 2, 9]), "reverse": True},
        {"batch_first": True},
        {"reset": np.eye(1, 5, dtype=bool).repeat(9, 0) & (np.arange(9) == 0)[:, None]},
    ],
    ids=["lengths", "reverse", "batch first", "reset at the first step"],
)
def test_rows_are_the_sequences_of_the_caller(
    how: dict[str, Any], accumulate: bool, cell: str, backend: str
) -> None:
    p = make_problem(cell, 9, 5, 3, 7)
    first = (lambda a: a.swapaxes(0, 1).copy()) if "batch_first" in how else (lambda a: a)
    x, dy = first(p.x), first(p.dy)
    tape = bptt.forward(cell, p.params, x, p.state, backend=backend, **how)
    whole, each = tape.backward(dy), tape.backward(dy, per_row="gradient")
    check_norms(tape.backward(dy, per_row="norm"), each, p)
    np.testing.assert_array_equal(each.x, whole.x)
    lengths = how.get("lengths", np.full(5, 9))
    for b in range(5):
        row = p.row(b)
        state = None if "reset" in how and b == 0 else row.state
        some = {"reverse": True} if "reverse" in how else {}
        steps = lengths[b]
        alone = bptt.forward(cell, p.params, row.x[:steps], state, backend=backend, **some)
        for name, g in alone.backward(row.dy[:steps]).arrays().items():
            np.testing.assert_allclose(getattr(each, name)[b], g, rtol=1e-9, atol=1e-12)
    out = tape.backward(dy, per_row="gradient")
    assert tape.backward(dy, per_row="gradient", out=out, accumulate=accumulate) is out
    for name, g in each.arrays().items():
        np.testing.assert_allclose(getattr(out, name), (1 + accumulate) * g, rtol=1e-12)


def test_a_sequence_that_is_cut_has_no_gradient_of_its_own(backend: str) -> None:
    p = make_problem("tanh", 5, 3, 2, 4)
    reset = np.zeros((5, 3), bool)
    reset[2, 1] = True
    tape = bptt.forward("tanh", p.params, p.x, backend=backend, reset=reset)
    with pytest.raises(ValueError, match="per_row: expected no reset behind a sequence's first"):
        tape.backward(p.dy, per_row="norm")


def test_rows_of_a_loss_of_sequences_of_several_lengths_add_up(cell: str, backend: str) -> None:
    p, lengths = make_problem(cell, 9, 5, 3, 7), np.array([4, 1, 9, 2, 9])
    for at, target in (("last", p.ids[-1]), ("all", p.ids), (p.weights, p.ids)):
        options = {"loss": "cross_entropy", "at": at, "lengths": lengths, "backend": backend}
        _, whole = bptt.value_and_grad(cell, p.params, p.x, target, **options)
        _, each = bptt.value_and_grad(cell, p.params, p.x, target, per_row="gradient", **options)
        for name, g in whole.arrays().items():
            np.testing.assert_allclose(getattr(each, name).sum(axis=0), g, rtol=1e-9, atol=1e-12)


def test_checkpoints_leave_rows_as_they_are_and_a_limit_is_refused(backend: str) -> None:
    p = make_problem("gru", 200, 4, 3, 7)
    options: dict[str, Any] = {"loss": "squared_error", "at": "all", "backend": backend}
    _, whole = bptt.value_and_grad("gru", p.params, p.x, p.target, per_row="norm", **options)
    _, again = bptt.value_and_grad(
        "gru", p.params, p.x, p.target, per_row="norm", checkpoint_every=20, **options
    )
    for name, g in whole.arrays().items():
        np.testing.assert_allclose(getattr(again, name), g, rtol=1e-12)
    with pytest.raises(ValueError, match="per_row: expected no memory_limit with it"):
        bptt.value_and_grad(
            "gru", p.params, p.x, p.target, per_row="norm", memory_limit=1 << 30, **options
        )


@pytest.mark.parametrize(
    ("cell", "sizes", "how"),
    [
        ("tanh", (2, 2, 3, 8), {"lengths": np.array([2, 1])}),
        ("lstm", (3, 20, 512, 512), {}),
        ("gru", (3, 14, 400, 512), {}),
    ],
)
def test_inputs_are_projected_ahead_for_all_rows_or_not_at_all(
    cell: str, sizes: tuple[int, ...], how: dict[str, Any]
) -> None:
    """One thread projects few rows, or weights from afar, by blocks: with rows apart, too."""
    steps, batch, inputs, hidden = sizes
    rng = np.random.default_rng(4)
    params = bptt.init_params(
        cell, input_size=inputs, hidden_size=hidden, output_size=3, dtype="float32", rng=1
    )
    x = rng.standard_normal((steps, batch, inputs), np.float32)
    ids = rng.integers(0, 3, (steps, batch))
    before = bptt.get_num_threads()
    bptt.set_num_threads(1)
    call = (cell, params, x, ids)
    how = {"loss": "cross_entropy", "at": "all", **how}
    loss, grads = bptt.value_and_grad(*call, **how, per_row="norm", backend="native")
    bptt.set_num_threads(before)
    expected, plain = bptt.value_and_grad(*call, **how, backend="numpy")
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(grads.x, plain.x, rtol=0, atol=1e-5 * np.abs(plain.x).max())
