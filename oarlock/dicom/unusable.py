"""The one exception that says why a file, or a part of it, cannot be used."""


class Unusable(Exception):
    """Why bytes from outside cannot be used; the argument is a reason in words, without any of those bytes."""
