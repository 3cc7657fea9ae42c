"""Runs the cells of a comparison, in processes or as Ray tasks."""
