"""One module per kind of page: each gives the pieces of its pages."""
