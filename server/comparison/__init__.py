"""Runs the cells of a comparison, each in a process or in a Ray task."""
