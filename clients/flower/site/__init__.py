"""A site's own peer process, for Flower deployments: the model stays at the site."""
