"""Times on a GPU, for bench/device.sh: a line of JSON for each figure as soon as it is there.

    python -m bench.on_gpu cudnn      # PyTorch's own modules, with TF32 on and off
    python -m bench.on_gpu backend    # bptt.forward and Tape.backward, beside its plan

Both at T = 1024 and I = H, float32, with the products over all steps; the backend also with a
`precision`. Needs PyTorch. No GPU was
there when this was written.
"""

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import bptt

STEPS, HIDDEN, BATCHES = 1024, (64, 128, 256, 512, 1024), (1, 16, 64)
CELLS = ("lstm", "gru")
PRECISIONS = (None, "tf32", "bfloat16")


def main(arguments: list[str]) -> int:
    found = {"cudnn": cudnn, "backend": backend}.get(arguments[0] if arguments else "")
    if found is None:
        print(__doc__)
        return 2
    try:
        import torch
    except ImportError:
        print("skipped: no PyTorch")
        return 0
    if not torch.cuda.is_available():
        print("PyTorch sees no GPU", file=sys.stderr)
        return 1
    for line in found(torch):
        print(json.dumps(line), flush=True)
    return 0


def cudnn(torch: Any) -> Iterator[dict[str, Any]]:
    peer = f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    for tf32, cell, hidden, batch in product((False, True), CELLS, HIDDEN, BATCHES):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
        module = getattr(torch.nn, cell.upper())(hidden, hidden).cuda()
        x = torch.randn(STEPS, batch, hidden, device="cuda", requires_grad=True)
        dy = torch.randn(STEPS, batch, hidden, device="cuda")

        def forward(module: Any = module, x: Any = x) -> Any:
            return module(x)[0]

        def both(forward: Callable[[], Any] = forward, dy: Any = dy) -> None:
            forward().backward(dy)

        ahead = least_ms(torch, forward)
        yield {"peer": peer, "tf32": tf32, **sizes(cell, batch, hidden)} | {
            "forward_us_a_step": 1e3 * ahead / STEPS,
            "backward_us_a_step": 1e3 * (least_ms(torch, both) - ahead) / STEPS,
        }


def backend(torch: Any) -> Iterator[dict[str, Any]]:
    yield {"backend": str(bptt.backends()["cuda"]), "torch": torch.__version__}
    for precision, cell, hidden, batch in product(PRECISIONS, CELLS, HIDDEN, BATCHES):
        drawn = bptt.init_params(cell, input_size=hidden, hidden_size=hidden, rng=0)
        arrays = drawn.arrays().items()
        params = bptt.Params(**{name: torch.tensor(a, device="cuda") for name, a in arrays})
        x = torch.randn(STEPS, batch, hidden, device="cuda")
        dy = torch.randn(STEPS, batch, hidden, device="cuda")
        run = partial(bptt.forward, cell, params, x, precision=precision)
        tape: Any = run()

        def backward(tape: Any = tape, dy: Any = dy) -> None:
            tape.backward(dy)

        sizes_of = (cell, STEPS, batch, hidden, hidden)
        plan = bptt.plan(*sizes_of, device="cuda", precision=precision).to_dict()
        chosen = (
            "precision",
            "device",
            "exchange",
            "blocks",
            "group_rows",
            "groups",
            "groups_at_once",
        )
        yield {**sizes(cell, batch, hidden), **{name: plan[name] for name in chosen}} | {
            "predicted_us_a_step": 1e6 * plan["seconds"]["total"] / STEPS,
            "forward_us_a_step": 1e3 * least_ms(torch, run) / STEPS,
            "backward_us_a_step": 1e3 * least_ms(torch, backward) / STEPS,
        }


def sizes(cell: str, batch: int, hidden: int) -> dict[str, Any]:
    return {"cell": cell, "T": STEPS, "B": batch, "H": hidden}


def least_ms(torch: Any, work: Callable[[], object]) -> float:
    """The least of some times; the first call, which warms up, is none of them."""
    found = []
    for _ in range(6):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return float(min(found[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
