"""Which rule decides about a series, and what the file of rules may hold."""

from pathlib import Path
from typing import Any

import pytest

from gateway.configuration import Configuration, read_configuration
from gateway.errors import SetupInvalid
from gateway.instances import Texts
from gateway.rules import Sent, in_words, kind_of, route

pytestmark = pytest.mark.slow

ECLIPSE = {"name": "eclipse", "title": "ARIA", "host": "10.1.2.3", "port": 104}
FROM_ARIA = Sent("ARIA", "OARLOCK")


def configured(**tables: Any) -> Configuration:
    return Configuration.model_validate(tables)


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        ({"image_types": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "scout"),
        ({"series_description": "Topogram 0.6 T20f"}, "scout"),
        ({"series_description": "Scout"}, "scout"),
        ({"series_description": "Thorax 50% Ex"}, "phase"),
        ({"series_description": "CT 4DCT phase 3"}, "phase"),
        ({"series_description": "H&N iMAR 2.0 Br38"}, "metal"),
        ({"series_description": "O-MAR head"}, "metal"),
        ({"series_description": "CBCT fraction 3"}, "cone beam"),
        ({"device": "Elekta XVI"}, "cone beam"),
        ({"series_description": "H&N 2.0 Br38"}, None),
        ({"series_description": "Head MARKER", "protocol_name": "HN 100 kV"}, None),
    ],
)
def test_scouts_phases_metal_copies_and_cone_beams_are_known_by_their_words(texts: dict[str, Any], kind: str | None) -> None:
    assert kind_of(Texts(**texts)) == kind


def test_without_rules_every_plain_series_is_contoured_and_sent_back() -> None:
    chosen = route(Texts(), FROM_ARIA, configured(peer=[ECLIPSE]))
    assert (chosen.ignored, chosen.places, chosen.results) == ("", ("eclipse",), ("rtstruct",))
    assert route(Texts(series_description="Scout"), FROM_ARIA, configured()).ignored == "it is a scout"


def test_the_first_rule_of_which_every_condition_holds_decides() -> None:
    configuration = configured(
        titles=["OARLOCK", "URGENT"],
        rule=[
            {"name": "urgent", "called": ["URGENT"], "priority": "urgent"},
            {"name": "thin", "series_description": "head|neck", "thickness_mm": {"max": 3.0}, "model": "fine"},
            {"name": "abdomen", "body_part": "abdomen", "ignore": True},
        ],
    )
    thin = Texts(series_description="HEAD AND NECK", thickness_mm=3.0)
    assert route(thin, Sent("A", "URGENT"), configuration).priority == "urgent"
    assert route(thin, Sent("A", "OARLOCK"), configuration).model == "fine"
    assert route(Texts(body_part="ABDOMEN"), Sent("A", "OARLOCK"), configuration).ignored == "the rule 'abdomen' says so"
    thick = Texts(series_description="HEAD AND NECK", thickness_mm=3.1)
    assert route(thick, Sent("A", "OARLOCK"), configuration).ignored == "no rule is meant for it"


def test_a_rule_can_take_what_is_left_alone_otherwise() -> None:
    configuration = configured(rule=[{"name": "metal too", "takes": ["metal"]}])
    assert not route(Texts(series_description="iMAR"), FROM_ARIA, configuration).ignored
    assert route(Texts(series_description="CBCT"), FROM_ARIA, configuration).ignored == "it is a cone beam CT"


def test_the_explanation_names_what_did_not_hold_and_what_happens() -> None:
    configuration = configured(
        peer=[ECLIPSE], rule=[{"name": "lungs", "body_part": "lung"}, {"name": "rest", "results": ["rtstruct", "report"]}]
    )
    said = in_words(Texts(body_part="HEAD"), FROM_ARIA, configuration)
    assert "rule 'lungs' does not hold: body_part does not hold 'lung'" in said
    assert "rtstruct, report sent to eclipse" in said


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[rule]]\nname = 'a'\nseries_description = '('", "rule 'a', series_description: is not a regular expression"),
        ("[[rule]]\nname = 'a'\nserie = 'x'", "rule 'a', serie: is not known here"),
        ("[[rule]]\nmodel = 'x'", "rule number 1, name: is missing"),
        ("[[rule]]\nname = 'a'\nsend = ['nowhere']", "the rule 'a' sends to 'nowhere', which is not a place that takes results"),
        ("[[rule]]\nname = 'a'\ncalled = ['X']", "the rule 'a' waits for the called title 'X', which is not in titles"),
        ("[[peer]]\nname = 'a'\ntitle = 'A'\nhost = 'h'", "peer 'a': has one of host and port; give both"),
        ("[[peer]]\nname = 'a'\ntitle = 'A'\naddresses = ['ward']", "is neither an address nor a network"),
        ("[[peer]]\nname = 'a'\ntitle = 'seventeen letters'", "peer 'a', title: must match pattern"),
        ("[[folder]]\nname = 'a'\npath = '/x'\n[[web]]\nname = 'a'\nurl = 'http://h/studies'", "the name 'a' is given twice"),
        ("titles = [", "is not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_said_in_one_sentence_with_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SetupInvalid) as found:
        read_configuration(path)
    assert sentence in str(found.value)
    assert "\n" not in str(found.value)
