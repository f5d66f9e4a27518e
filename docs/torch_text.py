"""Trains a character model on a real text, by torch.nn and by bptt.torch in turns.

    python docs/torch_text.py                      # two layers of an LSTM; half a minute

The text comes with Python: the language reference, as `help` shows it. Both models begin with the
same weights and see the same batches. Prints the loss of both on a part of the text that they were
not trained on, which has to agree, and the time that each took; and how far back the gradient of
the layers reached while they learned, which ``--out`` draws.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from pydoc_data.topics import topics

import bptt.torch
import torch
from torch import Tensor

HELD_OUT = 20_000  # characters at the end


class Model(torch.nn.Module):
    """Scores (T, B, characters) of the next character, of characters (T, B)."""

    def __init__(self, cell: str, characters: int, hidden: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(characters, 32)
        self.rnn = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](32, hidden, num_layers=2)
        self.out = torch.nn.Linear(hidden, characters)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(self.embedding(x))[0])


def encoded_text() -> tuple[Tensor, int]:
    """The text as numbers of characters, and how many characters there are."""
    text = "\n".join(topics[name] for name in sorted(topics))
    characters = sorted(set(text))
    number = {character: i for i, character in enumerate(characters)}
    return torch.tensor([number[character] for character in text]), len(characters)


def loss_of(model: Model, windows: Tensor) -> Tensor:
    """Mean over characters, in nats; windows (T + 1, B)."""
    scores = model(windows[:-1])
    return torch.nn.functional.cross_entropy(scores.flatten(0, 1), windows[1:].flatten())


class Training:
    """A model, and the time that it took to train it so far."""

    def __init__(self, model: Model) -> None:
        self.model, self.seconds = model, 0.0
        self.optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

    def update(self, windows: Tensor) -> float:
        begun = time.perf_counter()
        self.optimizer.zero_grad()
        loss = loss_of(self.model, windows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.seconds += time.perf_counter() - begun
        return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cell", choices=("lstm", "gru"), default="lstm")
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--out", type=Path, help="where the horizon is drawn; needs matplotlib")
    parser.add_argument("--quick", action="store_true", help="does it run?")
    options = parser.parse_args()
    updates, steps, hidden = (3, 32, 32) if options.quick else (options.updates, 128, 128)

    torch.manual_seed(0)
    text, characters = encoded_text()
    trained_on, held_out = text[:-HELD_OUT], text[-HELD_OUT:]
    theirs = Model(options.cell, characters, hidden)
    ours = copy.deepcopy(theirs)
    print("replaced:", *bptt.torch.replace(ours))  # the one line
    monitor = bptt.torch.LagMonitor(ours.rnn)
    both = {"torch.nn": Training(theirs), "bptt.torch": Training(ours)}

    for update in range(updates):
        first = torch.randint(len(trained_on) - steps, (32,))
        windows = trained_on[first + torch.arange(steps + 1)[:, None]]  # (T + 1, B)
        losses = {name: training.update(windows) for name, training in both.items()}
        if update % 50 == 0:
            print(update, *(f"{name} {loss:.4f}" for name, loss in losses.items()), sep="   ")

    windows = held_out[: len(held_out) // steps * steps].view(-1, steps).T
    found = {}
    for name, training in both.items():
        with torch.no_grad():
            found[name] = loss_of(training.model, windows).item()
        print(f"{name:<10} {training.seconds:6.2f} s   held-out loss {found[name]:.4f}")
    first, last = monitor.history[0], monitor.history[-1]
    print(
        f"the gradient reached {first.horizon} characters back at first, {last.horizon} at last; "
        f"{len(monitor.history)} measurements took {monitor.overhead:.1%} of the training"
    )
    if options.out is not None:
        monitor.plot().savefig(options.out, dpi=150)
        print("drawn:", options.out)
    if abs(found["torch.nn"] - found["bptt.torch"]) > 0.01 * found["torch.nn"]:
        raise SystemExit("the losses differ")


if __name__ == "__main__":
    main()
