"""Destinations of the change stream, one folder each; they import only the model and the contracts of ``cdc``."""
