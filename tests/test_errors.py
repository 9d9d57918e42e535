"""The tree of errors: every leaf has a code of its own."""

import re

from oarlock import errors


def test_every_error_code_is_unique_and_belongs_to_its_branch() -> None:
    codes = [leaf.code for leaf in errors.leaves()]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", code) for code in codes)
    assert all(leaf.title for leaf in errors.leaves())
