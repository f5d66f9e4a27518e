"""`LagMonitor`: the horizon of a recurrent module, followed while it is trained."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import LagGradients, LagRecord
from .. import LagMonitor as _LagMonitor
from .watched import Call, expect_layer, read_call

__all__ = ["LagMonitor"]


class LagMonitor:
    """Follow the horizon of a recurrent module's gradient, by hooks: nothing is called in the loop.

    Every call of the module in training mode whose outputs get a gradient is a step. At those that
    are due the gradient that arrived at the outputs is resolved by the lag over which it reaches
    the weights, by `bptt.lag_gradients`; when they are due, and what that may cost, is
    `bptt.LagMonitor`'s business, whose options these are.

    Parameters
    ----------
    module : RNN, GRU, LSTM or Recurrent
        Of `bptt.torch` or, the first three, of ``torch.nn``, in one direction; on any device.
    writer : object, optional
        Gets ``writer.add_scalar(tag, value, step)`` of each measurement, as a ``SummaryWriter`` of
        TensorBoard: of ``<name>/horizon`` and ``<name>/half_life``, and of each layer of several
        ``<name>/horizon/layer_0``, ... What is None or no finite number is left out.
    name : str
        What tags begin with.
    **options
        Those of `bptt.LagMonitor`: ``every``, ``budget``, ``tolerance``, ``max_lag``, ``lags``,
        ``sample``, ``backend``, ``rng``, ``clock``.

    Attributes
    ----------
    history : list of LagRecord
        What was measured, of all parameters.
    last : LagGradients or None
        All of the last measurement; ``last.horizon(of="layers[0]")`` is that of the lowest layer
        of several.
    steps : int
        Steps so far.
    overhead : float
        Time spent here over the time between the steps.

    Raises
    ------
    TypeError
        If `module` is none of these; of a model its layers are named.
    ValueError
        If it is bidirectional, since the reverse direction reads later steps, or has projections.

    Notes
    -----
    Of what comes in at the last state, the top's h counts; what comes in at the memory c of an
    LSTM, or at lower layers, is left out, with a warning. Dropout between layers is left out, too:
    the gradient is the one of the training step, and passes through layers without it. A compiled
    module is not measured.

    Examples
    --------
    >>> import torch, bptt.torch
    >>> module = bptt.torch.LSTM(3, 8)
    >>> monitor = bptt.torch.LagMonitor(module)
    >>> for step in range(3):  # a loop of training as it was
    ...     y, _ = module(torch.randn(50, 4, 3))
    ...     y[-1].square().mean().backward()
    >>> monitor.history[0].step
    0
    >>> monitor.remove()
    """

    def __init__(
        self, module: torch.nn.Module, *, writer: Any = None, name: str = "bptt", **options: Any
    ) -> None:
        self._module: torch.nn.Module | None = expect_layer(module)
        self._monitor = _LagMonitor(**options)
        if writer is not None and not callable(getattr(writer, "add_scalar", None)):
            raise TypeError(
                f"writer: expected an object with add_scalar, got {type(writer).__name__}"
            )
        self._writer, self._name = writer, name
        self.last: LagGradients | None = None
        self._handle = module.register_forward_hook(self._called, with_kwargs=True)

    @property
    def history(self) -> list[LagRecord]:
        return self._monitor.history

    @property
    def steps(self) -> int:
        return self._monitor.steps

    @property
    def overhead(self) -> float:
        return self._monitor.overhead

    def remove(self) -> None:
        """Detach it from the module; what was measured stays."""
        self._handle.remove()
        self._module = None

    def to_dict(self) -> dict[str, Any]:
        """``bptt.LagMonitor.to_dict``"""
        return self._monitor.to_dict()

    def plot(self) -> Any:
        """``bptt.LagMonitor.plot``: a figure of the horizon over the steps; needs matplotlib."""
        return self._monitor.plot()

    def draw(self, axes: Any, **style: Any) -> None:
        """``bptt.LagMonitor.draw``: the same line into axes of your own."""
        self._monitor.draw(axes, **style)

    def _called(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """A call of the module: wait for the gradients of its outputs."""
        if not module.training or not torch.is_grad_enabled():
            return
        if module is not self._module:  # a copy of it, which has a copy of the hook
            return
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined, unused-ignore]
            return
        call = read_call(module, args, kwargs, output)
        if not call.x.numel():  # of no step or no sequence there is no lag
            return
        _Waiting(self, call).attach()

    def _measure(self, call: Call, grads: Sequence[Tensor | None]) -> None:
        """The end of the way back of a call, with the gradients of its outputs."""
        if self._module is None:
            return
        found = self._monitor.step_if_due(lambda: call.arguments(grads))
        if found is not None:
            self.last = found
            self._write(found)

    def _write(self, found: LagGradients) -> None:
        if self._writer is None:
            return
        record, tolerance = self.history[-1], self._monitor.tolerance
        scalars: dict[str, float | None] = {"horizon": record.horizon}
        scalars["half_life"] = record.half_life
        layers = sum(name.startswith("layers[") and name.endswith("]") for name in found.error)
        for k in range(layers):
            scalars[f"horizon/layer_{k}"] = found.horizon(tolerance, of=f"layers[{k}]")
        for tag, value in scalars.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(f"{self._name}/{tag}", value, record.step)

    def __deepcopy__(self, memo: dict[int, Any]) -> LagMonitor:
        """Itself: of a copied module nothing is measured."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_writer": None}  # which holds open files

    def __repr__(self) -> str:
        of = type(self._module).__name__ if self._module is not None else "nothing"
        return f"{self._monitor!r} of {of}"


class _Waiting:
    """A call whose outputs wait for their gradients, which a way back brings one after the other.

    It refers to no node of the graph, so that it lives no longer than that.
    """

    def __init__(self, monitor: LagMonitor, call: Call) -> None:
        self._monitor = monitor
        self._call: Call | None = call
        self._grads: dict[int, Tensor] = {}

    def attach(self) -> None:
        assert self._call is not None
        outputs, self._call.outputs = self._call.outputs, ()
        self._count = len(outputs)
        for n, tensor in enumerate(outputs):
            if tensor.requires_grad:
                tensor.register_hook(functools.partial(self._arrived, n))

    def _arrived(self, n: int, grad: Tensor) -> None:
        if self._call is None:
            return  # a second way back
        if not self._grads:
            torch.autograd.Variable._execution_engine.queue_callback(self._complete)
        self._grads[n] = grad

    def _complete(self) -> None:
        call, grads = self._call, [self._grads.get(n) for n in range(self._count)]
        self._call = None
        self._grads.clear()
        if call is not None:
            self._monitor._measure(call, grads)
