"""``bptt demo``: train small networks and see how far back their gradients reach."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

from .measure import measure_loss_steps, measure_moment
from .network import Network
from .options import TRAINING, add_common_options, backends_used, open_folder, require
from .results import Results
from .run import Run
from .tasks import TASKS, Task
from .training import train

DEFAULT_FOLDER = "bptt-demo"


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    parser = commands.add_parser(
        "demo",
        help="train small networks and see how their gradients fade",
        description="Trains small recurrent networks and writes a report of how their gradients "
        "depend on the distance in time: parameters, results.json, figures and report.html. On two "
        "cores that do nothing else it takes about half a minute, and the adding problem three "
        "times as long.",
    )
    parser.add_argument(
        "--task",
        choices=tuple(TASKS),
        default="digits",
        help="digits: linear, tanh, GRU and LSTM networks on scikit-learn's digits, each image a "
        "sequence of 64 pixels (the default); adding: tanh, GRU and LSTM on the adding problem of "
        "Hochreiter & Schmidhuber, over 50, 100 and 200 steps",
    )
    parser.add_argument("--quick", action="store_true", help="train a tenth as long")
    add_common_options(parser, DEFAULT_FOLDER, "demo")
    parser.set_defaults(run=run)


def file_names() -> list[str]:
    """Every file that the demo writes of any task, relative to its folder."""
    from .reports import DEMOS

    networks = [network for task in TASKS.values() for network in task().networks()]
    reports = [name for report in DEMOS.values() for name in report.files()]
    return [*reports, *(_params_file(network) for network in networks)]


def _params_file(network: Network) -> str:
    return f"params/{network.name}.npz"


def run(args: argparse.Namespace) -> int:
    """Check everything that can fail, train, measure, write. Exit code 130 if interrupted."""
    task = TASKS[args.task].make(seed=args.seed, backend=args.backend, quick=args.quick)
    used = backends_used(args.backend, task.cells)
    require(TRAINING)
    from .reports import DEMOS, conclude

    folder = open_folder(args.out, force=args.force, names=file_names(), default=DEFAULT_FOLDER)
    networks = task.networks()
    results = Results(task, used, {}, len(networks))
    current = Run(results, folder)
    with current.listen():
        results.data = task.describe()
        work = partial(_train_and_measure, task, current)
        current.each(networks, work, len(networks) * task.training_steps)
        return conclude(DEMOS[args.task], current, task.summary(results.networks))


def _train_and_measure(task: Task, run: Run, network: Network) -> str:
    """Train it, and measure its gradients before and after; the line that is printed of it."""
    began = time.perf_counter()
    task.prepare(network)
    network.before = measure_moment(network, task.backend)
    if task.loss_steps:
        network.by_loss_step = measure_loss_steps(network, task.loss_steps, task.backend)
    train(network, task, run, monitored=task.follows_reach, evaluated=True)
    network.after = measure_moment(network, task.backend)
    network.seconds = time.perf_counter() - began
    network.params_file = _params_file(network)
    network.params.save(run.folder / network.params_file, cell=network.cell)
    course, line = (network.course, f"{network.title:<19}{network.parameters} parameters   ")
    line += f"loss {course.recent_loss(task.steps_per_evaluation):<8.3g} "
    for name, values in course.held_out.items():
        line += f"{name.replace('_', ' ')} {values[0]:.2g} -> {values[-1]:<8.2g} "
    return line + f"{course.steps:4d} steps in {network.seconds:.1f} s"
