"""Copies a model as the object that it is, with all that hangs on it."""
