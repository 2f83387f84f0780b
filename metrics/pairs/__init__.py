"""Metrics that compare each output with one image or one caption."""
