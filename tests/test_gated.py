"""What only gated cells have: pairs of states, c and its gradient, and what a tape keeps."""

from __future__ import annotations

from typing import Any

import bptt
import numpy as np
import pytest
from problems import Problem, by_name, make_problem, recorded

T, B, I, H = 6, 4, 3, 5  # noqa: E741
GATED = ("lstm", "gru")
gated = pytest.mark.parametrize("cell", GATED)


def lstm(**changed: Any) -> Problem:
    return make_problem("lstm", T, B, I, H, **changed)


# --- what a tape keeps --------------------------------------------------------------------------

# Values that a tape keeps for each unit, step and row: the states, and with the gates all of it.
KEPT = {"lstm": {"gates": 6, "minimal": 2}, "gru": {"gates": 5, "minimal": 1}}


@gated
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (9, 3, 7, 17), (70, 1, 2, 64), (40, 33, 5, 65)])
def test_minimal_saving_gives_the_same_bits(
    shape: tuple[int, ...], cell: str, dtype: str, backend: str
) -> None:
    p = make_problem(cell, *shape, dtype=dtype, seed=3)
    expected = p.forward_backward(backend)
    tape = bptt.forward(cell, p.params, p.x, p.state, backend=backend, save="minimal")
    found = {**recorded(tape), **by_name(p.backward(tape))}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@gated
@pytest.mark.parametrize("save", ["gates", "minimal"])
def test_a_tape_keeps_what_it_says(save: str, cell: str, core: object) -> None:
    p = make_problem(cell, 100, 8, I, H, dtype="float32")
    tape = bptt.forward(cell, p.params, p.x, backend="native", save=save)
    assert tape.save == save
    last = len(bptt.CELLS[cell].states) * p.dy[0].nbytes
    assert tape.nbytes == KEPT[cell][save] * p.dy.nbytes + last


def test_an_elman_cell_has_nothing_more_to_keep(core: object) -> None:
    p = make_problem("tanh", T, B, I, H)
    for save in ("gates", "minimal"):
        tape = bptt.forward("tanh", p.params, p.x, backend="native", save=save)
        assert tape.nbytes == p.dy.nbytes + p.dy[0].nbytes


# --- states -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm"])
def test_c_is_the_memory_of_every_step(cell: str, backend: str) -> None:
    p = lstm()
    tape = bptt.forward("lstm", p.params, p.x, p.state, backend=backend)
    assert tape.c.shape == tape.y.shape
    h, c = tape.state
    np.testing.assert_array_equal(h, tape.y[-1])
    np.testing.assert_array_equal(c, tape.c[-1])
    # From the middle on, the second half runs alone.
    half = bptt.forward(
        "lstm", p.params, p.x[3:], (tape.y[2].copy(), tape.c[2].copy()), backend=backend
    )
    np.testing.assert_allclose(half.c, tape.c[3:], rtol=1e-12)


def test_a_cell_without_c_says_so(backend: str) -> None:
    p = make_problem("tanh", T, B, I, H)
    tape = bptt.forward("tanh", p.params, p.x, backend=backend)
    with pytest.raises(AttributeError, match="cell 'tanh' has no memory c"):
        _ = tape.c
    with pytest.raises(ValueError, match=r"^dc: cell 'tanh' has no memory c"):
        tape.backward(p.dy, dc=p.dy)


def test_the_gradient_of_c_alone_is_enough(core: object) -> None:
    p = lstm()
    tape = bptt.forward("lstm", p.params, p.x, p.state, backend="native")
    only = tape.backward(dc=p.dc)
    both, without = p.backward(tape, dstate=False), tape.backward(p.dy)
    np.testing.assert_allclose(only.w_hh, both.w_hh - without.w_hh, atol=1e-12)


@pytest.mark.parametrize("name", ["state", "dstate"])
@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (np.zeros((B, H)), TypeError, r": expected a tuple \(h, c\) .*'lstm', got ndarray"),
        ((np.zeros((B, H)),), TypeError, r": expected a tuple \(h, c\) .*got tuple of length 1"),
        ((np.zeros((B, H)), np.zeros((B, 9))), ValueError, r"\[1\]: expected shape \(4, 5\)"),
        ((np.zeros((B, H), "f4"), np.zeros((B, H))), TypeError, r"\[0\]: expected dtype float64"),
    ],
)
def test_a_state_that_is_no_pair_is_refused(
    name: str, value: Any, error: type[Exception], words: str
) -> None:
    p = lstm()
    tape = bptt.forward("lstm", p.params, p.x)
    call = {
        "state": lambda: bptt.forward("lstm", p.params, p.x, value),
        "dstate": lambda: tape.backward(dstate=value),
    }[name]
    with pytest.raises(error, match=f"^{name}{words}"):
        call()


def test_a_part_of_the_initial_state_is_not_left_out() -> None:
    p = lstm()
    with pytest.raises(TypeError, match=r"^state\[1\]: expected a NumPy array .*got NoneType"):
        bptt.forward("lstm", p.params, p.x, (np.zeros((B, H)), None))


def test_gradients_without_a_pair_for_the_state_are_refused() -> None:
    p = lstm()
    tape = bptt.forward("lstm", p.params, p.x)
    with pytest.raises(TypeError, match=r"^out\.state: expected a tuple of 2 .* got ndarray"):
        tape.backward(p.dy, out=bptt.Grads.zeros(p.params, T, B))
    tape.backward(p.dy, out=bptt.Grads.zeros(p.params, T, B, cell="lstm"))


def test_gradients_of_another_cell_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^w_hh: expected shape \(15, 5\) for cell 'gru'"):
        bptt.Grads.zeros(lstm().params, T, B, cell="gru")


