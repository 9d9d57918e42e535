"""The exception that says why a file cannot be used.

A file or a part of it.
"""


class Unusable(Exception):
    """Why bytes from outside cannot be used.

    The argument is a reason in words, without any of those bytes.
    """
