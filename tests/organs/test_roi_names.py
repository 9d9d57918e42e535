"""Names of ROIs as clinics write them.

``tests/fixtures/spellings.csv`` holds real spellings, each with the public source that it was read in: for the greater part the
ROI names of the VoxTox head and neck cohort (planning contours of Addenbrooke's Hospital). A row without an OAR is a margin, a
part, a copy or an optimiser's structure of the same sources. The tables in this file are further spellings: of TG-263, of other
languages, and of RTSTRUCTs that the shared folder holds.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oarlock.organs.catalogue import BY_NAME, OAR, OARS, Laterality, other_side
from oarlock.organs.roi_names import match_rois, oar_of_name
from tests.fixtures.real_data import Unpacked

SPELLINGS: dict[str, str] = {
    "Brain": """
        Brain | BRAIN | brain | Hirn | Gehirn | CERVEAU | Encéphale | Whole Brain | Encefalo
    """,
    "Brainstem": """
        B stem | b stem | B Stem | brain stem | Brain stem | Brain Stem | brainstem | Brainstem | BRAINSTEM |
        BrainStem | BRAINSTEM_ | bstem | Hirnstamm | Brain_Stem | TRONC CEREBRAL | TR CEREBRAL | TroncCerebral |
        Tronc_Cerebral | Stammhirn | tronc | Tronco encefalico
    """,
    "Cochlea_L": """
        Cochlea L | cochlea L | Cochlea left | Cochlea Lt | COCHLEA_L | L Cochlea | L cochlea | l cochlea | l cochlear
        | L cochlear | lcochlea | left cochlea | Left cochlea | lt cochlea | Lt Cochlea | Cochlea-Lt | Coclea li |
        Cochlée G | Cochlea_sin | Left Cochlea
    """,
    "Cochlea_R": """
        Cochlea R | Cochlea right | COCHLEA RIGHT | Cochlea Rt | COCHLEA_R | r cochlea | R cochlea | R Cochlea | r
        cochlear | R Cochlear | Rcochlea | right cochlea | right cochlea | rt cochlea | Rt Cochlea | Cochlea-Rt |
        Coclea re
    """,
    "Eye_L": """
        Eye Left | Eye Lt | EYE_L | L eye | l eye | L eye | LEFT EYE | Left eye | Lt Eye | lt eye | globe L | Globe
        left | Globe Lt | GLOBE_L | Globe-L | l globe | L GLobe | left globe | Lt Globe | LT GLOBE | L orbit |
        Orbit-Lt | Auge li. | Oeil gauche | Œil G | Globe_L | EyeBall_L | Bulbus links
    """,
    "Eye_R": """
        Eye Right | Eye Rt | EYE_R | r eye | R eye | RIGHT EYE | Right eye | Rt Eye | rt eye | globe R | Globe right |
        Globe Rt | GLOBE_R | Globe-R | R globe | right globe | RT GLOBE | Rt Globe | Orbit-Rt | Auge re. | OEIL DRT |
        Œil droit | Right_Orbit
    """,
    "Lens_L": """
        L lens | L lens | l lens | L Lens | left lens | Left lens | Lens L | LENS LEFT | lens Left | Lens left | lens
        lt | Lens Lt | LENS_L | LENS_L_ | Lense Lt | Llens | Lt lens | Lt Lens | Lens-Lt | Linse li | Linse links |
        Cristallin G | Lens Left
    """,
    "Lens_R": """
        Lens R | lens right | Lens Right | LENS RIGHT | Lens Rt | lens rt | LENS_R | Lense Rt | r lens | R Lens | R
        lens | Right lens | right lens | Rlens | rt lens | Rt Lens | Lens-Rt | Linse re | Cristallin droit
    """,
    "Bone_Mandible": """
        Mandible | MANDIBLE | mandible | Bone_Mandible | Mandible_Bone | Mandibula | Mandibule | mandib | Unterkiefer
        | Jaw
    """,
    "OpticNrv_L": """
        L o nerve | l op nerve | L optic nerve | L Optic Nerve | l optic nerve | Left optic nerve | Lt Optic Nerve |
        OPTIC NERVE LEFT | Optic nerve Lt | Optic-Nerve-Lt | L ON | L op N | OpticNrv_L | Nrv_Optic_L | OpticNerve_L |
        Sehnerv li. | Sehnerv li | N. opticus li | Nerf optique G
    """,
    "OpticNrv_R": """
        OPTIC NERVE RIGHT | Optic nerve Rt | R o nerve | r op nerve | R Optic Nerve | r optic nerve | right optic
        nerve | Rt Optic Nerve | Optic-Nerve-Rt | Nrv_Optic_R | OpticNerve_R | Sehnerv re. | Sehnerv re | N. opticus
        re | N. opticus rechts
    """,
    "Parotid_L": """
        L parotid | L parotid | L Parotid | l parotid | left parotid | left parotid | Left PAROTID | LeftParotid | Lt
        parotid | LT parotid | Lt PAROTID | Parotid L | parotid left | Parotid Lt | PAROTID_L | parotid-l | parotidl |
        l_parotid | Lt_Parotid_Gland | Parotid-Lt | LT PAROTID | parotid_gland_left | parotis_li | Parotis li |
        parotis li | Glandula parotis links | Parotide_G | ParotideG | PAROTIDEGAUCHE | LEFT PAROTID |
        ParotidGlandLeft | ParotidL | Ohrspeicheldrüse li
    """,
    "Parotid_R": """
        Parotid R | parotid right | PAROTID RIGHT | Parotid Rt | PAROTID_R | PAROTID_R_ | R parotid | R Parotid | r
        parotid | Right PAROTID | RightParotid | Rt Parotid | rt_parotid | RT PAROTID | Rt_Parotid_Gland | parotis_re
        | Parotis re | Parotis rechts | PAROTIS_RE | Parotide_D | ParotideD | PAROTIDEDROITE | parotidedte |
        ParotidGlandRight | ParotidR | Parotid-Rt
    """,
    "Glnd_Submand_L": """
        L submandibular | l sm gland | L SMG | L smg | l smgland | L submadibular | l submand | L submandib | L
        SUBMANDIBULAR | L submandibular gland | left SMG | left submand gland | left submand gl | Left submandibular |
        Lt SMG | Lt Submandibular Gland | Subman Lt | Submand left | Submandibular gland Lt | SUBMANDIBULAR L |
        Submandi li | submandibularis_li | Lt_Submandibular_Gland | Glnd_Submand_L | submandibular_gland_left |
        Submandibular-Lt | L Sub mand | Gl. submandibularis links
    """,
    "Glnd_Submand_R": """
        r sm gland | R SMG | R submadibular | r submand gland | R submandib | R SUBMANDIBULAR | R submandibular gland
        | Right SMG | right submand gl | Rt SM Gland | RT SUBMANDBLR | Rt Submandib | rt submandibular | Rt
        Submandibular Gland | Subman Rt | Submandibular R | Submandi re | submandibularis_re | Glnd_Submand_R |
        Gl_Submandibular_R | Submandibular-Rt
    """,
    "Glnd_Lacrimal_L": """
        L Lacrimal | L lacrimal gland | Lacrimal-Lt | Glnd_Lacrimal_L | Lacrimal_L | Tränendrüse links
    """,
    "Glnd_Lacrimal_R": """
        R lacrimal | Lacrimal-Rt | Glnd_Lacrimal_R | Lacrimal Gland R
    """,
    "Lung_L": """
        Lung-Left | LUNG_L | Lung L | Lt Lung | Lung_L | left lung | Lung-Lt | Lunge links | Lunge li | Poumon G |
        Left_Lung | lungl
    """,
    "Lung_R": """
        Lung-Right | LUNG_R | Lung R | Rt Lung | right_lung | Lung-Rt | Lunge re | Poumon droit | Polmone dx
    """,
    "SpinalCanal": """
        SPINAL_CANAL | SpinalCanal | Spinal-Canal | Spinal Canal | Spinalkanal | Canal médullaire | canalis spinalis
    """,
    "SpinalCord": """
        cord | Cord | Spinal Cord | spinal cord | SPINAL CORD | SPINAL_CORD | SPINAL_cord | SPINAL_CORD_ | SpinalCord
        | Spinal-Cord | Spine cord | Spinal cord | SC | MOELLE | Moelle | Myelon | Rückenmark | Rueckenmark |
        Spinal_Cord | Medulla spinalis | Ru\u0308ckenmark
    """,
}

LANGUAGES: dict[str, str] = {
    "Parotid_L": """
        Parotida izq | Parotida_izq | Parótida izquierda | PAROTIDA_IZQ | Parotide sx | Parotide sn | Parotis links |
        Glandula parotidea li | Glande parotide gauche | Ohrspeicheldruese_L | Glande_parotide_G | Parotis_li
    """,
    "Parotid_R": """
        PAROTIDA_DER | Parótida dcha | Parotide dx | parotide dx | Parotide destra | Parotis rechts | Glandula parotis
        re
    """,
    "SpinalCord": """
        Médula | Medula espinal | Midollo | Midollo spinale | Ruggenmerg | Myelum | Myelon | Rückenmark | Moelle
        épinière
    """,
    "Brainstem": """
        Tronco | Tronco cerebral | Tronco del encéfalo | Tronco encefalico | Hersenstam | Hirnstamm | Tronc cérébral |
        Tallo cerebral
    """,
    "Brain": """
        Cerebro | Encéfalo | Cervello | Encefalo | Hersenen | Hirn | Gehirn | Cerveau | Encéphale
    """,
    "Lens_L": """
        Cristalino izq | Cristallino sx | Linse li | Lens links | Ooglens links | Cristallin gauche | Cristallin G
    """,
    "Lens_R": """
        Cristalino derecho | Cristallino dx | Linse rechts | Cristallin D
    """,
    "OpticNrv_L": """
        Nervio optico izq | Nervio óptico izquierdo | Nervo ottico sx | Sehnerv li | N. opticus links | Oogzenuw links
        | Nerf optique gauche | NO gauche | Nerf_Optique_G
    """,
    "OpticNrv_R": """
        Nervio optico dcho | Nervo ottico dx | Sehnerv re | Nerf optique D | Nerf_Optique_D
    """,
    "Eye_L": """
        Ojo izq | Globo ocular izquierdo | Occhio sx | Bulbo oculare sx | Oog links | Auge links | Oeil gauche | Globe
        oculaire gauche
    """,
    "Eye_R": """
        Ojo der | Ojo dcho | Occhio dx | Oog rechts | Auge rechts | Oeil droit | Œil D
    """,
    "Lung_L": """
        Pulmón izquierdo | Pulmon izq | Polmone sx | Long links | Lunge links | Poumon gauche | Poumon G
    """,
    "Lung_R": """
        Pulmón derecho | Pulmon dcho | Polmone dx | polmone dx | Long rechts | Lunge rechts | Poumon droit | Poumon D
    """,
    "Bone_Mandible": """
        Mandíbula | Mandibola | Mandibula | Onderkaak | Unterkiefer | Mandibule | Maxilar inferior
    """,
    "Glnd_Submand_L": """
        Submaxilar izq | Submandibular izquierda | Glándula submandibular izquierda | Sottomandibolare sx | Ghiandola
        sottomandibolare sx | Submandibularis links | Gl. submandibularis li | Sous-maxillaire gauche | Sous
        maxillaire G | Glande sous-maxillaire gauche | Unterkieferspeicheldrüse links
    """,
    "Glnd_Submand_R": """
        Submaxilar dcha | Sottomandibolare dx | Gl_Submandibular_R | Submandibularis re | Sous maxillaire D
    """,
    "Cochlea_L": """
        Cóclea izq | Coclea sx | Cochlea links | Cochlée gauche | Hörschnecke links
    """,
    "Cochlea_R": """
        Cóclea derecha | Coclea dx | Coclea re | Cochlée D
    """,
    "Glnd_Lacrimal_L": """
        Lagrimal izq | Glándula lagrimal izquierda | Ghiandola lacrimale sx | Traanklier links | Tränendrüse li |
        Glande lacrymale gauche | Glande lacrymale G
    """,
    "Glnd_Lacrimal_R": """
        Glandula lagrimal derecha | Ghiandola lacrimale dx | Tränendrüse rechts | Glande lacrymale D
    """,
    "SpinalCanal": """
        Canal medular | Canal raquídeo | Canale midollare | Canale spinale | Wervelkanaal | Spinalkanal | Wirbelkanal
        | Canal médullaire | Canal rachidien
    """,
}
"""What the organs are called in German, French, Spanish, Italian and Dutch clinics."""


OTHERS: dict[str, str] = {
    "margins, structures for optimisation, what is left of an organ, targets (VoxTox)": """
        Brain Stem PRV | B StemPRV | BRAINSTEM_PRV | PRV Brain stem | PRVBrainstem | Stem PRV | Brainstem AVoid1mm |
        Cochlea L OPT | cochlea L PRV | COCHLEA_L_opt | L CochleaPRV | l cochleaOPT | OPT L cochlea | Cochlea Lt + 3mm
        | L Cochlea AVOID | PS Cochlea left | EYE_L OPT | PRV LtEye | L Globe Opt - PTV | L lens prv | LlensOPT |
        LensPRV | Lenses PRV | Lt Lens Opt | Chiasm | optic chiasm | Optic Chiasm | PRV Optic Chiasm | L ON PRV | L ON
        PRV in PTV | L Optic Nerve PRV and PTV70 | L optic nervePRV | L opt n PRV and PTV p70 | L parotid - PTV | L
        parotid in PTV65 | L Parotid - PTV60+65 | left parotid PRV | Cord PRV | cordPRV | Cord Block | CORD BLOCK |
        Cord buffer 65 | PRV Spinal Canal | SPINAL_CANAL_PRV | SPINAL_CORDprv | Spinal CordPRV | L Submand - PTV | L
        subman - PTV | L sub - PTV | L submandibular in 54 | BRAIN AVOID | Eye Avoid | Eye Block | BLOCK OPTICS |
        Mandible in PTV | GTV + 15mm - mandible | 54 L Neck ring | CTV54-LNECK | CTV60-OP | Body | Body-3mm | COUCH |
        Bolus | PTV 60
    """,
    "TG-263: partial, derived, several organs": """
        Lung~_L | Parotids | Eyes | Lungs | Lenses | OpticNrvs | Brain-PTV | SpinalCord_PRV05 | SpinalCord+5mm |
        Cord+5mm | Cord+5 | Brainstem_PRV | PTV | Parotid_L-PTV | Lungs-GTV | Lung_L! | Parotid_L^Ring | zParotid_L |
        Brain^2 | OpticNrv_PRV03_L | Hippocampus_L | Glnd_Thyroid
    """,
    "neighbours, parts and relatives": """
        Cerebellum | Chiasma | Hypophyse | Pituitary | Optic Tract L | Retina_L | Eye_AL | Eye_PL | Orbita links |
        Orbital_L | Lt Inner Ear | Inner Ear L | left parotid ant | left parotid mastoid | right mandible | Mandible
        (L) | Bone_Mandible_R | LN_Neck_L | A_Carotid_L | Brachial Plexus L | Lung_LUL | SacralPlex | CaudaEquina |
        Medulla | Medulla oblongata | Cord Canal PRV | L temporal lobe | Glnd_Subling_L | L o | spinal | gland L |
        nerve
    """,
    "copies and sides that contradict each other": """
        Parotid_L (1) | L parotid 2 | BRAIN2 | cord2 for IOV | L parotid_old | Parotid L R | Parotid LR | left lung
        right | L Lens_R | Parotid_D | Lens G | Parotide Parotide G | parotideg d | parotidegd
    """,
    "no side where one is needed, a side where none can be": """
        Parotid | Lens | Lung | Eye | Cochlea | SMG | Optic nerve | Brain L | Cord_R | Brainstem right | Areola |
        Borders | Breast | Heart | Nodes | Scar | GTV-1 | patient | Isocenter 1 | ROI | test | 1,SUV_primair
    """,
}


def _names(table: str) -> list[str]:
    return [name.strip() for name in table.split("|")]


@dataclass(frozen=True)
class FakeROI:
    number: int
    name: str
    codes: tuple[Any, ...] = field(default=())
    contours: tuple[Any, ...] = ("a contour",)


def _rois(*names: str) -> list[FakeROI]:
    return [FakeROI(number, name) for number, name in enumerate(names, start=1)]


with Path(__file__).parents[1].joinpath("fixtures", "spellings.csv").open(encoding="utf-8", newline="") as _file:
    SOURCED = list(csv.DictReader(_file))

CASES = [(oar, name) for table in (SPELLINGS, LANGUAGES) for oar, names in table.items() for name in _names(names)]
CASES = list(dict.fromkeys(CASES + [(row["oar"], row["name"]) for row in SOURCED if row["oar"]]))


def test_the_table_has_every_organ_and_six_hundred_spellings_each_with_its_source() -> None:
    assert len({row["name"] for row in SOURCED}) >= 600
    assert set(SPELLINGS) == {row["oar"] for row in SOURCED} - {""} == set(BY_NAME)
    assert len({row["name"] for row in SOURCED if row["oar"]}) >= 200
    assert len({row["name"] for row in SOURCED if not row["oar"]}) >= 100
    assert all(row["source"] for row in SOURCED)


def test_no_spelling_of_the_table_is_read_as_the_other_side() -> None:
    for oar, name in CASES:
        assert oar_of_name(name) is not (other_side(BY_NAME[oar]) if BY_NAME[oar].laterality else None), name


def matched(names: Iterable[str]) -> dict[str, OAR]:
    """Those of some names that are taken for an organ."""
    return {name: oar for name in names if (oar := oar_of_name(name)) is not None}


@pytest.mark.parametrize("oar", OARS, ids=str)
def test_a_clinical_spelling_is_its_organ(oar: OAR) -> None:
    names = [name for organ, name in CASES if organ == oar.name]
    assert {name: str(oar_of_name(name)) for name in names} == dict.fromkeys(names, oar.name)


def test_what_a_clinic_made_from_an_organ_is_never_matched() -> None:
    assert matched([row["name"] for row in SOURCED if not row["oar"]]) == {}


def test_what_is_not_an_organ_is_never_matched() -> None:
    assert matched(["", "   ", "_", *(name for names in OTHERS.values() for name in _names(names))]) == {}


@pytest.mark.parametrize("oar", OARS, ids=str)
def test_the_names_of_the_house_and_of_the_paper_are_known(oar: Any) -> None:
    assert oar_of_name(oar.name) is oar
    assert oar_of_name(oar.paper_name) is oar


@pytest.mark.parametrize("oar", [oar for oar in OARS if oar.laterality], ids=str)
def test_a_word_of_the_other_side_added_to_a_name_takes_the_match_away(oar: OAR) -> None:
    other = "right" if oar.laterality is Laterality.LEFT else "left"
    assert matched([f"{name} {other}" for organ, name in CASES if organ == oar.name]) == {}


@given(st.sampled_from(CASES), st.sampled_from(["PRV", "+5mm", "-PTV", "_opt", " ring", " sub", "2", " x", "~", "*"]))
def test_anything_added_to_a_name_takes_the_match_away(case: tuple[str, str], addition: str) -> None:
    assert oar_of_name(case[1] + addition) is None


@given(st.sampled_from(CASES))
def test_blanks_and_underscores_do_not_matter(case: tuple[str, str]) -> None:
    oar, name = case
    assert oar_of_name("  " + name.replace("_", " ").replace(" ", "_ ") + "_") is BY_NAME[oar]


@given(st.text(max_size=40))
def test_any_text_is_either_an_organ_or_not(name: str) -> None:
    assert oar_of_name(name) in {None, *OARS}


def test_two_rois_that_claim_one_organ_are_both_left_out_and_listed() -> None:
    matches = match_rois(_rois("Spinal Cord", "SC", "Parotid L", "PTV70"))
    assert {oar.name: roi.number for oar, roi in matches.matched.items()} == {"Parotid_L": 3}
    assert matches.ambiguous == ("Spinal Cord", "SC")
    assert matches.unmatched == ("PTV70",)


PAROTID = ("45289007", "SCT", "Parotid gland")
LEFT, RIGHT = ("7771000", "SCT", "Left"), ("24028007", "SCT", "Right")


def test_a_code_settles_a_name_that_is_not_understood() -> None:
    matches = match_rois([FakeROI(1, "Organ A", (PAROTID, RIGHT)), FakeROI(2, "Organ B", (("7647", "FMA", "Spinal cord"),))])
    assert {oar.name: roi.number for oar, roi in matches.matched.items()} == {"Parotid_R": 1, "SpinalCord": 2}


def test_a_code_without_a_side_takes_it_from_the_name() -> None:
    assert list(match_rois([FakeROI(1, "xyz links", (PAROTID,))]).matched) == [BY_NAME["Parotid_L"]]
    assert match_rois([FakeROI(1, "xyz", (PAROTID,))]).matched == {}


def test_a_code_that_contradicts_the_name_makes_the_roi_ambiguous() -> None:
    matches = match_rois([FakeROI(1, "Parotid_L", (PAROTID, RIGHT))])
    assert matches.matched == {}
    assert matches.ambiguous == ("Parotid_L",)


@pytest.mark.parametrize("name", ["Parotid_L_PRV", "Parotid_L-PTV", "Parotid_L+5", "Organ A 3mm", "zPTV_Parotid"])
def test_a_code_does_not_make_an_organ_of_what_is_derived_from_it(name: str) -> None:
    matches = match_rois([FakeROI(1, name, (PAROTID, LEFT))])
    assert matches.matched == {}
    assert matches.unmatched == (name,)


STEM = ("15926001", "SCT", "Brainstem structure")
CORE, SURFACE, BOTH = (
    ("260235002", "SCT", "Core"),
    ("410679008", "SCT", "Surface"),
    ("51440002", "SCT", "Right and left"),
)


@pytest.mark.parametrize("modifier", [CORE, SURFACE])
@pytest.mark.parametrize("name", ["Brainstem", "Structure 7"])
def test_a_modifier_that_is_not_a_side_makes_a_part_whatever_the_name_is(name: str, modifier: tuple[str, ...]) -> None:
    matches = match_rois([FakeROI(1, name, (STEM, modifier))])
    assert (matches.matched, matches.unmatched) == ({}, (name,))


@pytest.mark.parametrize("codes", [(PAROTID, BOTH), (PAROTID, LEFT, RIGHT)])
def test_both_sides_are_neither(codes: tuple[Any, ...]) -> None:
    assert match_rois([FakeROI(1, "Structure 7", codes)]).matched == {}
    assert match_rois([FakeROI(1, "Parotid_L", codes)]).matched == {}


PARTS = [
    "Brainstem_Core",
    "Brainstem_Surf",
    "BrainStem_low",
    "Brainstem_MRI",
    "zBrainstem",
    "Brainstem_AI",
    "Brainstem_01",
    "NS_Brainstem",
    "Brainstem deep",
    "Brainstem_PRV03",
    "BS core",
]


@pytest.mark.parametrize("name", PARTS)
def test_a_part_under_the_organs_code_is_never_the_organ_and_never_in_its_way(name: str) -> None:
    part, whole = FakeROI(1, name, (STEM,)), FakeROI(2, "Brainstem", (STEM,))
    assert match_rois([part]).matched == {}
    for both in ([part, whole], [whole, part]):
        matches = match_rois(both)
        assert {oar.name: roi.number for oar, roi in matches.matched.items()} == {"Brainstem": 2}
        assert (matches.unmatched, matches.ambiguous) == ((name,), ())


def test_an_roi_that_claims_an_organ_by_its_code_alone_gives_way_to_one_that_is_named_so() -> None:
    matches = match_rois([FakeROI(1, "Structure 7", (STEM,)), FakeROI(2, "Brainstem")])
    assert {oar.name: roi.number for oar, roi in matches.matched.items()} == {"Brainstem": 2}
    assert matches.unmatched == ("Structure 7",)


def test_an_empty_twin_gives_way_to_the_one_that_is_drawn() -> None:
    empty, drawn = FakeROI(1, "Parotid_L", (PAROTID, LEFT), contours=()), FakeROI(2, "LT PAROTID")
    matches = match_rois([empty, drawn])
    assert {oar.name: roi.number for oar, roi in matches.matched.items()} == {"Parotid_L": 2}
    assert matches.unmatched == ("Parotid_L",)
    assert list(match_rois([empty]).matched) == [BY_NAME["Parotid_L"]]


def test_organs_that_several_rois_claim_are_told_with_their_names() -> None:
    matches = match_rois(_rois("Parotid_L", "LT PAROTID", "Brain"))
    assert matches.contested == {BY_NAME["Parotid_L"]: ("Parotid_L", "LT PAROTID")}


def test_the_right_optic_nerve_of_the_published_map_is_the_right_one_although_its_modifier_says_left() -> None:
    nerve = ("18234004", "SCT", "Optic nerve structure")
    matches = match_rois([FakeROI(1, "OpticNrv_L", (nerve, LEFT)), FakeROI(2, "OpticNrv_R", (nerve, LEFT))])
    assert {oar.name: roi.number for oar, roi in matches.matched.items()} == {"OpticNrv_L": 1, "OpticNrv_R": 2}
    assert match_rois([FakeROI(1, "OpticNrv_L", (nerve, RIGHT))]).matched == {}


def test_a_cochlea_of_the_published_map_has_its_side_in_its_name() -> None:
    cochlea = ("80169004", "SCT", "Cochlear structure")
    matches = match_rois([FakeROI(1, "Cochlea_L", (cochlea,)), FakeROI(2, "Cochlea_R", (cochlea,))])
    assert {oar.name: roi.number for oar, roi in matches.matched.items()} == {"Cochlea_L": 1, "Cochlea_R": 2}


def test_a_site_adds_its_own_names_and_takes_others_away() -> None:
    site = {"OAR 7 links": "Parotid_L", "cord": ""}
    matches = match_rois(_rois("oar 7 LINKS", "Cord", "Brain"), site_names=site)
    assert [oar.name for oar in matches.matched] == ["Brain", "Parotid_L"]
    assert matches.unmatched == ("Cord",)


def test_a_site_name_for_an_unknown_organ_is_refused() -> None:
    with pytest.raises(ValueError, match="Larynx"):
        match_rois([], site_names={"Kehlkopf": "Larynx"})


def test_matching_does_not_depend_on_the_order_of_the_rois() -> None:
    names = [_names(spellings)[0] for spellings in SPELLINGS.values()]
    forward, backward = match_rois(_rois(*names)), match_rois(_rois(*names[::-1]))
    assert len(forward.matched) == 21
    assert {o: r.name for o, r in forward.matched.items()} == {o: r.name for o, r in backward.matched.items()}


@given(st.permutations([oar.name for oar in OARS]))
def test_the_mirror_image_of_a_name_is_the_mirror_image_of_its_organ(names: list[str]) -> None:
    for name in names:
        swapped = name[:-2] + {"_L": "_R", "_R": "_L"}.get(name[-2:], name[-2:])
        assert oar_of_name(swapped) is other_side(BY_NAME[name])


EXPECTED = {
    "aria15_lung1-001.dcm": {"SpinalCord": "Spinal-Cord", "Lung_L": "Lung-Left", "Lung_R": "Lung-Right"},
    "xio_lung1-001.dcm": {"SpinalCord": "Spinal cord", "Lung_L": "Lung L", "Lung_R": "Lung R"},
    "mim69_pancreas-ct-cb-001.dcm": {"Lung_L": "LUNG_L", "Lung_R": "LUNG_R"},
    "dicompyler_rtss.dcm": {"Lung_L": "Lt Lung"},
    "monaco_example_structures.dcm": {},
    "monaco_box_overlap.dcm": {},
    "raystation_template.dcm": {},
}


@pytest.mark.parametrize("file", EXPECTED)
def test_rtstructs_of_real_planning_systems(file: str, unpacked: Unpacked) -> None:
    dataset = pydicom.dcmread(unpacked("data/dicom/rtstruct_without_ct/files.tar.xz") / file, force=True)
    names = [str(item.ROIName) for item in dataset.StructureSetROISequence]
    matches = match_rois(_rois(*names))
    assert {oar.name: roi.name for oar, roi in matches.matched.items()} == EXPECTED[file]
    assert set(matches.unmatched) == set(names) - set(EXPECTED[file].values())


def test_an_aria_rtstruct_with_fma_codes(shared: Path) -> None:
    dataset = pydicom.dcmread(shared / "data/dicom/neck_aria_visiblehuman/RS_Body_SpinalCord.dcm")
    codes = {
        item.ReferencedROINumber: tuple(
            (code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning) for code in item.RTROIIdentificationCodeSequence
        )
        for item in dataset.RTROIObservationsSequence
    }
    rois = [FakeROI(item.ROINumber, "hidden", codes[item.ROINumber]) for item in dataset.StructureSetROISequence]
    assert [oar.name for oar in match_rois(rois).matched] == ["SpinalCord"]
