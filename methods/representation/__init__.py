"""Methods that read an image's code in a space of the model."""
