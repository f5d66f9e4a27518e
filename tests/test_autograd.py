"""Whatever keywords go together, the gradients are those of PyTorch's autograd in float64.

PyTorch runs each piece of each row by itself, layer by layer, so it knows nothing of lengths,
resets and packed rows; what lies beyond a row's length is NaN here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bptt
import numpy as np
import pytest
from bptt.grads import GRAD_NAMES
from bptt.states import as_given, as_tuple
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sequences import Case, Piece, cases
from test_stack_wanted import arrays_of, is_wanted
from test_stacks import H, I, O, draw, of_direction

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (it is no part of the `test` extra)"
)
torch.set_num_threads(1)

# Sums of at most 30 pieces of 6 steps, each of some 50 products, through five directions.
TOLERANCE = {"rtol": 1e-10, "atol": 1e-11}


@dataclass(frozen=True)
class Call:
    """A layer or a stack, sequences, and what is asked for."""

    case: Case
    cell: str
    shape: tuple[int, ...]  # of each layer, how many directions it has
    alone: bool  # a layer, not a stack of one
    bias: bool
    with_state: bool
    wanted: Any
    per_row: str | None
    save: str
    segments: int | None  # checkpoint_every
    seed: int

    @property
    def layers(self) -> list[Any]:
        return draw(self.cell, self.shape, bias=self.bias)

    @property
    def there(self) -> np.ndarray:
        """Which steps each row has, (T, B)."""
        return np.arange(self.case.steps)[:, None] < np.array(self.case.of_row, int)

    def numbers(self, what: str, *shape: int) -> np.ndarray:
        return np.random.default_rng([self.seed, *what.encode()]).standard_normal(shape)

    def every_step(self, what: str, width: int) -> np.ndarray:
        """Numbers (T, B, ...), and NaN beyond the lengths."""
        found = self.numbers(what, self.case.steps, self.case.batch, width)
        found[~self.there] = np.nan
        return found

    def states(self, what: str) -> tuple[np.ndarray, ...]:
        """(L*D, B, H) of each part of the state."""
        parts = len(bptt.CELLS[self.cell].states)
        return tuple(self.numbers(what, parts, sum(self.shape), self.case.batch, H))

    def as_passed(self, state: tuple[np.ndarray, ...]) -> Any:
        return of_direction(as_given(state), 0) if self.alone else as_given(state)

    def arguments(self) -> dict[str, Any]:
        """What `forward` and `value_and_grad` take."""
        layers = self.layers
        return {
            "cell": self.cell,
            "params": layers[0] if self.alone else layers,
            "x": self.case.given(self.every_step("x", I)),
            "state": self.as_passed(self.states("state")) if self.with_state else None,
            **self.case.options,
        }


@dataclass(frozen=True)
class Loss:
    """What a loss is, and where: a step, the last one, all, or all with weights."""

    loss: str
    at: Any
    reduction: str

    def passed(self, call: Call) -> dict[str, Any]:
        """Target and options of `value_and_grad`."""
        at = self.at
        if isinstance(at, str) and at == "weights":
            at = call.case.given(self._weights(call, np.nan))
        target = self.target(call)
        if self.every_step:
            target = call.case.given(target)
        return {"target": target, "loss": self.loss, "at": at, "reduction": self.reduction}

    @property
    def every_step(self) -> bool:
        return self.at in ("all", "weights")

    def target(self, call: Call) -> np.ndarray:
        """(T, B, ...) or (B, ...); what is beyond the lengths is none."""
        numbers = call.every_step("target", O)
        if self.loss == "cross_entropy":
            ids = (np.nan_to_num(numbers[..., 0]) > 0).astype(int)
            numbers = np.where(call.there, ids, -100)
        if self.every_step:
            return numbers
        found = call.numbers("target", call.case.batch, O)
        return (found[:, 0] > 0).astype(int) if self.loss == "cross_entropy" else found

    def _weights(self, call: Call, beyond: float) -> np.ndarray:
        numbers = call.numbers("weights", call.case.steps, call.case.batch)
        return np.where(call.there, np.maximum(numbers, 0), beyond)

    def weights(self, call: Call) -> np.ndarray:
        """(T, B), by what each term is multiplied."""
        steps = np.arange(call.case.steps)[:, None]
        if self.at == "weights":
            found = self._weights(call, 0)
        elif self.at == "all":
            found = call.there.astype(float)
        else:
            last = np.array(call.case.of_row, int) - 1
            step = last if self.at == "last" else self.at % max(call.case.steps, 1)
            found = ((steps == step) & call.there).astype(float)
        return found / (found.sum() or 1) if self.reduction == "mean" else found


@st.composite
def calls(draw_one: st.DrawFn, *, readout: bool) -> Call:
    case = draw_one(cases(most_steps=5, most_rows=4))
    shape = draw_one(st.sampled_from([(1,), (2,), (1, 1), (2, 1), (1, 2), (2, 1, 2)]))
    alone = shape == (1,) and draw_one(st.booleans())
    names = [*(name for name in GRAD_NAMES if readout or not name.endswith("o")), "params"]
    if not alone:
        names += ["layers[0]", f"layers[{len(shape) - 1}].w_hh", "layers[0].b_ih"]
    whole_rows = all(piece.first for piece in case.pieces())
    # forward cuts one layer alone, value_and_grad a stack in one direction, too.
    cut = set(shape) == {1} if readout else alone
    return Call(
        case,
        draw_one(st.sampled_from(["tanh", "relu", "lstm", "gru"])),
        shape,
        alone,
        draw_one(st.booleans()),
        draw_one(st.booleans()),
        draw_one(st.none() | st.sets(st.sampled_from(names), min_size=1, max_size=3)),
        draw_one(st.sampled_from([None, "gradient", "norm"])) if whole_rows else None,
        draw_one(st.sampled_from(["gates", "minimal"])),
        draw_one(st.none() | st.integers(1, 5)) if cut else None,
        draw_one(st.integers(0, 99)),
    )


@st.composite
def losses(draw_one: st.DrawFn) -> tuple[Call, Loss]:
    call = draw_one(calls(readout=True))
    steps = call.case.steps
    at: Any = draw_one(
        st.sampled_from(["last", "all", "weights"]) | st.integers(-steps, steps - 1)
        if steps
        else st.sampled_from(["last", "all", "weights"])
    )
    loss = draw_one(st.sampled_from(["squared_error", "cross_entropy"]))
    return call, Loss(loss, at, draw_one(st.sampled_from(["mean", "sum"])))


# --- PyTorch -------------------------------------------------------------------------------------


class Reference:
    """A stack of modules, and tensors of x and S_0 whose gradients are taken."""

    def __init__(self, call: Call) -> None:
        self.call, case = call, call.case
        self.leaves: dict[str, torch.Tensor] = {}
        x = self._leaf("x", np.nan_to_num(call.every_step("x", I)))
        state = [
            self._leaf(f"state[{i}]", part * call.with_state)
            for i, part in enumerate(call.states("state"))
        ]
        rows = [[x[t, b] for b in range(case.batch)] for t in range(case.steps)]
        final: list[list[tuple[torch.Tensor, ...]]] = []
        for k, layer in enumerate(call.layers):
            directions = layer if isinstance(layer, tuple) else (layer,)
            outputs = []
            for d, params in enumerate(directions):
                name = f"layers[{k}]" + (f"[{d}]" if len(directions) == 2 else "")
                module = self._module(params, name)
                initial = [part[len(final)] for part in state]
                y, last = self._run(module, rows, initial, self._pieces(reverse=d == 1))
                outputs.append(y)
                final.append(last)
            rows = [
                [torch.cat([y[t][b] for y in outputs]) for b in range(case.batch)]
                for t in range(case.steps)
            ]
        self.y, self.final = rows, final

    def _leaf(self, name: str, array: np.ndarray) -> torch.Tensor:
        self.leaves[name] = torch.tensor(array, requires_grad=True)
        return self.leaves[name]

    def _module(self, params: bptt.Params, name: str) -> Any:
        """A module of one layer; its parameters, and those of the readout, are among the leaves."""
        cell = self.call.cell
        kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(cell, torch.nn.RNN)
        options: dict[str, Any] = {"bias": params.b_ih is not None, "dtype": torch.float64}
        if kind is torch.nn.RNN:
            options["nonlinearity"] = cell
        module = kind(params.input_size, H, **options)
        arrays = params.arrays()
        for theirs, tensor in module.named_parameters():
            ours = theirs.replace("weight", "w").replace("bias", "b").removesuffix("_l0")
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(arrays[ours]))
            self.leaves[f"{name}.{ours}"] = tensor
        for ours in {"w_ho", "b_o"} & arrays.keys():
            self._leaf(f"{name}.{ours}", arrays[ours])
        return module

    def _pieces(self, *, reverse: bool) -> list[Piece]:
        """What a direction runs through; the other one runs the same pieces from their end."""
        pieces = self.call.case.pieces()
        if not reverse:
            return pieces
        return [Piece(p.row, p.times[::-1], p.last, p.first, False) for p in pieces]

    def _run(
        self, module: Any, x: Any, initial: list[torch.Tensor], pieces: list[Piece]
    ) -> tuple[Any, list[tuple[torch.Tensor, ...]]]:
        """y[t][b], zeros beyond the lengths, and the final state of each row."""
        case, nothing = self.call.case, torch.zeros(H, dtype=torch.float64)
        y = [[nothing] * case.batch for _ in range(case.steps)]
        final: list[Any] = [None] * case.batch
        for piece in pieces:
            used = piece.first and not piece.anew
            state = tuple(part[piece.row] if used else nothing for part in initial)
            if piece.times:
                steps = torch.stack([x[t][piece.row] for t in piece.times])
                given = tuple(part[None] for part in state)
                out, last = module(steps, given if len(given) > 1 else given[0])
                state = tuple(part[0] for part in (last if len(given) > 1 else (last,)))
                for t, row in zip(piece.times, out, strict=True):
                    y[t][piece.row] = row
            if piece.last:
                final[piece.row] = state
        return y, final

    def gradients(self, losses: list[torch.Tensor]) -> dict[str, np.ndarray]:
        """Of the sum of the rows' losses, or as `per_row` has it, by the names of `arrays_of`."""
        names, tensors = list(self.leaves), list(self.leaves.values())
        rows: list[dict[str, np.ndarray]] = []
        for loss in losses:
            found = [None] * len(tensors)
            if loss.requires_grad:
                found = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
            each = (
                np.zeros(tensor.shape) if gradient is None else gradient.numpy()
                for tensor, gradient in zip(tensors, found, strict=True)
            )
            rows.append(dict(zip(names, each, strict=True)))
        return {name: self._joined(name, [row[name] for row in rows]) for name in names}

    def _joined(self, name: str, of_rows: list[np.ndarray]) -> np.ndarray:
        rows = np.array(of_rows, float).reshape(len(of_rows), *self.leaves[name].shape)
        if not name.startswith("layers") or self.call.per_row is None:
            return rows.sum(axis=0)
        if self.call.per_row == "gradient":
            return rows
        return np.sqrt(np.square(rows).sum(axis=tuple(range(1, rows.ndim))))


