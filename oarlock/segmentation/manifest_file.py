"""The schema of ``manifest.toml`` as pydantic reads it.

``docs/models.md`` explains every key; a test compares the two.
"""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from oarlock.organs.catalogue import BY_NAME

NATIVE: Final = "native"

MAX_TOLERANCE: Final = 0.05
"""A mean probability may be off by this much at most; a wider tolerance would switch the self-check off."""


def _each(what: str, count: int, holds: Callable[[Any], bool]) -> BeforeValidator:
    """A list of so many values that all hold."""

    def check(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != count or not all(map(holds, value)):
            raise ValueError(f"must be {what}")
        return tuple(value)

    return BeforeValidator(check)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_positive(value)


def _is_native_or_spacing(value: Any) -> Any:
    if value == NATIVE:
        return None
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_positive, value)):
        raise ValueError('must be three positive numbers (z, y, x) or "native"')
    return tuple(value)


def _is_odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd: the predicted slice is in the middle")
    return value


def _is_plain(value: str) -> str:
    if "/" in value or "\\" in value or value in {"", ".", ".."} or "\0" in value:
        raise ValueError("must be a plain file name in the model's folder")
    return value


def _is_sha256(value: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise ValueError("must be 64 hexadecimal digits")
    return value.lower()


def _is_part_name(value: str) -> str:
    if not re.fullmatch("[a-z0-9][a-z0-9-]{0,15}", value):
        raise ValueError("must be at most 16 lower-case letters, digits and dashes")
    return value


def _is_organ(value: str) -> str:
    if value not in BY_NAME:
        raise ValueError(f"{value} is not an organ that Oarlock knows (see oarlock/organs/catalogue.py)")
    return value


def _are_axes(value: str) -> str:
    if sorted(_ALONG.get(letter, "") for letter in value) != ["x", "y", "z"]:
        raise ValueError("must be three letters, one each of S or I, P or A, and L or R")
    return value


_ALONG: Final = {"S": "z", "I": "z", "P": "y", "A": "y", "L": "x", "R": "x"}

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e9, le=1e9)]
Label = Annotated[int, Field(strict=True, ge=0, le=65_535)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Sha256 = Annotated[str, AfterValidator(_is_sha256)]
PartName = Annotated[str, AfterValidator(_is_part_name)]
FileName = Annotated[str, AfterValidator(_is_plain)]
OrganName = Annotated[str, AfterValidator(_is_organ)]
SizeYX = Annotated[tuple[int, int], _each("two positive whole numbers (y, x)", 2, _is_count)]
SizeZYX = Annotated[tuple[int, int, int], _each("three positive whole numbers (z, y, x)", 3, _is_count)]
MillimetresZYX = Annotated[tuple[float, float, float], _each("three positive numbers (z, y, x)", 3, _is_positive)]


MAX_MOVE_MM: Final = 5.0
"""An edge moves by this much at most: beyond it another organ's tissue may look the same."""

Millimetres = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=MAX_MOVE_MM)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputTable(_Table):
    """``[input]``: what the network is fed."""

    name: str
    spacing_mm: Annotated[tuple[float, float, float] | None, BeforeValidator(_is_native_or_spacing)]
    size_yx: SizeYX | None = None
    size_zyx: SizeZYX | None = None
    context_slices: Annotated[Count, AfterValidator(_is_odd)] = 1
    padding_hu: Number
    hu_windows_in_graph: list[tuple[Number, Number]] | None = None


class OutputTable(_Table):
    """``[output]``: what the network gives."""

    name: str
    upscale: Count = 1
    size_zyx: SizeZYX | None = None


class OARTable(_Table):
    """``[[oar]]``: one channel of the output, or labels.

    The labels are of a network that goes in patches.
    """

    name: OrganName
    threshold: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.5
    labels: Annotated[list[Label], Field(min_length=1)] | None = None


class SelfCheckTable(_Table):
    """``[self_check]``: what the network must answer when it is loaded."""

    slices: Count | None = None
    size_yx: SizeYX | None = None
    expected_means: list[Number]
    tolerance: Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0, le=MAX_TOLERANCE)]


class LimitsTable(_Table):
    """``[limits]``: what the model must not be used for."""

    not_for: list[str] = []


class AnchorTable(_Table):
    """``[[part.look.around]]``: an organ that says where a box lies."""

    organ: OrganName
    offset_mm: Annotated[tuple[float, float, float], _each("three numbers (z, y, x)", 3, _is_number)] = (0.0, 0.0, 0.0)


class LookTable(_Table):
    """``[part.look]``: where a part looks."""

    at: Literal["scan", "body", "box"]
    around: list[AnchorTable] = []
    found_by: str | None = None
    margin_mm: MillimetresZYX | None = None


