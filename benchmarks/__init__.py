"""Speed and memory against what people use: ``python -m benchmarks``."""
