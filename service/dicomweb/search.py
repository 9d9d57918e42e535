"""QIDO-RS: searches (PS3.18 8.3.4, 10.6).

Which attributes can be asked for, what they match, and what is answered.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from oarlock.errors import InvalidParameter
from service.dicomweb.documents import to_json
from service.dicomweb.kept import Archive, Kept, KeptSeries
from service.errors import NotKept

STUDY_KEYS: Final = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ModalitiesInStudy",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDescription",
)
SERIES_KEYS: Final = ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription")
INSTANCE_KEYS: Final = ("SOPInstanceUID", "SOPClassUID", "InstanceNumber")
"""What can be matched on each level; the lower levels match the keys of the higher ones too."""

STUDY_ANSWER: Final = (
    "InstanceAvailability",
    "TimezoneOffsetFromUTC",
    "RetrieveURL",
    "NumberOfStudyRelatedSeries",
    "NumberOfStudyRelatedInstances",
)
SERIES_ANSWER: Final = ("TimezoneOffsetFromUTC", "SeriesDate", "SeriesTime", "RetrieveURL", "NumberOfSeriesRelatedInstances")
INSTANCE_ANSWER: Final = (
    "InstanceAvailability",
    "TimezoneOffsetFromUTC",
    "RetrieveURL",
    "Rows",
    "Columns",
    "BitsAllocated",
    "NumberOfFrames",
)
"""What is answered on each level beside its keys, where there is a value."""

KEYS: Final = {"studies": STUDY_KEYS, "series": STUDY_KEYS + SERIES_KEYS, "instances": STUDY_KEYS + SERIES_KEYS + INSTANCE_KEYS}

LONGEST: Final = 512
"""Most characters of a value: seven UIDs."""

LIMIT: Final = 100
MOST: Final = 1_000
LOOKED_AT: Final = 5_000
"""How many studies a search looks at before it says that there may be more."""

_RANGE_VRS: Final = frozenset({"DA", "TM", "DT"})


@dataclass(frozen=True)
class Query:
    """A search.

    :ivar matches: what is asked for, by keyword; universal matching (an empty value) is left out.
    :ivar include: keywords that are to be answered too; None for all that there are.
    """

    matches: Mapping[str, str]
    include: frozenset[str] | None
    limit: int
    offset: int


def tag_text(keyword: str) -> str:
    """The tag of a keyword in 8 hexadecimal digits.

    As DICOMweb spells it.
    """
    return f"{_tag(keyword):08X}"


def to_query(parameters: Sequence[tuple[str, str]], level: str) -> Query:
    """The parameters of a search.

    :raises InvalidParameter: if a value cannot be used.
    """
    names = {name: keyword for keyword in KEYS[level] for name in (keyword, tag_text(keyword))}
    matches: dict[str, str] = {}
    include: set[str] | None = set()
    numbers = {"limit": LIMIT, "offset": 0}
    for name, value in parameters:
        if len(value) > LONGEST:
            raise InvalidParameter(name=name, reason=f"must have at most {LONGEST} characters")
        if name in names:
            matches[names[name]] = value
        elif name == "includefield":
            for field in value.split(","):
                include = None if field == "all" or include is None else include | {_field(field)}
        elif name in numbers:
            numbers[name] = _number(name, value)
        elif name != "fuzzymatching" or value not in {"true", "false"}:
            raise InvalidParameter(name="fuzzymatching", reason="must be true or false")
    asked = {keyword: value for keyword, value in matches.items() if value not in {"", "*"}}
    return Query(asked, None if include is None else frozenset(include), min(numbers["limit"], MOST), numbers["offset"])


def _field(text: str) -> str:
    """The keyword of an attribute that is named by its keyword or its tag."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", text):
        return tag_to_keyword(int(text, 16))
    if tag_for_keyword(text) is None:
        raise InvalidParameter(name="includefield", reason="must be 'all', or keywords or tags of attributes, by commas")
    return text


def tag_to_keyword(tag: int) -> str:
    """The keyword of a tag; its digits where the dictionary has none."""
    return keyword_for_tag(tag) or f"{tag:08X}"


