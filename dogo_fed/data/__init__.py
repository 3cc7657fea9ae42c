"""Images: where they come from, and the views that are made of them."""
