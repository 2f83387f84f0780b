"""Metrics of the frames along a path between two latents."""
