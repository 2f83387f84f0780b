"""Metrics: one file and one yaml each, in folders by what they compare.

`networks` holds what images are looked at through, `jackknife` what figures of sets share.
"""
