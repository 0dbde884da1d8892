"""Side-by-side timings: `python -m benchmarks` asks all questions of the CPU."""
