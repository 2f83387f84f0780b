"""Methods that make one image of two."""
