"""Disturbs real runs at random moments, many times, and says what they lost by it."""
