"""Methods that draw samples from a model."""
