"""Peers in Ray actors."""
