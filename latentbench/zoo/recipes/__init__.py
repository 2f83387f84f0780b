"""Recipes that train the embedded models and judges: one file per family."""
