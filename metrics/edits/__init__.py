"""Metrics of what an edit changed, and of what it should have left alone."""