# --- the checks ----------------------------------------------------------------------------------


def check(call: Call, grads: Any, reference: dict[str, np.ndarray]) -> None:
    """What is wanted, and nothing else, as the caller has it."""
    found = arrays_of(grads)
    if call.alone:
        found = {
            f"layers[0].{n}" if n in bptt.Params.__dataclass_fields__ else n: a
            for n, a in found.items()
        }
    named = call.wanted or {"x", "state", "params"}
    wanted = {name for name in reference if is_wanted(name, named)}
    assert set(found) == wanted
    for name in wanted:
        theirs, ours = reference[name], found[name]
        if name == "x":
            ours = call.case.padded(ours)
        if name.startswith("state") and call.alone:
            theirs = theirs[0]
        assert ours.shape == theirs.shape, name
        np.testing.assert_allclose(ours, theirs, err_msg=name, **TOLERANCE)


def check_tape(call: Call, backend: str) -> None:
    """Tape.backward against autograd of <dy, y> + <dstate, state>."""
    case, reference = call.case, Reference(call)
    tape = bptt.forward(
        backend=backend, save=call.save, checkpoint_every=call.segments, **call.arguments()
    )
    dy, dstate = call.every_step("dy", call.shape[-1] * H), call.states("dstate")
    losses = []
    for b in range(case.batch):
        terms = [torch.zeros((), dtype=torch.float64)]
        for t in range(case.of_row[b]):
            terms.append(torch.from_numpy(dy[t, b]) @ reference.y[t][b])
        for k, of_direction_k in enumerate(reference.final):
            for part, s in zip(dstate, of_direction_k[b], strict=True):
                terms.append(torch.from_numpy(part[k, b]) @ s)
        losses.append(torch.stack(terms).sum())
    for t in range(case.steps):
        for b in range(case.batch):
            theirs = reference.y[t][b].detach().numpy()
            np.testing.assert_allclose(case.padded(tape.y)[t, b], theirs, **TOLERANCE)
    grads = tape.backward(
        case.given(dy), call.as_passed(dstate), wanted=call.wanted, per_row=call.per_row
    )
    theirs = reference.gradients(losses)
    check(call, grads, {n: a for n, a in theirs.items() if not n.endswith(("w_ho", "b_o"))})


