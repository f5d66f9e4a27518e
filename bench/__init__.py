"""Benchmarks of `bptt` against PyTorch, JAX and its own other backends: ``python -m bench``.

Nothing heavy is imported here: the number of threads must be in the environment before NumPy,
PyTorch or JAX are loaded (`bench.options`).
"""
