"""A whole run: checked settings, a folder on disk, a host for the peers, and the report at the end."""