def check_loss(call: Call, loss: Loss, backend: str) -> None:
    """value_and_grad against autograd of the same loss."""
    reference = Reference(call)
    value, grads, last = bptt.value_and_grad(
        backend=backend,
        wanted=call.wanted,
        per_row=call.per_row,
        checkpoint_every=call.segments,
        return_state=True,
        **call.arguments(),
        **loss.passed(call),
    )
    theirs = loss_of_rows(call, loss, reference)
    total = sum(row.item() for row in theirs)
    np.testing.assert_allclose(value, total, **TOLERANCE)
    for k, of_rows in enumerate(reference.final):
        for i, part in enumerate(as_tuple(last)):
            ours = part if call.alone else part[k]
            for b in range(call.case.batch):
                np.testing.assert_allclose(ours[b], of_rows[b][i].detach().numpy(), **TOLERANCE)
    check(call, grads, reference.gradients(theirs))


def loss_of_rows(call: Call, loss: Loss, reference: Reference) -> list[torch.Tensor]:
    """The part of each row."""
    top = f"layers[{len(call.shape) - 1}]"
    tops = [top] if call.shape[-1] == 1 else [f"{top}[0]", f"{top}[1]"]
    w_ho = torch.cat([reference.leaves[f"{name}.w_ho"] for name in tops], dim=1)
    b_o = reference.leaves.get(f"{tops[0]}.b_o", torch.zeros(O, dtype=torch.float64))
    target, weights, found = loss.target(call), loss.weights(call), []
    for b in range(call.case.batch):
        terms = [torch.zeros((), dtype=torch.float64)]
        for t in np.flatnonzero(weights[:, b]):
            outputs = w_ho @ reference.y[t][b] + b_o
            y = torch.from_numpy(np.asarray(target[t, b] if loss.every_step else target[b]))
            if loss.loss == "cross_entropy":
                term = torch.nn.functional.cross_entropy(outputs, y)
            else:
                term = 0.5 * torch.square(y - outputs).sum()
            terms.append(weights[t, b] * term)
        found.append(torch.stack(terms).sum())
    return found


def property_of(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


@property_of(12)
@given(call=calls(readout=False))
def test_a_tape_has_the_gradients_of_autograd(backend: str, call: Call) -> None:
    check_tape(call, backend)


@property_of(12)
@given(drawn=losses())
def test_a_loss_has_the_gradients_of_autograd(backend: str, drawn: tuple[Call, Loss]) -> None:
    check_loss(*drawn, backend)


@pytest.mark.slow
@property_of(100)
@given(call=calls(readout=False))
def test_many_tapes_have_the_gradients_of_autograd(backend: str, call: Call) -> None:
    check_tape(call, backend)


@pytest.mark.slow
@property_of(100)
@given(drawn=losses())
def test_many_losses_have_the_gradients_of_autograd(backend: str, drawn: tuple[Call, Loss]) -> None:
    check_loss(*drawn, backend)
