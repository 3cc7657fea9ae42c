"""The tests: properties, not coverage."""
