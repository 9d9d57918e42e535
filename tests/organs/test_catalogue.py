"""The codes of the organs are those of the standard, and their names fit what planning systems accept."""

from dataclasses import dataclass

import pytest
from pydicom.sr._concepts_dict import concepts

from oarlock.organs.catalogue import BY_NAME, OARS
from oarlock.organs.roi_names import match_rois

RADIOTHERAPY = 9514
"""CID 9514, Anatomical Structure for Radiotherapy (PS3.16)."""

MEANINGS: dict[str, dict[str, list[int]]] = {}
"""SNOMED CT code to its meanings in PS3.16 and the context groups that hold each, from pydicom's copy of the standard."""
for _entries in concepts["SCT"].values():
    for _code, (_meaning, _groups) in _entries.items():
        MEANINGS.setdefault(_code, {})[_meaning.lower()] = _groups


def test_every_code_is_the_organs_own_in_the_standard_but_for_the_cochlea() -> None:
    missing = {oar.name for oar in OARS if oar.snomed_code not in MEANINGS}
    assert missing == {"Cochlea_L", "Cochlea_R"}
    for oar in OARS:
        if oar.name not in missing:
            words = set(oar.snomed_meaning.lower().replace("brainstem", "brain stem").split()) - {"of"}
            assert any(words <= set(meaning.split()) for meaning in MEANINGS[oar.snomed_code]), oar.name


def test_no_other_code_is_wanted_where_the_context_group_for_radiotherapy_lists_the_organ() -> None:
    listed = {oar.name for oar in OARS if any(RADIOTHERAPY in groups for groups in MEANINGS.get(oar.snomed_code, {}).values())}
    outside = {name.removesuffix("_L").removesuffix("_R") for name in BY_NAME.keys() - listed}
    assert outside == {"Cochlea", "Glnd_Lacrimal", "Lens", "OpticNrv", "SpinalCanal"}
    in_group = {meaning for meanings in MEANINGS.values() for meaning, groups in meanings.items() if RADIOTHERAPY in groups}
    assert in_group.isdisjoint(
        {"cochlea", "lacrimal gland", "lens", "lens of eye", "optic nerve", "spinal canal", "vertebral canal"}
    )


@dataclass(frozen=True)
class Entry:
    number: int
    name: str
    codes: tuple[tuple[str, str, str], ...]


@pytest.mark.parametrize("code", ["54019009", "385296007"])
def test_both_codes_of_the_submandibular_gland_are_read(code: str) -> None:
    """The one of CID 9514, which is written, and the one that public maps of TG-263 name."""
    entry = Entry(1, "Kontur", ((code, "SCT", ""), ("24028007", "SCT", "Right")))
    assert match_rois([entry]).matched == {BY_NAME["Glnd_Submand_R"]: entry}
    assert BY_NAME["Glnd_Submand_R"].snomed_code == "54019009"


def test_the_oars_fit_what_planning_systems_accept() -> None:
    assert len(OARS) == 21
    assert len({oar.name for oar in OARS}) == len({oar.colour for oar in OARS}) == 21
    assert all(len(oar.name) <= 16 and oar.name.isascii() for oar in OARS)
