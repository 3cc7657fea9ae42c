"""Inputs of the kinds that people bring, and what the command line makes of them."""
