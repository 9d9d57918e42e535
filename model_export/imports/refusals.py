"""Why something that others made cannot be taken over."""


class CannotImport(Exception):
    """The text names what is not supported or does not fit."""
