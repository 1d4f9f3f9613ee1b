"""Experiments: one method or several on the same data, searched, evaluated and reported.

What the command line and the Python API are made of. Nothing is imported before it is used, so
that a mistake in the settings is said before PyTorch has been loaded.
"""
