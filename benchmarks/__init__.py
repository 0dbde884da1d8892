"""Side-by-side timings: one module a question, `python -m benchmarks` for all of them."""
