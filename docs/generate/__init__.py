"""What `make docs` writes: a page for each method, metric, benchmark and model."""
