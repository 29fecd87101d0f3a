"""The command line: its commands and their options, and how they load models and speak.

`commands` is where to begin; it may import from every room, and no room imports from here.
"""
