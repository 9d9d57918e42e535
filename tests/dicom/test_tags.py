"""The table of tags is the standard's."""

import pytest
from pydicom.datadict import keyword_for_tag

from oarlock.dicom.tags import Tag


@pytest.mark.parametrize("tag", Tag, ids=lambda tag: tag.name)
def test_a_name_is_the_keyword_of_its_element(tag: Tag) -> None:
    assert tag.name.replace("_", "").lower() == keyword_for_tag(tag).lower()
