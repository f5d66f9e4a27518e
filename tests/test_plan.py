"""`plan` says what the native backend does: its sizes, its split, and the scratch it takes."""

from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import replace

import bptt
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    not bptt.backends()["native"].available, reason="native is not available"
)


def test_plan_says_that_its_rates_are_nominal() -> None:
    *_, times = str(bptt.plan("tanh", 100, 8, 16, 32)).partition("times")
    assert "nominal rates" in times.splitlines()[0]
    assert re.search(r"^  total +[\d.e-]+ ms$", times, re.M)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_plan_shows_the_measured_peaks_beside_the_nominal_one(dtype: str) -> None:
    plan = bptt.plan("tanh", 100, 8, 16, 32, dtype, threads=2)
    assert plan.fma_peak > 0
    assert plan.fma_peak_loads > 0
    assert plan.seconds["arithmetic"] == pytest.approx(
        plan.flops / plan.nominal_peak / plan.threads / 1e9
    )
    shown = f"{plan.fma_peak:.0f} GF/s a thread, {plan.fma_peak_loads:.0f} with loads; "
    assert re.search(rf"^FMA peak +{shown}{plan.nominal_peak:.0f} nominal$", str(plan), re.M)
    if dtype == "float32":
        info = bptt.info()
        assert (info.fma_peak, info.fma_peak_loads) == (plan.fma_peak, plan.fma_peak_loads)


def test_plan_tells_flops_and_bytes_of_the_shape() -> None:
    plan = bptt.plan("tanh", 100, 8, 16, 32, "float32", threads=2)
    assert plan.flops == 6 * 100 * 8 * 32 * (16 + 32)
    assert plan.nbytes == 100 * 8 * (3 * 16 + 3 * 32) * 4
    assert plan.saved_nbytes == 100 * 8 * 32 * 4
    with_readout = bptt.plan("tanh", 100, 8, 16, 32, output_size=10)
    assert with_readout.flops == 6 * 100 * 8 * 32 * (16 + 32 + 10)


def test_float64_takes_twice_the_bytes_and_the_arithmetic_time() -> None:
    single, double = (bptt.plan("relu", 50, 4, 64, 64, d, threads=1) for d in ("f4", "f8"))
    assert double.nbytes == 2 * single.nbytes
    assert double.seconds["arithmetic"] == 2 * single.seconds["arithmetic"]
    assert double.dtype == "float64"


@pytest.mark.parametrize(
    ("shape", "split"),  # a pipeline depends on the machine, too: tests/cpp/test_plan.cpp
    [
        ((100, 64, 128, 128), "slices"),
        ((100, 1, 512, 512), "hidden"),
    ],
)
def test_split_follows_the_shape(shape: tuple[int, int, int, int], split: str) -> None:
    plan = bptt.plan("tanh", *shape, threads=2)
    assert (plan.threads, plan.split) == (2, split)


def test_one_thread_is_not_split_and_exchanges_nothing() -> None:
    plan = bptt.plan("tanh", 100, 64, 128, 128, threads=1)
    assert plan.threads == 1
    assert plan.seconds["exchange"] == 0
    parts = plan.seconds["recurrence"] + plan.seconds["products"]
    assert plan.seconds["total"] == pytest.approx(parts)


def test_predicted_time_is_no_less_than_the_arithmetic() -> None:
    for sizes in [(1, 1, 1, 1), (10, 3, 7, 33), (100, 64, 128, 128), (1000, 1, 256, 256)]:
        seconds = bptt.plan("tanh", *sizes, threads=2).seconds
        assert seconds["total"] >= seconds["arithmetic"]


def test_scratch_does_not_grow_with_the_sequence_but_for_the_saved_states() -> None:
    short, long = (bptt.plan("tanh", t, 32, 64, 128, threads=2) for t in (1000, 100_000))
    assert short.scratch_nbytes == long.scratch_nbytes
    short, long = (
        bptt.plan("tanh", t, 32, 64, 128, output_size=10, threads=2) for t in (1000, 100_000)
    )
    states = long.saved_nbytes - short.saved_nbytes
    assert long.scratch_nbytes - short.scratch_nbytes == states


def test_slices_of_the_batch_take_a_bounded_scratch() -> None:
    for batch in (64, 4096):
        for outputs in (1, 10_000):
            plan = bptt.plan("tanh", 10, batch, 32, 64, output_size=outputs, threads=2)
            row = (2 * 32 + 8 * 64 + 3 * outputs) * 4
            rows = max(batch, 2048) + batch
            weights = 3 * 64 * (32 + 64 + outputs) * 4
            assert plan.scratch_nbytes <= plan.saved_nbytes + rows * row + weights + (16 << 20)


def test_empty_problems_have_a_plan() -> None:
    assert bptt.plan("tanh", 0, 4, 3, 5).flops == 0
    assert bptt.plan("tanh", 4, 0, 3, 5).flops == 0


