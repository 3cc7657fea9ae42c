"""What a run shows while it trains and what it leaves behind.

Import from the modules: a peer's process needs the log file and the sinks' protocol, and no picture.
"""
