"""How `Params` are read from the layers of other libraries: what each classmethod takes and checks.

What the layouts are, and the way back, is in `layouts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar, overload

from . import checks, layouts

__all__ = ["FromLibraries"]

P = TypeVar("P", bound="FromLibraries")


class FromLibraries:
    """The readers of a class that is made of the arrays by name."""

    @overload
    @classmethod
    def from_torch(
        cls: type[P],
        state_dict: Mapping[str, Any],
        layer: int = 0,
        *,
        reverse: bool = False,
        prefix: str = "",
        readout: str | None = None,
    ) -> P: ...

    @overload
    @classmethod
    def from_torch(
        cls: type[P],
        state_dict: Mapping[str, Any],
        layer: Literal["all"],
        *,
        reverse: Literal[False] = False,
        prefix: str = "",
        readout: str | None = None,
    ) -> list[P | tuple[P, P]]: ...

    @classmethod
    def from_torch(
        cls: type[P],
        state_dict: Mapping[str, Any],
        layer: int | str = 0,
        *,
        reverse: bool = False,
        prefix: str = "",
        readout: str | None = None,
    ) -> P | list[P | tuple[P, P]]:
        """One layer of a ``torch.nn.RNN``, ``LSTM`` or ``GRU``, or all: copies of the weights.

        A ``state_dict`` does not tell the nonlinearity of an RNN ("tanh" or "relu"): the cell that
        these parameters are used with does.

        Parameters
        ----------
        state_dict : mapping of str to tensor
            ``module.state_dict()``, of the layer or of a whole model.
        layer : int, or "all"
            Which one of several, from 0 on; "all" returns a list of them, with a pair (forward,
            reverse) for each layer in both directions, as `bptt.forward` takes it.
        reverse : bool
            The direction that reads from the end, where there is one.
        prefix : str
            What the layer's keys begin with: ``"rnn."`` if the model has it as ``self.rnn``.
        readout : str, optional
            What the keys of a ``torch.nn.Linear`` begin with that becomes ``w_ho`` and ``b_o``:
            ``"out."`` if the model has it as ``self.out``. Of a pair, each direction gets the
            columns that read its state, and the forward one the bias.

        Raises
        ------
        ValueError
            If there is no such layer, or it has a projection (``proj_size``). The prefixes that
            would fit are named.
        """
        if isinstance(layer, str):
            checks.choice("layer", layer, ("all",))
            if reverse:
                raise ValueError('reverse: expected False with layer="all", got True')
            found = layouts.all_from_torch(state_dict, prefix=prefix, readout=readout)
            return [_nested([cls(**arrays) for arrays in directions]) for directions in found]
        return cls(
            **layouts.from_torch(state_dict, layer, reverse=reverse, prefix=prefix, readout=readout)
        )

    @classmethod
    def from_keras(
        cls: type[P],
        weights: Any,
        cell: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        reverse: bool = False,
    ) -> P:
        """The weights of a Keras ``SimpleRNN`` ("tanh", "relu", "linear"), ``LSTM`` or ``GRU``.

        Weights alone do not tell what a layer computes with them. Given without a layer or
        `config`, they are taken as those of one with Keras's own activations (tanh, and sigmoid at
        the gates; of a ``SimpleRNN`` that of `cell`), that reads forward, and as a GRU with
        ``reset_after=True``. ``recurrent_activation="hard_sigmoid"`` or a GRU without a bias and
        with ``reset_after=False`` would compute something else here, and nobody would see.

        Parameters
        ----------
        weights : layer, or list of arrays
            The layer, or its ``get_weights()``: kernel (I, G*H), recurrent kernel (H, G*H), and the
            bias, if there is one. The gates are i, f, c, o, and z, r, h.
        cell : str, optional
            A layer tells its own.
        config : dict, optional
            ``layer.get_config()``, where `weights` are arrays.
        reverse : bool
            Take a layer with ``go_backwards=True``. The cell computes the same if x is reversed in
            time.

        Raises
        ------
        ValueError
            If the layer is not what the cell computes: another activation, ``reset_after=False``,
            peepholes; or if the shapes are not those of the cell. Options that change nothing at
            inference, or that say what is returned (``dropout``, ``implementation``,
            ``return_sequences``, ``stateful``), are passed over: the state that a stateful layer
            goes on from is ``tape.state`` here.
        """
        return cls(**layouts.from_keras(weights, cell, config=config, reverse=reverse))

    @overload
    @classmethod
    def from_onnx(
        cls: type[P],
        cell: str,
        w: Any,
        r: Any,
        b: Any = None,
        *,
        attributes: Mapping[str, Any] | None = None,
        peepholes: Any = None,
        linear_before_reset: int = 0,
        direction: int | Literal["forward", "reverse"] = 0,
        reverse: bool = False,
    ) -> P: ...

    @overload
    @classmethod
    def from_onnx(
        cls: type[P],
        cell: str,
        w: Any,
        r: Any,
        b: Any = None,
        *,
        attributes: Mapping[str, Any] | None = None,
        peepholes: Any = None,
        linear_before_reset: int = 0,
        direction: Literal["bidirectional"],
        reverse: bool = False,
    ) -> list[P | tuple[P, P]]: ...

    @classmethod
    def from_onnx(
        cls: type[P],
        cell: str,
        w: Any,
        r: Any,
        b: Any = None,
        *,
        attributes: Mapping[str, Any] | None = None,
        peepholes: Any = None,
        linear_before_reset: int = 0,
        direction: int | str = 0,
        reverse: bool = False,
    ) -> P | list[P | tuple[P, P]]:
        """The weights of an ONNX node ``RNN``, ``LSTM`` or ``GRU``.

        Weights alone do not tell what a node computes with them. Without `attributes` they are
        taken as those of a node with the activations of `cell`, no clip, ``input_forget=0``, and a
        direction that reads forward.

        Parameters
        ----------
        cell : str
        w, r, b : (D, G*H, I), (D, G*H, H) and (D, 2*G*H) arrays
            The node's inputs W, R and B, of D directions. The gates are i, o, f, c, and z, r, h.
        attributes : dict, optional
            All of the node's, by their names:
            ``{a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}``. One that is
            not in it has the default of ONNX.
        peepholes : array, optional
            The input P of an LSTM, which must be zero.
        linear_before_reset : int
            The attribute of a GRU, if not among `attributes`: 0 as in ONNX if not given; it must
            be 1.
        direction : int, or {"forward", "reverse", "bidirectional"}
            Which of the D; of two, 1 is the one that reads from the end. Or the attribute of the
            node: "reverse" is the same as ``reverse=True``, and "bidirectional" returns a stack of
            one layer in both directions, ``[(forward, reverse)]``.
        reverse : bool
            Take a node with ``direction="reverse"``. The cell computes the same if x is reversed in
            time.

        Raises
        ------
        ValueError
            If the shapes are not those of `cell`, or the node is not what the cell computes: other
            activations, a clip, ``input_forget=1``, ``linear_before_reset=0``, peepholes. A
            ``layout`` of 1 is no other computation: X is batch first there, x is not.
        """
        which, reverse = layouts.onnx_directions(direction, w, reverse=reverse)
        read = [
            cls(
                **layouts.from_onnx(
                    cell,
                    w,
                    r,
                    b,
                    attributes=attributes,
                    peepholes=peepholes,
                    linear_before_reset=linear_before_reset,
                    direction=one,
                    reverse=reverse,
                )
            )
            for one in which
        ]
        return read[0] if len(read) == 1 else [_nested(read)]


def _nested(directions: list[P]) -> P | tuple[P, P]:
    """A layer as it stands in a list: its parameters, or those of both directions."""
    if len(directions) == 1:
        return directions[0]
    forward, reverse = directions
    return forward, reverse
