"""Backbones: images to pooled features. Heads belong to the objectives."""
