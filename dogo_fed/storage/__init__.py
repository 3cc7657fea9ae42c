"""What is on disk: the run folder, each peer's part of it, and checkpoints."""
