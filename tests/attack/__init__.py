"""Attacks on a live coordinator, and what becomes of the run: `make attack` prints the table."""
