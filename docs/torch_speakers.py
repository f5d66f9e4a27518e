"""Trains a classifier of recordings of different lengths, packed, by torch.nn and by bptt.torch.

    pip install --no-deps aeon                     # 6 MB, for its data; nothing of it is imported
    python docs/torch_speakers.py                  # a GRU; half a minute

The data are the "Japanese Vowels" of M. Kudo, J. Toyama and M. Shimbo (1999): 640 utterances of
nine speakers, 7 to 29 frames of 12 cepstral coefficients each, to be told by their speaker. Both
models begin with the same weights and see the same batches. Prints losses, which have to agree,
accuracy on utterances that were not trained on, and times; and draws how far back the gradient of
the layer reached while it learned.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import time
from pathlib import Path

import bptt.torch
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

SPEAKERS, COEFFICIENTS = 9, 12


class Model(torch.nn.Module):
    """Scores (B, speakers) of packed utterances, from the state after the last frame of each."""

    def __init__(self, cell: str, hidden: int) -> None:
        super().__init__()
        kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
        self.rnn = kinds[cell](COEFFICIENTS, hidden)
        self.out = torch.nn.Linear(hidden, SPEAKERS)

    def forward(self, x: PackedSequence) -> Tensor:
        _, last = self.rnn(x)
        return self.out((last[0] if isinstance(last, tuple) else last)[-1])


def utterances(part: str) -> tuple[list[Tensor], Tensor]:
    """Those of "TRAIN" or "TEST", each (frames, 12), and their speakers (N,)."""
    package = importlib.util.find_spec("aeon")
    if package is None or package.origin is None:
        raise SystemExit("the data come with the package aeon: pip install --no-deps aeon")
    name = f"datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts"
    lines = (Path(package.origin).parent / name).read_text().splitlines()
    found, speakers = [], []
    for line in lines[lines.index("@data") + 1 :]:
        *channels, speaker = line.split(":")
        values = [[float(value) for value in channel.split(",")] for channel in channels]
        found.append(torch.tensor(values).T.contiguous())
        speakers.append(int(speaker) - 1)
    return found, torch.tensor(speakers)


class Training:
    """A model, and the time that it took to train it so far."""

    def __init__(self, model: Model) -> None:
        self.model, self.seconds = model, 0.0
        self.optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

    def update(self, x: PackedSequence, speakers: Tensor) -> float:
        begun = time.perf_counter()
        self.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.model(x), speakers)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.seconds += time.perf_counter() - begun
        return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cell", choices=("lstm", "gru", "rnn"), default="gru")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, help="where the horizon is drawn; needs matplotlib")
    parser.add_argument("--quick", action="store_true", help="does it run?")
    options = parser.parse_args()
    epochs, hidden = (2, 32) if options.quick else (options.epochs, 128)

    torch.manual_seed(0)
    recordings, speakers = utterances("TRAIN")
    held_out, of_held_out = utterances("TEST")
    theirs = Model(options.cell, hidden)
    ours = copy.deepcopy(theirs)
    print("replaced:", *bptt.torch.replace(ours))  # the one line
    monitor = bptt.torch.LagMonitor(ours.rnn)
    both = {"torch.nn": Training(theirs), "bptt.torch": Training(ours)}

    for epoch in range(epochs):
        for chosen in torch.randperm(len(recordings)).split(30):
            x = pack_sequence([recordings[i] for i in chosen], enforce_sorted=False)
            losses = {name: each.update(x, speakers[chosen]) for name, each in both.items()}
        if epoch % 5 == 0 or epoch == epochs - 1:
            print(epoch, *(f"{name} {loss:.4f}" for name, loss in losses.items()), sep="   ")

    x, found = pack_sequence(held_out, enforce_sorted=False), {}
    for name, training in both.items():
        with torch.no_grad():
            scores = training.model(x)
        found[name] = torch.nn.functional.cross_entropy(scores, of_held_out).item()
        right = (scores.argmax(1) == of_held_out).double().mean().item()
        line = f"{name:<10} {training.seconds:6.2f} s   held-out loss {found[name]:.4f}"
        print(line, f"  {right:.1%} of the speakers told")
    first, last = monitor.history[0], monitor.history[-1]
    print(
        f"the gradient reached {first.horizon} frames back at first, {last.horizon} at last; "
        f"{len(monitor.history)} measurements took {monitor.overhead:.1%} of the training"
    )
    if options.out is not None:
        monitor.plot().savefig(options.out, dpi=150)
        print("drawn:", options.out)
    if abs(found["torch.nn"] - found["bptt.torch"]) > 0.1 * found["torch.nn"]:  # rounding grows
        raise SystemExit("the losses differ")


if __name__ == "__main__":
    main()
