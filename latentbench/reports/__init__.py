"""Everything that people look at, made from records alone."""
