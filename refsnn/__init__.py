"""refsnn: the reference implementation of SpikingBERT in NumPy and SciPy."""

from ._version import __version__

__all__ = ["__version__"]
