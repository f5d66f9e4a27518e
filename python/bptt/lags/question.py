"""`Question`: what is asked of `lag_gradients`, and how it is read."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks, memory
from ..backends import Backend, resolve
from ..cells import Cell, get_cell
from ..checks import Array
from ..initial import Seed, generator_of
from ..losses import At, Objective, make_objective, read_step
from ..params import Params
from ..recorded import Named, Recorded
from ..row_map import dense_rows
from ..sequence_options import Flags, Integers
from ..stack import Layers, is_stack
from ..states import GivenState
from .at_every_step import AtEveryStep
from .at_one_step import AtOneStep
from .lag_sum import LagSum
from .network import Network, read_network
from .options import Options
from .sequences import KINDS, as_dense
from .swept import ROUTES
from .terms import Terms

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Question", "read_question"]

# Groups of sequences between which a sample's results are compared.
MOST_GROUPS = 8


@dataclass(frozen=True, eq=False)
class Question:
    """The arguments of `lag_gradients`, which describes them, as they were given."""

    cell: str | Cell
    params: Params | Layers
    x: Array
    target: Array | None = None
    _: KW_ONLY
    dy: Array | None = None
    loss: str | None = None
    at: At = "all"
    reduction: str = "mean"
    state: GivenState | None = None
    backend: str = "auto"
    max_lag: int | None = None
    lags: Iterable[int] | None = None
    route: str | None = None
    sample: int | None = None
    rng: Seed = 0
    lengths: Integers | None = None
    batch_sizes: Integers | None = None
    reset: Flags | None = None
    reverse: bool = False
    batch_first: bool = False

    @property
    def weighted(self) -> bool:
        """Whether `at` has a weight for each step and sequence."""
        return self.dy is None and hasattr(self.at, "__dlpack__")

    @property
    def step(self) -> int | None:
        """The only step at which the loss is read; None if there are several.

        Raises
        ------
        TypeError, ValueError
            If `at` is neither an array nor names a step of x.
        """
        if self.dy is not None or self.weighted:
            return None
        return read_step(self.at, len(self.x))

    @property
    def reach(self) -> int:
        """How many lags there are: the steps up to the last one at which the loss is read."""
        step = self.step
        return len(self.x) if step is None else step + 1

    def of_sequences(self, rows: Array) -> Question:
        """The same about some sequences of the batch."""
        batch = self.x.shape[1]

        def cut(name: str, value: Any, axis: int) -> Any:
            if value is None:
                return None
            array = checks.as_array(name, value)
            if array.shape[axis : axis + 1] != (batch,):
                where = f"{batch} sequences along axis {axis}, as x has them"
                raise ValueError(f"{name}: expected {where}, got shape {array.shape}")
            return np.take(array, rows, axis)

        state: Any = self.state
        pair, of_layers = isinstance(state, (tuple, list)), int(is_stack(self.params))
        return replace(
            self,
            x=cut("x", self.x, 1),
            target=cut("target", self.target, 1 if self.step is None else 0),
            dy=cut("dy", self.dy, 1),
            at=cut("at", self.at, 1) if self.weighted else self.at,
            state=tuple(cut("state", s, of_layers) for s in state)
            if pair
            else cut("state", state, of_layers),
        )

    def as_dense(self) -> Question:
        """The same about a dense batch: steps that a row does not have count nothing."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.init}
        plain = all(given[name] is none for name, none in KINDS.items())
        return self if plain else Question(**as_dense(given))

    def read(self, *, terms: bool = False) -> LagSum:
        """Check all arguments, run the forward pass and the sweep of all lags.

        Where the `terms` of all lags will be kept, they are counted, too.

        Raises
        ------
        TypeError, ValueError
            Naming the argument that does not fit.
        """
        return self.as_dense()._read(terms=terms)

    def _read(self, *, terms: bool) -> LagSum:
        cell = get_cell(self.cell)
        network = read_network(cell, self.params, self.x, self.state, {})
        steps, batch, _ = network.x.shape
        if not steps or not batch:
            shape = network.x.shape
            raise ValueError(f"x: expected at least one step and one sequence, got shape {shape}")
        _check_route(cell, self.route)
        incoming = self._read_incoming(network)
        backend = resolve(self.backend, cell, network.x.dtype)
        step, walked = self.step, self.reach
        lags = _read_lags(self.max_lag, self.lags, walked)
        drawn, factor = _read_sample(self.sample, self.rng, batch)
        rows = batch if self.sample is None else sum(map(len, drawn))
        self._require_memory(network, backend, rows, lags, terms=terms)
        found = []
        for rows in drawn:
            layers = network.recorded(backend, walked, rows)
            found.append(_terms(layers, _rows_of(incoming, rows, factor), lags, self.route))
        groups, losses, readouts = zip(*found, strict=True)
        return LagSum(
            cell=cell,
            route=self.route,
            lags=lags,
            groups=list(groups),
            readout={name: sum(readout[name] for readout in readouts) for name in readouts[0]},
            loss=None if self.dy is not None else functools.reduce(operator.add, losses, 0.0),
            steps=steps,
            step=step,
            factor=None if self.sample is None else factor,
        )

    def _require_memory(
        self, network: Network, backend: Backend, batch: int, lags: Array, *, terms: bool
    ) -> None:
        """For the work, and for all `terms` if they are kept."""
        steps, count, one_step = self.reach, len(lags), self.step is not None
        what = f"{count} lags of {steps} steps"
        needed = network.nbytes(backend, steps, batch, lags=count, one_step=one_step)
        if terms:
            deltas = count if one_step else count * steps - int(lags.sum())
            needed += network.terms_nbytes(batch, lags=count, deltas=deltas)
            what = (
                f"the terms of {count} lags; bptt.lag_terms holds one at a time, and lags= takes "
                "fewer"
            )
        memory.require_memory(needed, what)

    def _read_incoming(self, network: Network) -> Objective | Array:
        """What gives the top's states their gradients: a loss of the readout, or an array."""
        params, (steps, batch, _) = network.seen, network.x.shape
        given = {"target": self.target, "loss": self.loss}
        if self.dy is not None:
            for name, value in given.items():
                if value is not None:
                    raise ValueError(f"{name}: expected None beside dy, got {type(value).__name__}")
            array = checks.as_float_array("dy", self.dy, ("w_hh", params.dtype))
            checks.expect_shape("dy", array, (steps, batch, params.hidden_size), "x and w_hh")
            return checks.readable(array)
        for name, value in given.items():
            if value is None:
                raise TypeError(f"{name}: expected it, or dy in place of target and loss, got None")
        network.expect_readout()
        objective = make_objective(
            params, dense_rows(steps, batch), self.target, self.loss, self.at, self.reduction
        )
        if objective.weights is not None and not objective.weights.any():
            raise ValueError(
                "at: expected a loss at one step at least, got weights that are all zero"
            )
        return objective


