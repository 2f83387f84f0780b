"""Data sets: procedural faces with known factors, and folders of images."""
