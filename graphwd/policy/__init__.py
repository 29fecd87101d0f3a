"""What a user asks for: rules that select weights, policies that order them, their files, recipes.

It knows no model, and imports neither Keras (but to serialize a regularizer of it) nor HDF5 nor
networkx.
"""
