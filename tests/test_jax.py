"""`bptt.jax.layer`: a layer as a function of JAX, under any of its transforms."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.states import as_given, as_tuple

jax = pytest.importorskip("jax", reason="JAX is not installed (it is no part of the `test` extra)")
if bptt.info().jax is None:
    pytest.skip("bptt was built without handlers for JAX", allow_module_level=True)

import bptt.jax  # noqa: E402
import jax.export  # noqa: E402, F811
import jax.numpy as jnp  # noqa: E402
from bptt.jax.calls import bits  # noqa: E402
from bptt.jax.handlers import BACKWARD  # noqa: E402

pytestmark = pytest.mark.pairs  # of cells, kinds of sequences and transforms

T, B, INPUTS, H = 6, 4, 3, 5
WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")
CELLS = ("linear", "tanh", "relu", "lstm", "gru")
LENGTHS = [2, 6, 4, 0]
RESET = np.random.default_rng(5).random((T, B)) < 0.3
KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "lengths": {"lengths": [3, 6, 0, 5]},
    "all lengths": {"lengths": np.full(B, T)},
    "no lengths": {"lengths": [0] * B},
    "reset": {"reset": RESET},
    "reset everywhere": {"reset": np.ones((T, B), bool)},
    "reverse": {"reverse": True},
    "batch_first": {"batch_first": True},
    "all": {"lengths": LENGTHS, "reset": RESET, "reverse": True},
    "all, batch_first": {
        "batch_first": True,
        "reset": RESET.T,
        "reverse": True,
        "lengths": LENGTHS,
    },
}


@pytest.fixture(autouse=True)
def wide_numbers_and_quick_compilation() -> Iterator[None]:
    options = ("jax_enable_x64", "jax_disable_most_optimizations")
    for option in options:
        jax.config.update(option, True)
    yield
    for option in options:
        jax.config.update(option, False)


def arrays(cell: str, kind: str = "dense", dtype: str = "float64") -> tuple[Any, Any, Any]:
    """Weights, x and a state, as NumPy has them."""
    rng = np.random.default_rng(2)
    sizes = {"input_size": INPUTS, "hidden_size": H}
    params = bptt.init_params(cell, **sizes, rng=rng, dtype=dtype).arrays()
    shape = (B, T) if KINDS[kind].get("batch_first") else (T, B)
    states = tuple(rng.standard_normal((B, H)).astype(dtype) for _ in bptt.CELLS[cell].states)
    return params, rng.standard_normal((*shape, INPUTS)).astype(dtype), as_given(states)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_has_the_bits_of_forward_and_backward(
    cell: str, kind: str, given: bool, dtype: str
) -> None:
    params, x, state = arrays(cell, kind, dtype)
    tape = bptt.forward(
        cell, bptt.Params(**params), x, state if given else None, backend="native", **KINDS[kind]
    )
    rng = np.random.default_rng(3)
    dy = rng.standard_normal(tape.y.shape).astype(dtype)
    dlast = tuple(rng.standard_normal((B, H)).astype(dtype) for _ in as_tuple(state))
    expected = tape.backward(dy, as_given(dlast))

    def call(params: Any, x: Any, state: Any) -> Any:
        return bptt.jax.layer(cell, params, x, state if given else None, **KINDS[kind])

    (y, last), pull = jax.vjp(call, params, x, state)
    assert np.array_equal(y, tape.y)
    for found, e in zip(as_tuple(last), as_tuple(tape.state), strict=True):
        assert np.array_equal(found, e)
    of_params, of_x, of_state = pull((jnp.asarray(dy), as_given(tuple(map(jnp.asarray, dlast)))))
    for name in WEIGHTS:
        assert np.array_equal(of_params[name], getattr(expected, name)), name
    assert np.array_equal(of_x, expected.x)
    if given:
        for found, e in zip(as_tuple(of_state), as_tuple(expected.state), strict=True):
            assert np.array_equal(found, e)


# --- transforms ---------------------------------------------------------------------------------


def loss(cell: str, kind: str, params: Any, x: Any, state: Any) -> Any:
    return of_outputs(*bptt.jax.layer(cell, params, x, state, **KINDS[kind]))


def of_outputs(y: Any, last: Any) -> Any:
    return (y**2 * jnp.arange(1, H + 1)).sum() + sum((s**3).sum() for s in as_tuple(last))


def close(found: Any, expected: Any) -> None:
    for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, float(np.abs(e).max(initial=0)))
        np.testing.assert_allclose(f, e, rtol=1e-12, atol=1e-12 * scale)


def stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.mark.parametrize(
    ("cell", "kind"), [*zip(CELLS, ["all", "dense", "all", "all", "dense"], strict=True)]
)
@pytest.mark.full_product
def test_further_derivatives_are_those_of_differences(cell: str, kind: str) -> None:
    """Along one direction: of the value forward, of gradients forward, and the other way round."""
    at = jax.tree.map(lambda a: a[:3] if a.shape[0] == T else a, arrays(cell, "dense"))
    how = {name: given[:3] if name == "reset" else given for name, given in KINDS[kind].items()}
    how |= {"lengths": np.minimum(LENGTHS, 3)} if "lengths" in how else {}
    rng = np.random.default_rng(4)
    along = jax.tree.map(lambda a: rng.standard_normal(a.shape), at)

    def value(*at: Any) -> Any:
        return of_outputs(*bptt.jax.layer(cell, *at, **how))

    gradient = jax.jit(jax.grad(value, (0, 1, 2)))

    def difference(f: Callable[..., Any]) -> Any:
        ends = [f(*jax.tree.map(lambda a, v, s=s: a + s * v, at, along)) for s in (1e-6, -1e-6)]
        return jax.tree.map(lambda a, b: (a - b) / 2e-6, *ends)

    def check(found: Any, expected: Any) -> None:
        for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(f, e, rtol=1e-6, atol=1e-6)

    check(jax.jit(lambda *v: jax.jvp(value, at, v)[1])(*along), difference(jax.jit(value)))
    if cell in ("linear", "relu"):
        return  # their equations are there, and what is differentiated in turn is that of all cells
    expected = difference(gradient)
    check(jax.jit(lambda *v: jax.jvp(gradient, at, v)[1])(*along), expected)
    check(jax.jit(lambda *v: jax.vjp(gradient, *at)[1](v))(*along), expected)


def gradients(cell: str, kind: str) -> Callable[..., Any]:
    return jax.grad(partial(loss, cell, kind), (0, 1, 2))


def second_derivatives(cell: str, kind: str) -> Callable[..., Any]:
    def norm(params: Any, x: Any, state: Any) -> Any:
        found = jax.grad(partial(loss, cell, kind))(params, x, state)
        return sum((g**2).sum() for g in found.values())

    return jax.grad(norm)


def scaled(scale: float, tree: Any, axis: int | None) -> Any:
    return tree if axis is None else jax.tree.map(lambda a: scale * a, tree)


BATCHES = [
    (gradients, cell, kind, over)
    for over in ("x", "params", "apart", "rows of one")
    for cell, kind in (("lstm", "all"), ("gru", "dense"))
    if over != "rows of one" or kind == "dense"  # lengths are those of all rows
] + [
    (second_derivatives, "gru", "all", "x"),
    (second_derivatives, "tanh", "dense", "rows of one"),
]


@pytest.mark.parametrize(("function", "cell", "kind", "over"), BATCHES)
def test_a_batch_of_calls_is_the_calls_one_by_one(
    function: Callable[..., Any], cell: str, kind: str, over: str
) -> None:
    params, x, state = arrays(cell, kind)
    if over == "rows of one":
        x, state = x[:, :1], jax.tree.map(lambda part: part[:1], state)
    axes = {"x": (None, 0, None), "params": (0, None, None), "apart": (None, 1, -1)}
    axes_of_call = axes.get(over, (None, 0, None))
    calls = [
        [
            scaled(scale, tree, axis)
            for tree, axis in zip((params, x, state), axes_of_call, strict=True)
        ]
        for scale in (1.0, -0.5, 2.0)
    ]
    stacked = [
        trees[0] if axis is None else jax.tree.map(lambda *a, d=axis: np.stack(a, d), *trees)
        for axis, *trees in zip(axes_of_call, *calls, strict=True)
    ]
    f = jax.jit(function(cell, kind))
    close(jax.jit(jax.vmap(f, axes_of_call))(*stacked), stack([f(*call) for call in calls]))


def test_batches_of_batches_and_gradients_through_them() -> None:
    params, x, state = arrays("tanh")
    f = jax.jit(jax.grad(partial(loss, "tanh", "dense")))
    xs = [[s * x[:, :1] * t for s in (1.0, 2.0)] for t in (1.0, -1.0, 0.5)]
    inner = jax.vmap(f, (None, 0, None))
    found = jax.jit(jax.vmap(inner, (None, 0, None)))(
        params, np.stack([np.stack(row) for row in xs]), state[:1]
    )
    close(found, stack([stack([f(params, x, state[:1]) for x in row]) for row in xs]))

    def squares(params: Any) -> Any:
        return (inner(params, np.stack(xs[0]), state[:1])["w_hh"] ** 2).sum()

    def of_each(params: Any) -> Any:
        return sum((f(params, x, state[:1])["w_hh"] ** 2).sum() for x in xs[0])

    close(jax.jit(jax.grad(squares))(params), jax.jit(jax.grad(of_each))(params))


def test_a_batch_of_no_calls_has_no_results() -> None:
    params, x, state = arrays("gru")
    none = np.zeros((0, *x.shape))
    f = jax.vmap(partial(loss, "gru", "dense"), (None, 0, None))
    assert f(params, none, state).shape == (0,)
    found = jax.vmap(gradients("gru", "dense"), (None, 0, None))(params, none, state)
    assert [g.shape[0] for g in jax.tree.leaves(found)] == [0] * len(jax.tree.leaves(found))


OF_SHARDS = """
import bptt, bptt.jax, jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P