def test_no_gradient_at_all_is_refused_in_words() -> None:
    p = lstm()
    tape = bptt.forward("lstm", p.params, p.x)
    with pytest.raises(ValueError, match=r"^dy, dstate, dc: expected at least one of them"):
        tape.backward()
    with pytest.raises(TypeError, match=r"^state: expected a NumPy array .*'gru' is one array"):
        bptt.forward("gru", make_problem("gru", T, B, I, H).params, p.x, p.state)


def test_minimal_saving_needs_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    params = bptt.init_params("lstm", input_size=I, hidden_size=256, rng=0)
    x = np.zeros((600, 128, I), np.float32)
    monkeypatch.setattr("bptt.memory._available", lambda: 350 << 20)
    with pytest.raises(MemoryError, match="the tape of 600 steps"):
        bptt.forward("lstm", params, x)
    tape = bptt.forward("lstm", params, x, save="minimal")
    assert tape.nbytes < 160 << 20


def test_a_tape_that_saved_otherwise_is_refused() -> None:
    p = lstm()
    tape = bptt.forward("lstm", p.params, p.x)
    with pytest.raises(ValueError, match=r"^out: expected a tape of save 'minimal', got .*'gates'"):
        bptt.forward("lstm", p.params, p.x, save="minimal", out=tape)
    with pytest.raises(ValueError, match=r"^save: expected one of gates, minimal, got 'all'"):
        bptt.forward("lstm", p.params, p.x, save="all")


# --- weights that pass through the third-level cache --------------------------------------------


@pytest.mark.parametrize(("cell", "hidden"), [("lstm", 900), ("gru", 1030), ("tanh", 1800)])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_large_weights_are_split_by_units_and_give_the_same(
    threads: int, cell: str, hidden: int, core: object, keep_num_threads: None
) -> None:
    """Of large weights inputs are projected by blocks, also for more rows than two."""
    bptt.set_num_threads(threads)
    plan = bptt.plan(cell, 4, 5, 3, hidden)
    assert plan.project_first
    assert plan.threads == 1 or plan.split == "hidden"
    p = make_problem(cell, 4, 5, 3, hidden, dtype="float32")
    expected = p.astype("float64").forward_backward("numpy")
    for save in ("gates", "minimal"):
        tape = bptt.forward(cell, p.params, p.x, p.state, backend="native", save=save)
        for name, found in {**recorded(tape), **by_name(p.backward(tape))}.items():
            size = np.abs(expected[name]).max()
            assert np.abs(found - expected[name]).max() <= 1e-5 * size, name


# --- the direct route ---------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm"])
def test_where_the_forget_gate_is_open_the_gradient_of_c_keeps_its_norm(
    cell: str, backend: str
) -> None:
    """The mend: dc_{t-1} = f_t dc_t, with no recurrent matrix and no slope of a squashing."""
    steps = 300
    params = bptt.init_params(
        "lstm", input_size=I, hidden_size=H, forget_bias=40.0, rng=0, dtype="float64"
    )
    params.w_hh[:], params.w_ih[H : 2 * H] = 0, 0  # nothing but the direct route; f = 1
    x = np.random.default_rng(0).standard_normal((steps, B, I))
    dc = np.random.default_rng(1).standard_normal((B, H))
    tape = bptt.forward("lstm", params, x, backend=backend)
    _, back = tape.backward(dstate=(np.zeros((B, H)), dc)).state
    np.testing.assert_allclose(back, dc, rtol=1e-13)


# --- initial parameters -------------------------------------------------------------------------


@gated
def test_forget_bias_is_that_of_the_gate_that_keeps(cell: str) -> None:
    params = bptt.init_params(cell, input_size=I, hidden_size=H, forget_bias=1.5, rng=0)
    plain = bptt.init_params(cell, input_size=I, hidden_size=H, rng=0)
    keep = slice(H, 2 * H)  # f of i, f, g, o; z of r, z, n
    assert (params.b_ih[keep] == 1.5).all()
    assert (params.b_hh[keep] == 0).all()
    params.b_ih[keep], params.b_hh[keep] = plain.b_ih[keep], plain.b_hh[keep]
    for name, array in params.arrays().items():
        np.testing.assert_array_equal(array, getattr(plain, name), err_msg=name)


def test_chrono_biases_forget_over_all_times() -> None:
    params = bptt.init_params("lstm", input_size=I, hidden_size=2000, chrono=100, rng=0)
    i, f = params.b_ih[:2000], params.b_ih[2000:4000]
    np.testing.assert_array_equal(i, -f)
    times = np.exp(f)  # uniform on (1, 99)
    assert 1 < times.min() < 2 < 98 < times.max() < 99
    assert abs(times.mean() - 50) < 2


@pytest.mark.parametrize(
    ("cell", "options", "words"),
    [
        ("tanh", {"forget_bias": 1.0}, r"^forget_bias: cell 'tanh' has no gate that keeps"),
        ("lstm", {"forget_bias": 1.0, "chrono": 9}, r"expected at most one of them, got both"),
        ("lstm", {"chrono": 2}, r"^chrono: expected an integer of at least 3, got 2"),
        ("gru", {"forget_bias": np.inf}, r"^forget_bias: expected a finite number, got inf"),
        ("gru", {"chrono": 9, "bias": False}, r"^chrono: expected bias=True, got bias=False"),
        ("gru", {"forget_bias": 1e300}, r"^forget_bias: expected at most 3.4e\+38 in float32"),
    ],
)
def test_biases_that_cannot_be_set_are_refused(
    cell: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        bptt.init_params(cell, input_size=I, hidden_size=H, **options)
