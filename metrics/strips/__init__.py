"""Metrics of wide pictures: what the things in a row share, and what is each one's own."""
