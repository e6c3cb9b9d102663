"""How fast `predict` is beside `extract`, and what exported programs are worth: python -m benchmarks.predict."""
