"""Models on disk: archives (.keras, .h5, folders) planned, rewritten and proved.

Neither Keras nor code from a file is run: zip and HDF5 are read as data, in bounded memory.
"""
