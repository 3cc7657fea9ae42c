"""The pictures that are written as PNG: a run's curves, a protocol's scores, and what they share."""
