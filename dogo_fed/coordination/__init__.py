"""The coordinator as pure state machines: no network, and the time is always an argument."""
