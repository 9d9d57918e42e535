"""Oarlock: draws 21 organs at risk on a head and neck planning CT, and says how good the drawing is."""

__version__ = "0.1.0"
