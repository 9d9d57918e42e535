"""What calls itself something else than a plain CT is named, and an ordinary series is not."""

import pytest

from oarlock.ct.derived import derived_kinds, derived_notice

NAMED = {
    "VMI": "a virtual monoenergetic image",
    "MONO+ 40 keV": "a virtual monoenergetic image",
    "MONOENERGETIC_PLUS": "a virtual monoenergetic image",
    "IODINE": "an iodine map",
    "VNC": "a virtual non-contrast image",
    "MAT_SPECIFIC": "a map of one material",
    "EFF_ATOMIC_NUM": "a map of effective atomic numbers",
    "ELECTRON_DENSITY": "a map of electron densities",
    "MIP": "an intensity projection",
    "MinIP": "an intensity projection",
    "AVERAGE": "an average of phases",
    "4D AVG": "an average of phases",
    "SUBTRACTION": "a subtraction",
    "CBF": "a perfusion map",
    "MR synthetic CT": "a synthetic CT",
    "CBCT": "a cone beam CT",
    "MVCT": "a megavoltage CT",
    "VMI70": "a virtual monoenergetic image",
    "Mono70": "a virtual monoenergetic image",
    "I-Map": "an iodine map",
    "Virtual Unenhanced": "a virtual non-contrast image",
    "Calcium suppressed index 25": "a map of one material",
    "Z effective": "a map of effective atomic numbers",
    "RhoE": "a map of electron densities",
    "meanIP": "an intensity projection",
    "DSA neck": "a subtraction",
    "O-arm spin": "a cone beam CT",
    "CT warped to plan": "a deformed CT",
}


@pytest.mark.parametrize("word", NAMED)
def test_a_word_of_its_own_names_it(word: str) -> None:
    assert derived_kinds([word]) == [NAMED[word]]


@pytest.mark.parametrize(
    "words",
    [
        ["ORIGINAL", "PRIMARY", "AXIAL"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"],
        ["DERIVED", "SECONDARY", "AXIAL", "MPR", "RESAMPLED"],
        ["Head and Neck 2.0 Br38", "HN mit KM", "Vertex to carina", "Mandible", "Monaco export", "RT MEDIASTINUM"],
        ["MONOPHASIC HN", "MONOLITH", "CONTRAST HN", "Neck 2.0 Br40 iMAR", "Dual Energy 0.5 mixed", "4D 50 %"],
        ["THORAX AVEO", "RHOMBENCEPHALON", "WATERLOO"],
    ],
)
def test_an_ordinary_series_is_not_named(words: list[str]) -> None:
    assert derived_kinds(words, device="SIEMENS SOMATOM go.Open Pro", kv=120) == []
    assert derived_notice([]) == []


@pytest.mark.parametrize(
    ("told", "kinds"),
    [
        ("mean error of the compression 0.1", []),
        ("Ave Maria hospital, average beam hardening", []),
        ("filtered back projection", []),
        ("interpolation of projection data", []),
        ("average of 10 phases", ["an average of phases"]),
        ("Mean of 4D-CT", ["an average of phases"]),
        ("respiratory AVG", ["an average of phases"]),
        ("maximum intensity projection", ["an intensity projection"]),
    ],
)
def test_how_an_image_was_derived_tells_of_an_average_of_phases_only_beside_phases(told: str, kinds: list[str]) -> None:
    assert derived_kinds(["ORIGINAL"], derivations=[told]) == kinds


@pytest.mark.parametrize(
    ("device", "kv", "kinds"),
    [
        ("Varian Medical Systems On-Board Imager", 100, ["a cone beam CT"]),
        ("ELEKTA XVI", None, ["a cone beam CT"]),
        ("TomoTherapy Incorporated Hi-Art", None, ["a megavoltage CT"]),
        ("SIEMENS", 3500, ["a megavoltage CT"]),
        ("SIEMENS", 500, ["a megavoltage CT"]),
        ("SIEMENS", 499, []),
    ],
)
def test_the_device_and_its_voltage_count_too(device: str, kv: float | None, kinds: list[str]) -> None:
    assert derived_kinds(["ORIGINAL"], device=device, kv=kv) == kinds


def test_a_multi_energy_acquisition_is_named_if_nothing_else_is() -> None:
    assert derived_kinds(["ORIGINAL"], multi_energy=True) == ["an image of a multi-energy acquisition"]
    assert derived_kinds(["VNC"], multi_energy=True) == ["a virtual non-contrast image"]