params = bptt.init_params("lstm", input_size=3, hidden_size=5, rng=0).arrays()
x = jnp.asarray(np.random.default_rng(1).standard_normal((7, 4, 3), "f"))


def mean(params, x):
    return (bptt.jax.layer("lstm", params, x)[0] ** 2).mean()


mesh = Mesh(np.array(jax.devices()), "d")
assert mesh.size == 2
of_shards = lambda p, x: jax.lax.pmean(mean(p, x), "d")
how = {"mesh": mesh, "in_specs": (P(), P(None, "d")), "out_specs": P()}
ways = jax.shard_map(of_shards, **how), mean


def squares(f):
    return lambda params, x: sum((g**2).sum() for g in jax.tree.leaves(jax.grad(f)(params, x)))


for function in (lambda f: f, squares):
    of_ways = (jax.jit(jax.grad(function(f)))(params, x) for f in ways)
    for found, expected in zip(*map(jax.tree.leaves, of_ways)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
"""


@pytest.mark.skipif(not hasattr(jax, "shard_map"), reason="needs jax.shard_map")
def test_weights_that_shards_share_get_the_gradient_of_all() -> None:
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags}
    command = [sys.executable, "-c", OF_SHARDS]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0, run.stderr


def test_remat_and_scan_compute_the_same() -> None:
    params, x, state = arrays("gru", "all")
    f = partial(loss, "gru", "all")
    kept = jax.jit(jax.grad(jax.checkpoint(f)))(params, x, state)
    close(kept, jax.jit(jax.grad(f))(params, x, state))

    def step(state: Any, x_t: Any) -> tuple[Any, Any]:
        y, state = bptt.jax.layer("gru", params, x_t[None], state)
        return state, y[0]

    whole = bptt.jax.layer("gru", params, x, state)
    last, y = jax.lax.scan(step, state, x)
    assert np.array_equal(y, whole[0])
    assert np.array_equal(last, whole[1])


def test_lengths_may_change_without_another_compilation() -> None:
    params, x, _ = arrays("lstm")
    traced = []

    @jax.jit
    def call(x: Any, lengths: Any) -> Any:
        traced.append(x)
        return bptt.jax.layer("lstm", params, x, lengths=lengths)

    for lengths in ([1, 2, 3, 4], [6, 0, 6, 0]):
        hidden = x.copy()
        hidden[np.arange(T)[:, None] >= lengths] = np.nan  # which nobody reads
        y, last = call(hidden, np.array(lengths))
        tape = bptt.forward("lstm", bptt.Params(**params), x, lengths=lengths, backend="native")
        assert np.array_equal(y, tape.y)
        assert np.array_equal(last[1], tape.state[1])
    assert len(traced) == 1
    with pytest.raises(ValueError, match="lengths: expected lengths from 0 to the steps of x"):
        jax.block_until_ready(call(x, np.array([1, 2, 7, 3])))


def test_an_exported_program_runs_at_any_length_and_batch() -> None:
    pytest.importorskip("flatbuffers")
    params, _, _ = arrays("gru")

    @jax.jit
    def gradient(params: Any, x: Any, lengths: Any) -> Any:
        of = lambda p: (bptt.jax.layer("gru", p, x, lengths=lengths)[0] ** 2).sum()  # noqa: E731
        return jax.grad(of)(params)

    steps, batch = jax.export.symbolic_shape("t, b")
    like = jax.ShapeDtypeStruct
    shapes = like((steps, batch, INPUTS), "float64"), like((batch,), "int32")
    program = jax.export.export(gradient, disabled_checks=bptt.jax.export_checks())(params, *shapes)
    program = jax.export.deserialize(program.serialize())
    for t, b in ((3, 2), (9, 5)):
        x, lengths = np.ones((t, b, INPUTS)), np.arange(b, dtype=np.int32) % (t + 1)
        close(program.call(params, x, lengths), gradient(params, x, lengths))


def test_on_another_platform_there_is_an_error_that_says_so() -> None:
    params, x, _ = arrays("tanh")
    call = jax.jit(partial(bptt.jax.layer, "tanh"))
    with pytest.raises(NotImplementedError, match=r"^bptt.jax computes on CPUs, .* for cuda"):
        call.trace(params, x).lower(lowering_platforms=("cuda",))


@pytest.mark.parametrize("shape", [(0, B), (T, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("how", [{}, {"reverse": True}], ids=str)
def test_of_nothing_comes_nothing(shape: tuple[int, int], how: Any) -> None:
    params, _, _ = arrays("gru")
    x = np.zeros((*shape, INPUTS))
    y, last = bptt.jax.layer("gru", params, x, **how)
    assert (y.shape, last.shape) == ((*shape, H), (shape[1], H))
    found = jax.grad(lambda p: bptt.jax.layer("gru", p, x, **how)[0].sum())(params)
    assert not any(g.any() for g in found.values())


def test_params_may_be_a_sequence_or_params_and_biases_may_be_missing() -> None:
    params, x, _ = arrays("tanh")
    expected = bptt.forward("tanh", bptt.Params(**params), x, backend="native").y
    for given in ([params[n] for n in WEIGHTS], bptt.Params(**params)):
        assert np.array_equal(bptt.jax.layer("tanh", given, x)[0], expected)
    bare = bptt.Params(params["w_ih"], params["w_hh"])
    expected = bptt.forward("tanh", bare, x, backend="native").y
    for given in (bare, [bare.w_ih, bare.w_hh, None], {"w_ih": bare.w_ih, "w_hh": bare.w_hh}):
        assert np.array_equal(bptt.jax.layer("tanh", given, x)[0], expected)


# --- threads ------------------------------------------------------------------------------------

THREADS = """
import os
import bptt, bptt.jax, jax
import numpy as np

params = bptt.init_params("tanh", input_size=64, hidden_size=64, rng=0).arrays()
x = np.ones((200, 32, 64), "f")
call = jax.jit(lambda x: bptt.jax.layer("tanh", params, x)[0])
threads = []
for n in (1, 1, 3):
    bptt.set_num_threads(n)
    jax.block_until_ready(call(x))
    threads.append(len(os.listdir("/proc/self/task")))
print(threads[2] - threads[1])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_the_number_of_threads_is_read_at_each_call() -> None:
    command = [sys.executable, "-c", THREADS]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(found.stdout) > 0


# --- what is wrong ------------------------------------------------------------------------------

ONES = (np.ones((5, 3), "f"), np.ones((5, 5), "f"))
X = np.ones((T, B, INPUTS), "f")
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "cell": ({"cell": "rnn"}, ValueError, "cell: expected one of"),
    "own cell": ({"cell": "mgu"}, NotImplementedError, "cell 'mgu': bptt.jax has the built-in"),
    "params": ({"params": 3}, TypeError, "params: expected a mapping or a sequence of arrays"),
    "one": ({"params": [ONES[0]]}, ValueError, "params: expected 2 to 4 arrays"),
    "name": ({"params": {"w": 1}}, ValueError, "params: expected names among w_ih"),
    "missing": ({"params": {"w_ih": ONES[0]}}, ValueError, "params: expected w_ih and w_hh"),
    "no array": ({"params": [[1.0], ONES[1]]}, TypeError, "w_ih: expected an array, got list"),
    "rows": ({"cell": "gru"}, ValueError, r"w_ih: expected shape \(15, I\) to match cell 'gru'"),
    "half": ({"x": X.astype("f2")}, TypeError, "x: expected float32 or float64, got float16"),
    "mixed": ({"x": X.astype("f8")}, TypeError, "x: expected float32 like w_hh, got float64"),
    "axes": ({"x": X[0]}, ValueError, r"x: expected shape \(T, B, 3\)"),
    "state": ({"state": np.ones((3, 5), "f")}, ValueError, r"state: expected shape \(4, 5\)"),
    "no pair": (
        {"state": (X, X)},
        TypeError,
        "state: expected an array for cell 'tanh', got tuple",
    ),
    "lengths": ({"lengths": [7] * B}, ValueError, "lengths: expected lengths from 0 to 6"),
    "no integers": ({"lengths": np.ones(B)}, TypeError, "lengths: expected integers"),
    "reset": ({"reset": np.ones((T, B))}, TypeError, "reset: expected an array of bools"),
    "resets": ({"reset": RESET.T}, ValueError, r"reset: expected shape \(6, 4\)"),
    "reverse": ({"reverse": 1}, TypeError, "reverse: expected True or False"),
}