def _number(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise InvalidParameter(name=name, reason="must be a whole number, 0 or more")
    return int(value)


@dataclass(frozen=True)
class Within:
    """What an address asks for, and within what.

    ``studies``, ``series`` or ``instances``, of a study and of a series where it names them.

    ``base`` is the address of the DICOMweb service, without a slash at its end.
    """

    level: str
    base: str
    study_uid: str = ""
    series_uid: str = ""


@dataclass(frozen=True)
class Found:
    """The page of a search.

    ``more`` says that further entries were not looked at.
    """

    entries: list[dict[str, Any]]
    more: bool


def search(archive: Archive, query: Query, within: Within) -> Found:
    """The entries of a page, in DICOM JSON."""
    level = within.level
    keys = {"studies": STUDY_KEYS, "series": SERIES_KEYS, "instances": SERIES_KEYS + INSTANCE_KEYS}[level]
    fixed = {"studies": STUDY_ANSWER, "series": SERIES_ANSWER, "instances": INSTANCE_ANSWER}[level]
    answered = {*keys, *fixed, *query.matches, "StudyInstanceUID", *(() if within.study_uid else STUDY_KEYS)}
    entries: list[dict[str, Any]] = []
    skip = query.offset
    for looked_at, dataset in enumerate(_candidates(archive, query, within)):
        if len(entries) == query.limit or looked_at == LOOKED_AT:
            return Found(entries, more=True)
        if not all(_matches(dataset, keyword, value) for keyword, value in query.matches.items()):
            continue
        if skip:
            skip -= 1
            continue
        entries.append(to_json(dataset if query.include is None else _selected(dataset, answered | query.include)))
    return Found(entries, more=False)


def _candidates(archive: Archive, query: Query, within: Within) -> Iterator[Dataset]:
    """Every study, series or instance that the address allows, with all that can be told of it."""
    asked = within.study_uid or query.matches.get("StudyInstanceUID", "")
    if asked and not set(asked) & set(",\\*?"):
        try:
            studies: Iterator[list[KeptSeries]] = iter([archive.study(asked)])
        except NotKept:
            return
    else:
        studies = archive.studies()
    wanted = within.series_uid or query.matches.get("SeriesInstanceUID", "")
    for study in studies:
        try:
            yield from _of_study(archive, study, within, wanted)
        except NotKept:  # deleted in this very moment
            continue


def _of_study(archive: Archive, study: list[KeptSeries], within: Within, wanted: str) -> Iterator[Dataset]:
    level, base = within.level, within.base
    whole = _study(archive, study, base)
    if level == "studies":
        yield whole
        return
    for series in study:
        if wanted and series.series_instance_uid != wanted:
            continue
        shown = series.instances[:1] if level == "series" else series.instances
        for kept in shown:
            described = archive.description(kept)
            described.update(_study_part(whole))
            described.RetrieveURL = series_address(base, series)
            described.NumberOfSeriesRelatedInstances = len(series.instances)
            if level == "instances":
                described.RetrieveURL = address(base, series, kept)
                described.InstanceAvailability = "ONLINE"
            yield described


def _study(archive: Archive, study: list[KeptSeries], base: str) -> Dataset:
    dataset = Dataset()
    described = archive.patient(study[0].job)
    for element in described:
        if element.keyword in STUDY_KEYS or element.keyword in {"TimezoneOffsetFromUTC", "SpecificCharacterSet"}:
            dataset.add(element)
    dataset.StudyInstanceUID = study[0].job.series.study_instance_uid
    dataset.ModalitiesInStudy = sorted({series.modality for series in study})
    dataset.NumberOfStudyRelatedSeries = len(study)
    dataset.NumberOfStudyRelatedInstances = sum(len(series.instances) for series in study)
    dataset.InstanceAvailability = "ONLINE"
    dataset.RetrieveURL = f"{base}/studies/{dataset.StudyInstanceUID}"
    return dataset


def _study_part(study: Dataset) -> Dataset:
    """The attributes of the study that every series and instance of it has."""
    return _selected(study, {*STUDY_KEYS, "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"})


def series_address(base: str, series: KeptSeries) -> str:
    """Where a series is retrieved."""
    return f"{base}/studies/{series.job.series.study_instance_uid}/series/{series.series_instance_uid}"


def address(base: str, series: KeptSeries, kept: Kept) -> str:
    """Where an instance is retrieved."""
    return f"{series_address(base, series)}/instances/{kept.sop_instance_uid}"


def _selected(dataset: Dataset, keywords: set[str] | frozenset[str]) -> Dataset:
    chosen = Dataset()
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        if tag is not None and tag in dataset:
            chosen.add(dataset[BaseTag(tag)])
    return chosen


def _matches(dataset: Dataset, keyword: str, wanted: str) -> bool:
    """Whether a value matches, as PS3.4 C.2.2.2 has it: lists of UIDs, ranges of dates and times, wild cards."""
    if keyword not in dataset:
        return False
    element = dataset[keyword]
    values = [str(value) for value in (element.value if element.VM > 1 else [element.value])]
    vr = dictionary_VR(_tag(keyword))
    if vr == "UI":
        return bool(set(values) & set(re.split(r"[,\\]", wanted)))
    if vr in _RANGE_VRS and "-" in wanted:
        first, last = wanted.split("-", 1)
        return any(value and first <= value and (not last or value <= last or value.startswith(last)) for value in values)
    if vr == "PN":
        wanted, values = wanted.lower(), [value.lower() for value in values]
    pattern = re.sub(r"\[", "[[]", wanted)  # of the shell's wild cards DICOM has * and ? alone
    return any(fnmatch.fnmatchcase(value, pattern) for value in values)


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None  # a keyword of the tables above
    return tag
