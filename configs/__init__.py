"""The Hydra tree of YAML files, and the code that reads it into a checked `RunConfig`."""