@pytest.mark.parametrize("wrong", BAD)
@pytest.mark.full_product
def test_what_is_wrong_is_named(wrong: str) -> None:
    given, error, message = BAD[wrong]
    with pytest.raises(error, match=message):
        bptt.jax.layer(**{"cell": "tanh", "params": ONES, "x": X, **given})


def test_lengths_that_only_the_program_knows_are_checked_when_it_runs() -> None:
    call = jax.jit(lambda lengths: bptt.jax.layer("tanh", ONES, X, lengths=lengths)[0])
    for wrong in (T + 1, -1, 2**32 + 3, -(2**32) + 3):
        with pytest.raises(Exception, match="lengths: expected lengths from 0 to the steps of x"):
            call(np.array([wrong] * B))
    assert call(np.array([T] * B, np.int8)).shape == (T, B, 5)


def test_the_handler_refuses_what_no_layer_asks_for() -> None:
    """An exported program may have been changed."""
    state, y = np.zeros((B, 5), "f"), np.zeros((T, B, 5), "f")
    operands = ("x", "h", "w_ih", "w_hh", "lengths", "y")
    arguments = (X, state, *ONES, np.full(B, T, np.int32), y, y)
    how = {"cell": "tanh", "reverse": np.bool_(False), "incoming": np.int64(bits(["y"]))}

    def call(wanted: str, shape: tuple[int, ...], per_row: bool) -> Any:
        backward = jax.ffi.ffi_call(BACKWARD, [jax.ShapeDtypeStruct(shape, "float32")])
        ways = {"per_row": np.bool_(per_row), "results": np.int64(bits([wanted]))}
        return backward(*arguments, operands=np.int64(bits(operands)), **how, **ways)

    assert call("w_hh", (5, 5), False)[0].shape == (5, 5)
    with pytest.raises(Exception, match="per_row: expected sequences that have all steps"):
        call("w_hh", (B, 5, 5), True)
    with pytest.raises(Exception, match="results: unexpected ones"):
        call("last_h", (B, 5), False)
    with pytest.raises(Exception, match="c: unexpected presence"):
        call("c", (B, 5), False)


def test_float64_without_x64_is_refused_and_not_rounded() -> None:
    jax.config.update("jax_enable_x64", False)
    with pytest.raises(TypeError, match="w_hh: JAX takes float64 only after"):
        bptt.jax.layer("tanh", [w.astype("f8") for w in ONES], X.astype("f8"))


def test_a_build_without_handlers_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bptt.jax.handlers.core, "xla_ffi", None)
    with pytest.raises(RuntimeError, match=r"bptt\.jax needs handlers that"):
        bptt.jax.handlers.expect_handlers()
