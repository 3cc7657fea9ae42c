"""The coordinator's brain: pure state machines without a network; the clock is always an argument."""