def test_plan_prints_as_a_table_and_is_plain_data() -> None:
    plan = bptt.plan("linear", 10, 2, 3, 4, output_size=5, threads=1)
    text = str(plan)
    for part in ("value_and_grad", "T=10 B=2 I=3 H=4 O=5", "scratch", "total", "MB"):
        assert part in text
    assert json.loads(json.dumps(plan.to_dict()))["seconds"] == plan.seconds


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        (("lstm2", 1, 1, 1, 1), {}, ValueError, "cell"),
        (("tanh", -1, 1, 1, 1), {}, ValueError, "steps"),
        (("tanh", 1, 1.5, 1, 1), {}, TypeError, "batch"),
        (("tanh", 1, 1, 0, 1), {}, ValueError, "input_size"),
        (("tanh", 1, 1, 1, "8"), {}, TypeError, "hidden_size"),
        (("tanh", 1, 1, 1, 1, "int32"), {}, TypeError, "dtype"),
        (("tanh", 1, 1, 1, 1, np.float16), {}, TypeError, "float16"),
        (("tanh", 1, 1, 1, 1), {"output_size": 0}, ValueError, "output_size"),
        (("tanh", 1, 1, 1, 1), {"threads": 0}, ValueError, "threads"),
        (("tanh", 1, 1, 1, 1), {"threads": 10**6}, ValueError, "threads"),
        (("tanh", 2**62, 4, 1, 1), {}, ValueError, "sizes"),
        (("tanh", 1, 1, 2**40, 2**40), {}, ValueError, "sizes"),
    ],
)
def test_bad_sizes_are_named(
    arguments: tuple[object, ...],
    options: dict[str, object],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        bptt.plan(*arguments, **options)  # type: ignore[arg-type]


def test_the_plan_of_several_lengths_is_that_of_their_sum() -> None:
    lengths = [100, 3, 0, 57, 100, 40]
    plan = bptt.plan("lstm", 120, 6, 16, 32, output_size=4, lengths=lengths)
    assert (plan.steps, plan.rows) == (100, 300)
    assert plan.flops == 6 * 300 * 32 * (4 * (16 + 32) + 4)
    assert plan.saved_nbytes == 300 * 32 * 4 * (2 + 4)
    assert "N=300" in str(plan)
    padded = bptt.plan("lstm", 100, 6, 16, 32, output_size=4)
    assert plan.nbytes == padded.nbytes / 2
    assert plan.seconds["arithmetic"] < padded.seconds["arithmetic"]
    assert plan.scratch_nbytes < padded.scratch_nbytes
    equal = bptt.plan("lstm", 120, 6, 16, 32, output_size=4, lengths=[100] * 6)
    assert replace(equal, scratch_nbytes=padded.scratch_nbytes) == padded
    assert equal.scratch_nbytes > padded.scratch_nbytes  # copies of a block of x


def test_a_limit_of_several_lengths_is_kept_and_the_call_does_as_planned() -> None:
    lengths = np.arange(40)[::-1] * 100
    of = {"output_size": 10, "lengths": lengths}
    plan = bptt.plan("lstm", 3900, 40, 16, 32, **of, memory_limit=45 << 20)
    assert plan.scratch_nbytes <= 45 << 20
    assert 0 < plan.segment_steps < 3900
    with pytest.raises(ValueError, match="memory_limit: expected at least") as error:
        bptt.plan("lstm", 3900, 40, 16, 32, **of, memory_limit=1)
    least = int(str(error.value).split("at least ")[1].split()[0])
    params = bptt.init_params("lstm", input_size=16, hidden_size=32, output_size=10, rng=0)
    x = np.broadcast_to(np.float32(0), (3900, 40, 16))
    ids = np.zeros((3900, 40), int)
    how = {"loss": "cross_entropy", "at": "all", "lengths": lengths}
    with pytest.raises(ValueError, match="memory_limit: expected at least") as error:
        bptt.value_and_grad("lstm", params, x, ids, **how, memory_limit=1)
    assert int(str(error.value).split("at least ")[1].split()[0]) == least


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2], r"lengths: expected shape \(3,\)"),
        ([1, 2, 11], "lengths: expected"),
        ([1.0, 2.0, 3.0], "lengths: expected"),
    ],
)
def test_lengths_that_are_none_are_refused(lengths: list, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        bptt.plan("gru", 10, 3, 4, 5, lengths=lengths)


def test_the_plan_of_very_many_rows_makes_none_of_them() -> None:
    lengths = np.full(100_000, 99)
    tracemalloc.start()
    try:
        plan = bptt.plan(
            "gru", 100, 100_000, 4, 8, output_size=2, lengths=lengths, memory_limit=1 << 40
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert plan.rows == 9_900_000
    assert peak < plan.rows  # less than a byte of each
