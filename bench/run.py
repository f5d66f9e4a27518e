"""Time bptt against PyTorch, JAX and its own other backends, in alternation: the forward pass and
all gradients of a recurrent layer. All cells at ten shapes take about twenty minutes. LIST is one
or more names, separated by commas.
"""

import importlib.util
import itertools
import runpy
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import bptt

from . import session
from .options import add_cases, choose, make_parser, names, parse
from .peers import Peer, all_peers, versions
from .problem import make_problem
from .timing import contest

_MORE = """Other measurements have a --help of their own: python -m bench builds, ladder, lags,
overhead. 'python -m bench report NAME' prints a results file again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison that the command line asks for; the exit status is `session.run`'s."""
    parser = _parser()
    options = parse(parser, arguments)
    if options.list:
        for case in options.case:
            gflop = case.flops(gates=1) / 1e9
            print(f"{case.family:<10} {case.name:<24} {gflop:10.4g} GFlop a gate")
        return 0
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit("bench: matplotlib is not installed (pip install 'bptt[bench]')")
    if (definitions := getattr(options, "import")) is not None:
        if not definitions.is_file():
            parser.error(f"--import: expected a Python file, got {definitions}")
        runpy.run_path(str(definitions))
    peers = choose(parser, "--peers", options.peers, all_peers())
    cells = choose(parser, "--cell", options.cell, bptt.CELLS)
    baseline = _baseline(peers, [*itertools.product(cells, options.dtype)])
    plan = [*itertools.product(options.dtype, cells, options.case)]
    if options.out is None:
        name = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{'-'.join(options.titles)}.json"
        options.out = Path(__file__).parent / "results" / name
    return session.run(
        options,
        (
            contest(make_problem(case, cell, dtype), peers.values(), options, baseline)
            for dtype, cell, case in plan
        ),
        titles=options.titles,
        versions=versions(*peers),
        count=len(plan),
        # Another way to call the baseline, as native-reuse is, is no other backend.
        own=[n for n, p in peers.items() if p.is_own and n.split("-")[0] != baseline],
        others=[name for name, peer in peers.items() if not peer.is_own],
    )


def _parser() -> ArgumentParser:
    parser = make_parser("", __doc__, rounds=(7, 7), min_time=(0.1, 0.01))
    parser.epilog = _MORE
    add_cases(parser)
    add = parser.add_argument
    add("--import", type=Path, metavar="FILE.py", help="run it first: it may define cells")
    add("--peers", type=names, default=(), metavar="LIST", help="default: all that are installed")
    add("--max-call", type=float, default=10.0, metavar="S", help="leave out slower peers (10)")
    add("--list", action="store_true", help="print the shapes and leave")
    return parser


def _baseline(peers: Mapping[str, Peer], work: Iterable[tuple[str, str]]) -> str | None:
    """The first of the package's backends that can do any of the work, each a cell and a dtype."""
    own = ((name, peer) for name, peer in peers.items() if peer.is_own and not peer.missing())
    able = (name for name, peer in own if any(not peer.refuses(*each) for each in work))
    return next(able, None)
