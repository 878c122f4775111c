"""The version of refsnn, read by the packaging and written into every artefact."""

__version__ = "0.1.0"
