"""The ClientApp, and what hosts a peer behind it."""
