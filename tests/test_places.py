"""The compiled backend reads and writes the caller's rows by itself: the bits are those of copies.

Sizes are of every split of the work among threads, and of several blocks of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.backends import REGISTRY
from problems import by_name, recorded

pytestmark = pytest.mark.skipif(
    not bptt.backends()["native"].available, reason="native only: no other takes places"
)

SIZES = [(64, 40, 5, 48), (1, 300, 20, 24), (3, 90, 64, 200), (2, 140, 80, 300)]  # B, T, I, H
CELLS = ["tanh", "lstm", "gru"]


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = bptt.get_num_threads()
    bptt.set_num_threads(2)
    yield
    bptt.set_num_threads(before)


class Call:
    """A layer and sequences of every kind in turn: evenly spaced rows and others."""

    def __init__(self, cell: str, sizes: tuple[int, ...]) -> None:
        batch, steps, inputs, hidden = sizes
        rng = np.random.default_rng(batch)
        self.cell, self.sizes = cell, sizes
        self.params = bptt.init_params(
            cell, input_size=inputs, hidden_size=hidden, output_size=3, dtype="float32", rng=1
        )
        self.x, self.dy, self.dc = (
            rng.standard_normal((steps, batch, width), np.float32)
            for width in (inputs, hidden, hidden)
        )
        self.ids = rng.integers(0, 3, (steps, batch))
        self.dstate = rng.standard_normal((batch, hidden), np.float32)
        self.lengths = rng.integers(0, steps + 1, batch)
        self.lengths[-1] = steps - 1  # so that there is a step which nobody has

    def kinds(self) -> list[dict[str, Any]]:
        lengths = {"lengths": self.lengths}
        return [
            {"reverse": True},
            {"batch_first": True, "reverse": True},
            lengths,
            {**lengths, "batch_first": True},
        ]

    def found(self, save: str, **how: Any) -> dict[str, np.ndarray]:
        """All that a tape and the fused call give."""
        turned = [self.x, self.dy, self.dc, self.ids]
        if how.get("batch_first"):
            turned = [np.ascontiguousarray(a.swapaxes(0, 1)) for a in turned]
        x, dy, dc, ids = turned
        beside = {"dc": dc} if self.cell == "lstm" else {}
        dstate = (self.dstate, None) if self.cell == "lstm" else self.dstate
        tape = bptt.forward(self.cell, self.params, x, save=save, **how)
        out = tape.backward(dy, dstate, **beside)
        found = {**recorded(tape), **by_name(out)}
        out.x = np.full_like(x, 0.5)
        added = tape.backward(dy, out=out, accumulate=True)
        found |= {f"added {name}": g for name, g in by_name(added).items()}
        for wanted in ("x", "w_ih"):
            found[f"{wanted} alone"] = getattr(tape.backward(dy, wanted=wanted), wanted)
        for every in (None, 7):
            loss, grads = bptt.value_and_grad(
                self.cell,
                self.params,
                x,
                ids,
                loss="cross_entropy",
                at="all",
                checkpoint_every=every,
                **how,
            )
            more = {"loss": np.array(loss), **by_name(grads)}
            found |= {f"fused {every} {name}": value for name, value in more.items()}
        return {name: value.copy() for name, value in found.items()}


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_results_have_the_bits_of_copied_rows(
    cell: str, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Call(cell, sizes)
    saves = ["gates"] if cell == "tanh" else ["gates", "minimal"]
    for n, kind in enumerate(call.kinds()):
        save = saves[n % len(saves)]
        there = call.found(save, **kind)
        with monkeypatch.context() as without:
            without.setattr(type(REGISTRY["native"]), "places", False)
            without.delitem(vars(REGISTRY["native"]), "places")
            copied = call.found(save, **kind)
        assert there.keys() == copied.keys()
        for name, array in there.items():
            assert np.array_equal(array, copied[name], equal_nan=True), (kind, name)


def test_every_split_is_among_the_sizes() -> None:
    splits = {
        bptt.plan(cell, steps, batch, inputs, hidden).split
        for cell in CELLS
        for batch, steps, inputs, hidden in SIZES
    }
    assert splits == {"slices", "rows", "hidden", "pipeline"}


def test_x_is_not_copied() -> None:
    call = Call("tanh", SIZES[0])
    tape = bptt.forward("tanh", call.params, call.x, reverse=True)
    rows = call.x.shape[0] * call.x.shape[1]
    # y in both orders, and the last state.
    assert tape.nbytes == (2 * rows + call.x.shape[1]) * 48 * 4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda places: places._replace(rows=places.rows[:-1]),
        lambda places: places._replace(rows=places.rows + 1),
        lambda places: places._replace(padding=places.rows[:1]),
        lambda places: places._replace(spacing=2),
    ],
)
def test_places_that_cannot_be_do_not_crash(wrong: Any) -> None:
    from dataclasses import replace

    from bptt.backends.protocol import Layer
    from bptt.cells import get_cell
    from bptt.sequence_options import read_row_map

    call = Call("tanh", SIZES[0])
    batch, _, _, hidden = SIZES[0]
    rows = read_row_map(call.x.shape[:2], reverse=True)
    state = (np.zeros((batch, hidden), np.float32),)
    layer = Layer(get_cell("tanh"), call.params, call.x, state, None, rows.places)
    REGISTRY["native"].forward(layer, "gates")
    with pytest.raises(ValueError, match=r"places|spacing|padding"):
        REGISTRY["native"].forward(replace(layer, places=wrong(rows.places)), "gates")


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_two_threads_share_rows_of_which_few_are_long(cell: str) -> None:
    """Each block of time holds other rows, and a thread may be a block ahead of the other."""
    lengths = np.array([200] * 10 + [37] * 54)
    params = bptt.init_params(cell, input_size=256, hidden_size=256, dtype="float32", rng=1)
    x = np.random.default_rng(3).standard_normal((200, 64, 256), np.float32)
    on_two = [bptt.forward(cell, params, x, lengths=lengths).y for _ in range(3)]
    bptt.set_num_threads(1)
    on_one = bptt.forward(cell, params, x, lengths=lengths).y
    assert all(np.array_equal(y, on_one) for y in on_two)
