"""Runs every benchmark and renders what they measured: python -m benchmarks.report."""
