"""How the numbers of a distribution become bytes: one file for each encoding."""
