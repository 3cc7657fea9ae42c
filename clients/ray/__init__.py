"""Ray actors for peers, and the room that a Ray cluster has for them."""
