"""What `python -m benchmarks.gpu_check` runs, each part in a process of its own."""
