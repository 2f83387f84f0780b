"""The protocols: one file each, each with its yaml in conf/benchmark."""
