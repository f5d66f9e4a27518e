"""Weights from and to cells of flax and equinox, and modules that hold a layer."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bptt
import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed (it is no part of the `test` extra)")
if bptt.info().jax is None:
    pytest.skip("bptt was built without handlers for JAX", allow_module_level=True)

import bptt.jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

pytestmark = pytest.mark.full_product

B, T, INPUTS, H = 4, 6, 3, 5
X = np.random.default_rng(0).standard_normal((B, T, INPUTS)).astype("f")
LENGTHS = np.array([6, 2, 3, 1])
KEY = np.array([0, 7], np.uint32)


def perturbed(tree: Any) -> Any:
    """With biases that are not zero."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: a + 0.1 * rng.standard_normal(a.shape).astype("f"), tree)


def run(cell: str, params: Any, **how: Any) -> Any:
    return bptt.jax.layer(cell, params, X, batch_first=True, **how)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def equal(found: Any, expected: Any) -> bool:
    same = jax.tree.map(np.array_equal, found, expected)
    return bool(jax.tree.all(same))


@pytest.fixture(autouse=True)
def quick_compilation() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize(
    ("cell", "kind", "how"),
    [
        ("lstm", "OptimizedLSTMCell", {}),
        ("gru", "GRUCell", {}),
        ("relu", "SimpleCell", {"activation_fn": jax.nn.relu}),
    ],
)
def test_a_cell_of_flax_linen_computes_the_same(cell: str, kind: str, how: Any) -> None:
    nn = pytest.importorskip("flax.linen")
    theirs = nn.RNN(getattr(nn, kind)(H, **how), return_carry=True)
    variables = perturbed(theirs.init(KEY, X))
    carry, y = theirs.apply(variables, X, seq_lengths=LENGTHS)
    of_cell = variables["params"]["cell"]
    params = bptt.jax.from_flax(of_cell)
    close(run(cell, params)[0], y)
    last = run(cell, params, lengths=LENGTHS)[1]
    for found, expected in zip(jax.tree.leaves(last), jax.tree.leaves(carry)[::-1], strict=True):
        close(found, expected)
    assert equal(bptt.jax.to_flax(params, cell), dict(of_cell))


def test_what_is_no_cell_of_flax_is_refused() -> None:
    with pytest.raises(ValueError, match=r"params: expected those of an LSTMCell, .* got names a"):
        bptt.jax.from_flax({"a": 1})


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("lstm", "LSTMCell"),
        ("lstm", "OptimizedLSTMCell"),
        ("gru", "GRUCell"),
        ("tanh", "SimpleCell"),
    ],
)
def test_a_cell_of_flax_nnx_computes_the_same(cell: str, kind: str) -> None:
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    theirs = getattr(nnx, kind)(INPUTS, H, rngs=rngs)
    params = perturbed(bptt.jax.from_nnx(theirs))
    bptt.jax.to_nnx(params, theirs)
    assert equal(bptt.jax.from_nnx(theirs), params)
    close(run(cell, params)[0], nnx.RNN(theirs, rngs=rngs)(X))


def test_a_cell_of_flax_nnx_that_computes_something_else_is_refused() -> None:
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    gru = nnx.GRUCell(INPUTS, H, rngs=rngs, gate_fn=jax.nn.hard_sigmoid)
    with pytest.raises(ValueError, match="cell: expected the sigmoid as gate_fn"):
        bptt.jax.from_nnx(gru)
    with pytest.raises(ValueError, match="cell: its activation_fn is none"):
        bptt.jax.from_nnx(nnx.LSTMCell(INPUTS, H, rngs=rngs, activation_fn=jax.nn.gelu))
    with pytest.raises(ValueError, match="cell: expected one without a residual connection"):
        bptt.jax.from_nnx(nnx.SimpleCell(INPUTS, H, rngs=rngs, residual=True))
    with pytest.raises(ValueError, match=r"cell: expected an LSTMCell, .* got Linear"):
        bptt.jax.from_nnx(nnx.Linear(INPUTS, H, rngs=rngs))
    params = bptt.init_params("gru", input_size=INPUTS, hidden_size=H, rng=0).arrays()
    with pytest.raises(ValueError, match="b_hh: expected zeros at n"):
        bptt.jax.to_nnx(params, nnx.GRUCell(INPUTS, H, rngs=rngs))
    with pytest.raises(ValueError, match=r"params: expected an array \(3, 18\), got \(3, 15\)"):
        bptt.jax.to_nnx({**params, "b_hh": 0 * params["b_hh"]}, nnx.GRUCell(INPUTS, 6, rngs=rngs))