class NormalisationTable(_Table):
    """``[part.patches]`` ``normalisation``: from Hounsfield units to what the network was trained on."""

    scheme: Literal["ct", "z-score", "range", "none"]
    low: Number | None = None
    high: Number | None = None
    mean: Number | None = None
    std: Annotated[Number, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _has_what_its_scheme_needs(self) -> "NormalisationTable":
        given = [value is not None for value in (self.low, self.high, self.mean, self.std)]
        if not (all(given) if self.scheme == "ct" else not any(given)):
            raise ValueError("needs low, high, mean and std if the scheme is ct, and only then")
        return self


class ResamplingTable(_Table):
    """How a volume is brought onto other voxels (:mod:`oarlock.segmentation.zoom`)."""

    order: Annotated[int, Field(strict=True, ge=0, le=5)]
    order_z: Annotated[int, Field(strict=True, ge=0, le=5)] = 0
    separate: Literal["auto", "always", "never"] = "auto"


class FoldTable(_Table):
    """``[[part.patches.fold]]``: a further network of the same kind.

    Its logits are averaged with the first one's.
    """

    file: FileName
    sha256: Sha256


class PatchesTable(_Table):
    """``[part.patches]``: a network that is slid in patches.

    They have its one size, as nnU-Net does it.
    """

    axes: Annotated[str, AfterValidator(_are_axes)]
    like: Literal["nnunet", "monai"] = "nnunet"
    weights: Literal["gaussian", "constant"] = "gaussian"
    step: Annotated[float, Field(strict=True, gt=0, le=1)] = 0.5
    mirror: list[Literal["z", "y", "x"]] = []
    heads: Literal["labels", "regions"]
    values: Annotated[list[Label], Field(min_length=1, max_length=1024)]
    normalisation: NormalisationTable
    resampling: ResamplingTable
    resampling_back: ResamplingTable
    fold: list[FoldTable] = []


class _Common(_Table):
    training: dict[str, Any] = {}
    results: dict[str, Any] = {}
    limits: LimitsTable = LimitsTable()


class FileOfOneTable(_Table):
    """``[model]`` of schema version 1."""

    name: str
    version: str
    file: FileName
    sha256: Sha256
    licence: str
    description: str


class FileOfOne(_Common):
    """Schema version 1: one ONNX file that draws on the whole scan."""

    schema_version: Literal[1] = 1
    model: FileOfOneTable
    input: InputTable
    output: OutputTable
    oar: Annotated[list[OARTable], Field(min_length=1)]
    self_check: SelfCheckTable


class ModelTable(_Table):
    """``[model]`` of schema version 2."""

    name: str
    version: str
    licence: str
    description: str


class PartTable(_Table):
    """``[[part]]``: one ONNX file, its channels, and where it looks."""

    name: PartName
    file: FileName
    sha256: Sha256
    look: LookTable = LookTable(at="scan")
    input: InputTable
    output: OutputTable
    oar: Annotated[list[OARTable], Field(min_length=1)]
    self_check: SelfCheckTable
    patches: PatchesTable | None = None
    training: dict[str, Any] = {}
    results: dict[str, Any] = {}


class EdgeTable(_Table):
    """``[edges.ORGAN]``: the tissue that draws an organ's edge."""

    hu: Annotated[tuple[float, float], _each("two numbers, the lower one first", 2, _is_number)]
    inwards_mm: Millimetres = 0.0
    outwards_mm: Millimetres = 0.0

    @model_validator(mode="after")
    def _moves(self) -> "EdgeTable":
        if self.hu[0] >= self.hu[1]:
            raise ValueError("needs hu as two numbers, the lower one first")
        if not self.inwards_mm and not self.outwards_mm:
            raise ValueError("needs inwards_mm or outwards_mm above 0")
        return self


class FileOfParts(_Common):
    """Schema version 2: several ONNX files, the owner of each organ.

    And the owner's share of those that it draws together with its finder, and the edges that move to those of tissue.
    """

    schema_version: Literal[2]
    model: ModelTable
    part: Annotated[list[PartTable], Field(min_length=1)]
    owners: Annotated[dict[OrganName, str], Field(min_length=1)]
    shares: dict[OrganName, Annotated[float, Field(strict=True, gt=0, le=1)]] = {}
    edges: dict[OrganName, EdgeTable] = {}


VERSIONS: Final[dict[int, type[FileOfOne | FileOfParts]]] = {1: FileOfOne, 2: FileOfParts}


def reason_of(error: ValidationError) -> str:
    """The first thing that is wrong, with its key.

    Such as ``[input] size_yx must be two positive whole numbers (y, x)``.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    place, kind, context = _place(first["loc"]), first["type"], first.get("ctx", {})
    sentences = {
        "missing": "is missing",
        "extra_forbidden": "is not a key of this schema",
        "value_error": str(context.get("error", "")),
        "greater_than": f"must be greater than {context.get('gt')}",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than": f"must be less than {context.get('lt')}",
        "less_than_equal": f"must be at most {context.get('le')}",
        "finite_number": "is not a finite number",
        "too_short": "is empty",
        "model_type": "is not a table",
        "dict_type": "is not a table",
        "list_type": "is not a list",
    }
    sentence = sentences.get(kind, "has the wrong type" if kind.endswith("_type") else first["msg"])
    return f"{place} {sentence}"


def _place(keys: Sequence[int | str]) -> str:
    """A key as its file spells it: ``[input] name``, ``[[oar]] 2 threshold``, ``[[part]] 1 [look] at``."""
    words = []
    for at, key in enumerate(keys):
        after = keys[at + 1 :]
        if isinstance(key, int):
            words.append(str(key + 1))
        elif not after or (len(after) == 1 and isinstance(after[0], int) and at > 0):
            words.append(key)
        else:
            words.append(f"[[{key}]]" if isinstance(after[0], int) else f"[{key}]")
    return " ".join(words) or "the file"
