"""Trains one model in several processes by PyTorch's DistributedDataParallel, or in one.

    torchrun --nproc-per-node 2 docs/torch_ddp.py
    python docs/torch_ddp.py                        # the same curve in one process

Each process has its rows of every batch; after each backward pass the gradients are averaged over
processes (gloo), so that all make the same step. The task: say what came some steps ago. Prints the
loss of every step over the whole batch, then what a step takes, and of it the averaging.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Iterator

import bptt.torch
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

BATCH, STEPS, INPUTS, HIDDEN = 32, 128, 16, 128
DELAYS = (1, 3, 9)


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = bptt.torch.LSTM(INPUTS, HIDDEN, num_layers=2)
        self.out = torch.nn.Linear(HIDDEN, len(DELAYS))

    def forward(self, x: Tensor) -> Tensor:  # (T, B, I) to (T, B, delays)
        return self.out(self.rnn(x)[0])


def batches(updates: int, rank: int, processes: int) -> Iterator[tuple[Tensor, Tensor]]:
    """x and target, of each batch the rows of this process."""
    draws = torch.Generator().manual_seed(1)
    for _ in range(updates):
        x = torch.randn(STEPS, BATCH, INPUTS, generator=draws)
        target = torch.stack([x[..., 0].roll(delay, 0) for delay in DELAYS], dim=-1)
        yield x[:, rank::processes], target[:, rank::processes]


def mean_over_processes(value: Tensor, processes: int) -> Tensor:
    if processes > 1:
        dist.all_reduce(value)
    return value / processes


def seconds_of_averaging(parameters: int, rounds: int = 20) -> float:
    """Of so many gradients, alone."""
    values = torch.zeros(parameters)
    dist.all_reduce(values)
    begun = time.perf_counter()
    for _ in range(rounds):
        dist.all_reduce(values)
    return (time.perf_counter() - begun) / rounds


def train(updates: int, rank: int, processes: int) -> None:
    torch.manual_seed(0)
    model: torch.nn.Module = Model()
    if processes > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seconds = []
    for step, (x, target) in enumerate(batches(updates, rank, processes)):
        begun = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - begun)
        whole = mean_over_processes(loss.detach(), processes)
        if rank == 0:
            print(f"step {step} loss {whole.item():.9f}", flush=True)
    parameters = sum(p.numel() for p in model.parameters())
    averaging = seconds_of_averaging(parameters) if processes > 1 else 0.0
    if rank == 0:
        typical = sorted(seconds)[len(seconds) // 2]
        print(f"{processes} processes of {torch.get_num_threads()} threads:", end=" ")
        print(f"{1e3 * typical:.2f} ms a step; averaging {parameters} gradients", end=" ")
        print(f"alone {1e3 * averaging:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--updates", type=int, default=50)
    options = parser.parse_args()
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun sets it
    if processes > 1:
        dist.init_process_group("gloo")
    try:
        train(options.updates, dist.get_rank() if processes > 1 else 0, processes)
    finally:
        if processes > 1:
            gc.collect()  # the model, in a cycle with its hooks, holds the group until then
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
