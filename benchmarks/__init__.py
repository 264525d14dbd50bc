"""Speed and memory: kernels/ by pytest-benchmark, whole runs in system/ by scripts, what both came to in results/."""
