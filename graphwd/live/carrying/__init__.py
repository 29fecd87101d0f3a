"""The carrier: a layer of the user's class that keeps what no config of Keras's own expresses."""