@pytest.mark.parametrize(("cell", "kind"), [("lstm", "LSTMCell"), ("gru", "GRUCell")])
def test_a_cell_of_equinox_computes_the_same(cell: str, kind: str) -> None:
    equinox = pytest.importorskip("equinox")
    theirs = getattr(equinox.nn, kind)(INPUTS, H, key=jax.random.key(0))
    params = perturbed(bptt.jax.from_equinox(theirs))
    theirs = bptt.jax.to_equinox(params, theirs)
    again = bptt.jax.from_equinox(theirs)
    state = jnp.zeros((B, H))
    state = (state, state) if cell == "lstm" else state
    step = jax.jit(jax.vmap(theirs))
    for t in range(T):
        state = step(X[:, t], state)
    for found, expected in zip(
        jax.tree.leaves(run(cell, again)[1]), jax.tree.leaves(state), strict=True
    ):
        close(found, expected)
    close(run(cell, params)[0], run(cell, again)[0])
    with pytest.raises(ValueError, match="cell: expected an LSTMCell or GRUCell of equinox"):
        bptt.jax.from_equinox(equinox.nn.Linear(INPUTS, H, key=jax.random.key(0)))


def test_a_module_of_flax_linen_holds_a_layer() -> None:
    pytest.importorskip("flax")
    import bptt.jax.linen

    module = bptt.jax.linen.Recurrent("gru", H)
    variables = module.init(KEY, X)
    y, last = module.apply(variables, X, lengths=LENGTHS)
    expected = run("gru", dict(variables["params"]), lengths=LENGTHS)
    assert equal((y, last), expected)
    assert np.abs(variables["params"]["w_hh"]).max() <= H**-0.5


def test_a_module_of_flax_nnx_holds_a_layer() -> None:
    nnx = pytest.importorskip("flax.nnx")
    import bptt.jax.nnx

    module = bptt.jax.nnx.Recurrent("lstm", INPUTS, H, use_bias=False, rngs=nnx.Rngs(0))
    assert equal(module(X), run("lstm", [module.w_ih[...], module.w_hh[...]]))
    found = nnx.grad(lambda m: m(X)[0].sum())(module)
    assert found["w_hh"][...].any()


def test_a_module_of_equinox_holds_a_layer() -> None:
    equinox = pytest.importorskip("equinox")
    import bptt.jax.equinox

    module = bptt.jax.equinox.Recurrent("tanh", INPUTS, H, key=jax.random.key(0))
    y = equinox.filter_jit(module)(X, batch_first=True)
    assert equal(y, run("tanh", module.params))
    found = equinox.filter_grad(lambda m: m(X, batch_first=True)[0].sum())(module)
    assert found.params["w_ih"].any()


def test_the_example_learns() -> None:
    pytest.importorskip("optax")
    path = Path(__file__).parents[1] / "docs" / "jax_adding.py"
    spec = importlib.util.spec_from_file_location("jax_adding", path)
    example = importlib.util.module_from_spec(spec)
    sys.modules["jax_adding"] = example
    spec.loader.exec_module(example)
    losses = example.train("lstm", steps=20, updates=25)
    assert losses[-1] < 0.6 * losses[0]
