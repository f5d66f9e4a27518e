"""One installation of `bptt` in a process of its own: ``python build_worker.py FOLDER``.

`bench.builds` starts it and writes requests to its standard input, pickled: a problem's arrays,
which it answers with the outputs, or a number of seconds, which it answers with the fastest call.
It keeps to what every commit of the package understands, and imports nothing of `bench`.
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
        raise ImportError(f"expected bptt in {folder}, found it in {found}")
    native = bptt.backends()["native"]
    if not native.available:
        raise ImportError(f"its native backend is not available: {native.reason}")
    return bptt


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


def seconds(call: Callable[[], object], min_time: float) -> float:
    """The fastest of the calls that `min_time` has room for, after one that is not timed."""
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

    def answer(kind: str, value: Any) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    try:
        bptt = import_from(sys.argv[1])
        answer("ok", bptt.info().isa)
        call: Callable[[], dict[str, Any]] = dict
        while True:
            request = pickle.load(sys.stdin.buffer)
            if isinstance(request, float):
                answer("ok", seconds(call, request))
            else:
                call = prepare(bptt, request)
                answer("ok", call())
    except EOFError:
        pass
    except Exception as error:  # whatever it is, it is for whoever asked to report
        answer("failed", f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
