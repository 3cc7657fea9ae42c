"""A whole run: checks, a folder on disk, a host for the peers, and the report at the end."""
