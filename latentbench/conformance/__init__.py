"""Laws that every method keeps, and the toy models and data on which they are checked."""
