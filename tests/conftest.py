"""One thread each for PyTorch and NumPy's BLAS: the matrices of these tests are small, and threads
that wait for each other take longer than the arithmetic."""

import os

# Read when NumPy is imported, so they come first; what is set already stays.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402

torch.set_num_threads(1)
