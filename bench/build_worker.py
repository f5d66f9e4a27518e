"""One turn of one installation of `bptt`: ``python build_worker.py FOLDER < REQUEST > ANSWER``.

`bench.builds` starts it. The request is a pickled dict with a problem's arrays, answered with the
outputs and the seconds of the fastest call, or an empty dict, answered with what the build is. It
keeps to what every commit of the package understands, and imports nothing of `bench`.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from typing import Any

__all__: list[str] = []


def import_from(folder: str) -> Any:
    """The `bptt` of this folder, also where an editable installation would come first."""
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, PathFinder]
    sys.path[0] = folder
    import bptt

    found = os.path.dirname(os.path.dirname(os.path.abspath(bptt.__file__)))
    if not os.path.samefile(found, folder):
        sys.exit(f"expected bptt in {folder}, found it in {found}")
    return bptt


def describe(bptt: Any, folder: str) -> dict[str, Any]:
    """Version and instruction set. Loads Numba too, so it is not for every turn."""
    native = bptt.backends()["native"]
    if not native.available:
        sys.exit(f"{folder}: its native backend is not available: {native.reason}")
    return {"version": bptt.__version__, "isa": bptt.info().isa}


def prepare(bptt: Any, p: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Forward and backward into the arrays of the call before; y and the gradients by name."""
    bptt.set_num_threads(p["threads"])
    params = bptt.Params(**p["params"])
    state = p["state"] if len(p["state"]) > 1 else p["state"][0]
    inputs = (p["cell"], params, p["x"], state)
    tape = bptt.forward(*inputs, backend="native")
    grads = tape.backward(p["dy"])

    def call() -> dict[str, Any]:
        bptt.forward(*inputs, backend="native", out=tape)
        tape.backward(p["dy"], out=grads)
        states = grads.state if isinstance(grads.state, tuple) else (grads.state,)
        names = ("w_ih", "w_hh", "b_ih", "b_hh", "x")
        gradients = {name: getattr(grads, name) for name in names}
        return {"y": tape.y, **gradients, **dict(zip(("state", "c"), states, strict=False))}

    return call


def fastest(call: Callable[[], object], min_time: float) -> float:
    """Seconds of the fastest of the calls that `min_time` has room for, after an untimed one."""
    call()
    found: list[float] = []
    while sum(found) < min_time:
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return min(found)


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    request = pickle.load(sys.stdin.buffer)
    bptt = import_from(sys.argv[1])
    if request:
        call = prepare(bptt, request)
        answer = {"outputs": call(), "seconds": fastest(call, request["min_time"])}
    else:
        answer = describe(bptt, sys.argv[1])
    pickle.dump(answer, answers)


if __name__ == "__main__":
    main()
