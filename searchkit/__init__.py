"""What a segmentation network is, and how one is found.

Importing this package costs nothing: torch, pydantic and the rest are imported by the modules that need them, so that
`searchkit --help` answers at once.
"""

__version__ = "0.1.0"
