"""latentbench: the library that methods, metrics and benchmarks import."""

__version__ = "0.1.0"
