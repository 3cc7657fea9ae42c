"""Benchmarks: figures with the command, the machine and the date that belong to them."""
