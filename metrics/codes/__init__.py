"""Metrics of latent codes: what they know, how they spread, how two spaces compare."""
