"""Flower for the unit tests of this folder."""

from tests.support.flower_identity import flower_identity

__all__ = ["flower_identity"]
