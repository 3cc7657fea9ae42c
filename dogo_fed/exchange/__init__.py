"""The interface between the engine and what carries distributions: publish, collect, close."""
