"""A serialized model as data: its slots, its calls and tensors as a graph, equivalence of two.

It is pure: configs go in, and neither Keras nor HDF5 is imported.
"""