def read_question(
    cell: str | Cell,
    params: Params | Layers,
    x: Array,
    target: Array | None = None,
    **options: Unpack[Options],
) -> LagSum:
    """``Question(...).read()``"""
    return Question(cell, params, x, target, **options).read()


def _terms(
    layers: dict[str, Recorded], incoming: Objective | Array, lags: Array, route: str | None
) -> tuple[Terms, float, Named]:
    """The terms of some sequences, their loss, and its gradients of the readout."""
    if not isinstance(incoming, Objective):
        return AtEveryStep(layers, incoming, lags, route), 0.0, {}
    prefix, top = list(layers.items())[-1]
    loss, dy, readout = top.readout_gradient(incoming)
    kind = AtEveryStep if incoming.step is None else AtOneStep
    return kind(layers, dy, lags, route), loss, {prefix + n: g for n, g in readout.items()}


def _check_route(cell: Cell, route: object) -> None:
    if route is None:
        return
    checks.choice("route", route, ROUTES)
    if cell.keeps is None and cell.step is None:
        raise ValueError(f"route: cell {cell.name!r} has one route only, got {route!r}")


def _read_lags(max_lag: object, lags: Iterable[int] | None, steps: int) -> Array:
    """The lags that are computed, sorted."""
    if lags is None:
        last = steps - 1 if max_lag is None else checks.size("max_lag", max_lag, least=0)
        if last >= steps:
            raise ValueError(f"max_lag: expected at most {steps - 1}, the first step, got {last}")
        return np.arange(last + 1)
    if max_lag is not None:
        raise ValueError("lags: expected either lags or max_lag, got both")
    return np.array(checks.rising("lags", lags, 0, steps - 1, "the first step"))


def _read_sample(sample: object, rng: Seed, batch: int) -> tuple[list[Any], float]:
    """Groups of sequences, and the factor by which each counts: for those left out too."""
    if sample is None:
        return [slice(None)], 1.0
    count = checks.size("sample", sample, least=2)
    if count > batch:
        raise ValueError(f"sample: expected at most {batch}, the sequences of x, got {count}")
    drawn = np.sort(generator_of(rng).choice(batch, count, replace=False))
    return np.array_split(drawn, min(MOST_GROUPS, count)), batch / count


def _rows_of(incoming: Objective | Array, rows: Any, factor: float) -> Objective | Array:
    """The part of some sequences, times `factor`."""
    if isinstance(incoming, Objective):
        cut = rows if incoming.step is not None else (slice(None), rows)
        weights = incoming.weights
        return replace(
            incoming,
            target=np.ascontiguousarray(incoming.target[cut]),
            weights=None if weights is None else np.ascontiguousarray(weights[:, rows]),
            scale=incoming.scale * factor,
        )
    part: Array = np.ascontiguousarray(incoming[:, rows]) * incoming.dtype.type(factor)
    return part
