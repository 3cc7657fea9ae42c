"""The seam between the engine and whatever carries distributions: publish, collect, close."""
