"""Arrays of ours begin on a cache line; where a caller's do not, the bits are the same."""

import bptt
import numpy as np
import pytest
from bptt.backends import aligned

STEPS, BATCH, SIZE = 40, 16, 32  # rows of whole vectors, arrays above what is left to NumPy


def at_byte(offset: int, array: np.ndarray) -> np.ndarray:
    """A copy that begins so many bytes behind a cache line."""
    room = aligned.empty((array.nbytes + 64,), np.dtype(np.uint8))
    copy = np.ndarray(array.shape, array.dtype, room, offset)
    copy[...] = array
    return copy


@pytest.mark.parametrize("shape", [(0, 3), (5,), (4096,), (40, 16, 33)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_empty_array_is_as_numpys_and_begins_on_a_line(
    shape: tuple[int, ...], dtype: str
) -> None:
    array = aligned.empty(shape, np.dtype(dtype))
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    if array.nbytes >= 1 << 14:
        assert array.ctypes.data % 64 == 0


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("core")
def test_results_begin_on_a_line_and_misaligned_input_changes_no_bit(cell: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    params = bptt.init_params(cell, input_size=SIZE, hidden_size=SIZE, rng=3, dtype=dtype)
    x, dy = rng.standard_normal((2, STEPS, BATCH, SIZE)).astype(dtype)
    results = []
    for offset in (0, x.itemsize, 16):
        tape = bptt.forward(cell, params, at_byte(offset, x), backend="native")
        grads = tape.backward(at_byte(offset, dy))
        assert tape.y.ctypes.data % 64 == 0
        assert grads.x.ctypes.data % 64 == 0
        results.append((tape.y, grads.x, *grads.arrays().values()))
    for arrays in results[1:]:
        for one, other in zip(results[0], arrays, strict=True):
            assert one.tobytes() == other.tobytes()
