"""Merge exposure brackets into HDR images and video."""

__version__ = "0.1.0"
