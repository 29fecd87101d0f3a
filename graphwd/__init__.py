"""graphwd: weight decay for a Keras model that already exists."""
