"""Metrics: one file and one yaml each.

`features`, `pairwise`, `readings` and `published` hold what several share.
"""
