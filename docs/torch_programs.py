"""Runs programs of PyPI with their recurrent layers by torch.nn and replaced, and compares them.

    pip install sb3-contrib pytorch-forecasting
    python docs/torch_programs.py                  # a minute

- RecurrentPPO of sb3-contrib learns CartPole by an LSTM for its actor and one for its critic, whose
  calls are of single steps and of short sequences
- DeepAR of pytorch-forecasting fits series by two layers of an LSTM; its packed sequences have one
  length here

Both runs of a program begin with the same seed. Prints the times, and how far apart the weights
are in the end: ||ours - theirs|| / ||theirs|| of all of a model.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable

import bptt.torch
import torch


def recurrent_ppo(ours: bool, steps: int) -> tuple[torch.nn.Module, float]:
    from sb3_contrib import RecurrentPPO

    learner = RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=128, seed=0, device="cpu")
    if ours:
        assert bptt.torch.replace(learner.policy) == ["lstm_actor", "lstm_critic"]
    begun = time.perf_counter()
    learner.learn(128 * steps)
    return learner.policy, time.perf_counter() - begun


def deep_ar(ours: bool, steps: int) -> tuple[torch.nn.Module, float]:
    import lightning.pytorch as pl
    from pytorch_forecasting import DeepAR, TimeSeriesDataSet
    from pytorch_forecasting.data.examples import generate_ar_data
    from pytorch_forecasting.models.nn import rnn

    class Layer(rnn.LSTM, bptt.torch.LSTM):
        """Theirs is a class of its own, with a forward that is PyTorch's."""

    pl.seed_everything(0, verbose=False)
    series = generate_ar_data(seasonality=10.0, timesteps=200, n_series=20, seed=0)
    data = TimeSeriesDataSet(
        series,
        time_idx="time_idx",
        target="value",
        group_ids=["series"],
        time_varying_unknown_reals=["value"],
        max_encoder_length=60,
        max_prediction_length=20,
    )
    model = DeepAR.from_dataset(data, hidden_size=32, rnn_layers=2, dropout=0.0)
    if ours:
        theirs = model.rnn
        sizes = theirs.input_size, theirs.hidden_size, theirs.num_layers
        with torch.random.fork_rng():
            model.rnn = Layer(*sizes, batch_first=theirs.batch_first, dropout=theirs.dropout)
        model.rnn.load_state_dict(theirs.state_dict())
    loader = data.to_dataloader(train=True, batch_size=32, num_workers=0)
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = dict.fromkeys(quiet, False)
    trainer = pl.Trainer(max_steps=8 * steps, accelerator="cpu", gradient_clip_val=0.1, **options)
    begun = time.perf_counter()
    trainer.fit(model, train_dataloaders=loader)
    return model, time.perf_counter() - begun


PROGRAMS: dict[str, Callable[[bool, int], tuple[torch.nn.Module, float]]] = {
    "sb3-contrib RecurrentPPO": recurrent_ppo,
    "pytorch-forecasting DeepAR": deep_ar,
}


def apart(ours: torch.nn.Module, theirs: torch.nn.Module) -> float:
    both = [torch.nn.utils.parameters_to_vector(model.parameters()) for model in (ours, theirs)]
    return ((both[0] - both[1]).norm() / both[1].norm()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=8, help="how long each runs")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # what Lightning says of its trainer
    for name, run in PROGRAMS.items():
        seconds = {False: float("inf"), True: float("inf")}
        models = {}
        for _ in range(options.rounds):
            for ours in seconds:
                torch.manual_seed(0)
                models[ours], taken = run(ours, options.steps)
                seconds[ours] = min(seconds[ours], taken)
        ratio, distance = seconds[True] / seconds[False], apart(models[True], models[False])
        print(
            f"{name:<28} torch.nn {seconds[False]:6.2f} s   bptt.torch {seconds[True]:6.2f} s   "
            f"ratio {ratio:.2f}   weights apart {distance:.1e}"
        )


if __name__ == "__main__":
    main()
