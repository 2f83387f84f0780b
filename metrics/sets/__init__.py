"""Metrics that compare a set of outputs with a set of real images."""
