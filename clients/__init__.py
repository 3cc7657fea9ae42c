"""The peer's side: hosts one peer in a process or a Ray actor, and speaks to the coordinator."""
