"""The peer's side: runs one peer in a process or a Ray actor, and talks to the coordinator."""
