"""What runs as MPI ranks: one module a benchmark, started by :func:`benchmarks.jobs.launch`."""
