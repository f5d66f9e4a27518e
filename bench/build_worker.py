"""One turn of one installation of `bptt`: ``python build_worker.py FOLDER < REQUEST > ANSWER``.

`bench.builds` starts it. The request is a pickled dict with a problem's arrays, answered with the
outputs and the seconds of the fastest call. It keeps to what every commit of the package
understands, and imports nothing of `bench`.
"""

import os
import pickle
import sys
import time
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from typing import Any


def import_from(folder: str) -> Any:
    """The `bptt` of this folder, also where an editable installation would come first."""
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter, PathFinder]
    sys.path[0] = folder
    import bptt

    found = os.path.dirname(os.path.dirname(os.path.abspath(bptt.__file__)))
    if not os.path.samefile(found, folder):
        sys.exit(f"expected bptt in {folder}, found it in {found}")
    return bptt


def take_turn(bptt: Any, p: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Forward and backward into the arrays of the call before: y and the gradients by name; seconds
    of the fastest of the calls that `min_time` has room for, after two that are not timed."""
    bptt.set_num_threads(p["threads"])
    state = p["state"] if len(p["state"]) > 1 else p["state"][0]
    inputs = (p["cell"], bptt.Params(**p["params"]), p["x"], state)
    tape: Any = None
    grads: Any = None
    found: list[float] = []
    while len(found) < 3 or sum(found[2:]) < p["min_time"]:
        begun = time.perf_counter()
        tape = bptt.forward(*inputs, backend="native", out=tape)
        grads = tape.backward(p["dy"], out=grads)
        found.append(time.perf_counter() - begun)
    states = grads.state if isinstance(grads.state, tuple) else (grads.state,)
    outputs = {name: getattr(grads, name) for name in ("w_ih", "w_hh", "b_ih", "b_hh", "x")}
    outputs.update(zip(("y", "state", "c"), (tape.y, *states), strict=False))
    return outputs, min(found[2:])


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    request = pickle.load(sys.stdin.buffer)
    pickle.dump(take_turn(import_from(sys.argv[1]), request), answers)
