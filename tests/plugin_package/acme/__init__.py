"""A package of somebody else, which brings a method, a model, data, a metric and a benchmark."""
