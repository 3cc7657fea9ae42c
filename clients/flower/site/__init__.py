"""A site's own peer process, for Flower deployments."""
