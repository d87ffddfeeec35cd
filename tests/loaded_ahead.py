"""A library that a fork server loads: it reads its threads as it is imported, as OpenMP does."""

import os

LOADED_BY = os.getpid()
THREADS = os.environ.get("OMP_NUM_THREADS")
