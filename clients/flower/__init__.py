"""Flower's ClientApp, and the processes and actors that host a peer behind it."""
