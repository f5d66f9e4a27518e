"""Tries an installed wheel: a gradient by the compiled kernels, and the handlers for JAX."""

import bptt
import numpy as np

x = np.random.default_rng(0).standard_normal((9, 3, 2)).astype("float32")
params = bptt.init_params("lstm", input_size=2, hidden_size=9, output_size=4, rng=0)
(loss, grads), (expected_loss, expected) = (
    bptt.value_and_grad(
        "lstm", params, x, np.arange(3), loss="cross_entropy", at="last", backend=backend
    )
    for backend in ("native", "numpy")
)
assert abs(loss - expected_loss) < 1e-5, (loss, expected_loss)
assert grads.w_hh.any()
assert np.allclose(grads.w_hh, expected.w_hh, atol=1e-5)

found = bptt.info()
assert found.jax, "no handlers for JAX"
print(f"Python {found.python}, NumPy {found.numpy}: the gradient is that of the reference")
print(f"  {found.isa}, {found.compiler}, handlers of XLA's interface {found.jax}; {bptt.__file__}")
