"""The Hydra tree, and the way from it to a checked `RunConfig`."""
