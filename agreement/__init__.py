"""Cases of agreement with reference implementations, one file per kind of figure."""
