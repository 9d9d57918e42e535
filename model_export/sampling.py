"""From a case to what one training step sees.

A deformed slab on the network's grid, its labels, and where they count.

Unknown CT becomes air and takes no part in the loss near the known region, where an organ may have been cut. Far from it (at
least `FAR_VOXELS` in plane) the network sees nothing but air, and there every organ is absent: a network must not invent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from model_export.augment import (
    CPU,
    F32,
    AugmentConfig,
    Deformation,
    Generator,
    change_intensities,
    draw_cut,
    draw_deformation,
)
from model_export.datasets.training_file import AIR_HU, CHANNEL, HU_OF_CODE, Case
from oarlock.organs.catalogue import OARS, other_side

MIRRORED: Final = tuple(CHANNEL[other_side(oar).name] for oar in OARS)
"""For each channel, the channel of the same organ on the other side."""

PAIRS: Final = tuple(sorted({(min(c, m), max(c, m)) for c, m in enumerate(MIRRORED)}))
"""The OARs, left and right together; one that has no other side stands beside itself."""

T = TypeVar("T")

FAR_VOXELS: Final = 3
MARGIN_VOXELS: Final = 6


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """The network's grid.

    Spacing (z, y, x) in mm, rows and columns, slices of context, output voxels per input voxel.
    """

    spacing_mm: tuple[float, float, float]
    size: int
    context_slices: int
    upscale: int

    def positions(self, slices: int, upscale: int = 1) -> tuple[F32, F32, F32]:
        """Centres of the voxels along z, y and x.

        In mm from the middle.
        """
        return (
            _centred(slices, self.spacing_mm[0]),
            _centred(self.size * upscale, self.spacing_mm[1] / upscale),
            _centred(self.size * upscale, self.spacing_mm[2] / upscale),
        )


@dataclass(frozen=True)
class Sample:
    """One slab.

    ``ct_hu`` (Z + 20, Y, X); ``window`` the rows and columns of the input grid that the loss looks at; ``channels`` those that
    are labelled; ``target`` (channels, Z, y · upscale, x · upscale) fractions within the window, in half precision, for they are
    a hundred megabytes; ``counts`` (channels, Z, y, x) where the loss counts.
    """

    ct_hu: Tensor
    window: tuple[slice, slice]
    channels: tuple[int, ...]
    target: Tensor
    counts: Tensor

    def within(self, rows: slice, columns: slice) -> "Sample":
        """The same slab, with less of it in the loss.

        :param rows, columns: of the input grid; the loss looks at what of its window lies in them.
        """
        kept_rows, kept_columns = _common(self.window[0], rows), _common(self.window[1], columns)
        down, across = counted_from(self.window[0], kept_rows), counted_from(self.window[1], kept_columns)
        upscale = self.target.shape[-1] // self.counts.shape[-1]
        return replace(
            self,
            window=(kept_rows, kept_columns),
            target=self.target[..., _fine(down, upscale), _fine(across, upscale)],
            counts=self.counts[..., down, across],
        )


def _common(one: slice, other: slice) -> slice:
    start = max(one.start, other.start)
    return slice(start, max(start, min(one.stop, other.stop)))


def counted_from(around: slice, span: slice) -> slice:
    """A span, counted from where the one around it begins."""
    return slice(span.start - around.start, span.stop - around.start)


def draw_case(
    cases: Sequence[Case], oar_first: float, rng: Generator, *, emphasis: Sequence[str] = ()
) -> tuple[Case, int | None]:
    """A scan, and the labelled OAR that the slab should show.

    The OAR's place among the scan's channels, if any.

    With the probability `oar_first` an OAR is drawn, a pair counting once, and then one of the scans that show it. Otherwise an
    orbit, which two scans show, would hardly ever be seen. The OARs of `emphasis` are drawn three times as often.
    """
    if rng.random() >= oar_first:
        return _one_of(cases, rng), None
    pairs = [pair for pair in PAIRS for _ in range(3 if any(OARS[channel].name in emphasis for channel in pair) else 1)]
    channel = _one_of(_one_of(pairs, rng), rng)
    shown = [case for case in cases if channel in case.shown]
    if not shown:
        return _one_of(cases, rng), None
    case = _one_of(shown, rng)
    return case, case.channels.index(channel)


def _one_of(items: Sequence[T], rng: Generator) -> T:
    return items[int(rng.integers(len(items)))]


def draw_sample(
    case: Case,
    grid: GridConfig,
    slices: int,
    augment: AugmentConfig,
    rng: Generator,
    *,
    oar: int | None = None,
    device: torch.device = CPU,
    same_way_round: bool = False,
) -> Sample:
    """A random slab of a case, on a device.

    `slices` predicted slices thick; `oar` is the labelled OAR to show, if any. `same_way_round`: mirrored where a served network
    would mirror it.

    All that is random but the noise is drawn here on the CPU; what costs time, the resampling, is done where the slab is wanted.
    """
    extent = (slices * grid.spacing_mm[0], grid.size * grid.spacing_mm[1], grid.size * grid.spacing_mm[2])
    deformation = draw_deformation(augment, rng, extent_mm=extent)
    middle_mm = draw_middle(case, slices * grid.spacing_mm[0], rng, oar=oar)
    sample = sample_slab(
        case, grid, slices=slices, middle_mm=middle_mm, deformation=deformation, augment=augment, rng=rng, device=device
    )
    return mirror_image(sample) if same_way_round and bool(more_at_high_x(sample.ct_hu[None, None])) else sample


def mirror_image(sample: Sample) -> Sample:
    """The slab of the mirrored patient: left and right organs exchanged."""
    rows, columns = sample.window
    size = sample.ct_hu.shape[-1]
    return Sample(
        ct_hu=sample.ct_hu.flip(-1),
        window=(rows, slice(size - columns.stop, size - columns.start)),
        channels=tuple(MIRRORED[channel] for channel in sample.channels),
        target=sample.target.flip(-1),
        counts=sample.counts.flip(-1),
    )


def more_at_high_x(ct_hu: Tensor) -> Tensor:
    """Whether a slab holds more at high x than at low x.

    By Hounsfield units above air and the distance to the middle. (N, 1, Z, Y, X) to (N,).

    It is reckoned in whole numbers, in half precision too, so that the mirror image's answer is the opposite, unless both sides
    hold exactly as much.
    """
    columns = ct_hu.shape[-1]
    aside = 2 * torch.arange(columns, device=ct_hu.device) - (columns - 1)
    held = (ct_hu.clamp(AIR_HU, -AIR_HU) - AIR_HU).round().long().sum((1, 2, 3))  # (N, X)
    return (held * aside).sum(-1) > 0


def draw_middle(case: Case, slab_mm: float, rng: Generator, *, oar: int | None = None) -> float:
    """The middle of a slab in mm from the foot end.

    Three times in ten anywhere, else near a slice of a labelled OAR.
    """
    slice_mm = case.spacing_mm[0]
    length_mm = case.ct.shape[0] * slice_mm
    if rng.random() < 0.3:
        return float(rng.uniform(min(slab_mm, length_mm) / 4, length_mm - min(slab_mm, length_mm) / 4))
    drawn = case.drawn[rng.integers(len(case.channels)) if oar is None else oar]
    if not drawn.any():
        return float(length_mm / 2)
    return float((rng.choice(np.flatnonzero(drawn)) + 0.5) * slice_mm + rng.uniform(-slab_mm, slab_mm) / 3)


def sample_slab(
    case: Case,
    grid: GridConfig,
    *,
    slices: int,
    middle_mm: float,
    deformation: Deformation,
    augment: AugmentConfig,
    rng: Generator,
    device: torch.device = CPU,
) -> Sample:
    """The slab around `middle_mm` of a case, deformed and changed."""
    z_mm, y_mm, x_mm = grid.positions(slices + grid.context_slices - 1)
    source_slices = (middle_mm + z_mm * deformation.stretch_z) / case.spacing_mm[0] - 0.5
    where = _normalised(case, deformation.in_plane(z_mm, y_mm, x_mm, device))
    density, known = _resample(*_known_hu(case, source_slices, device), where).unbind(1)  # (Z + 20, Y, X) each
    kept = draw_cut((len(z_mm), grid.size, grid.size), augment, rng)
    if kept is not None:
        density, known = (volume * torch.from_numpy(kept).to(device) for volume in (density, known))
    ct_hu = change_intensities(density + AIR_HU, augment, rng).masked_fill_(known <= 0, AIR_HU)  # cut regions hold no noise

    context = (grid.context_slices - 1) // 2
    inner = known[context : context + slices] > 0.99
    whole = bool(rng.random() < 0.15)
    window = (slice(0, grid.size), slice(0, grid.size)) if whole else loss_window(inner)
    near = functional.max_pool2d(inner[None].float(), 2 * FAR_VOXELS + 1, 1, FAR_VOXELS)[0] > 0
    source_slices = source_slices[context : context + slices]
    labels = _label_fractions(
        case,
        grid,
        slices=source_slices,
        z_mm=z_mm[context : context + slices],
        deformation=deformation,
        window=window,
        device=device,
    )
    inside = inner[:, *window]  # (Z, y, x)
    counts = (_labelled(case, source_slices).to(device)[:, :, None, None] & inside) | ~near[:, *window]
    channels = tuple(MIRRORED[c] for c in case.channels) if deformation.mirror else case.channels
    target = (labels * enlarged(inside, grid.upscale)).half()
    return Sample(ct_hu, window, channels, target, counts)


def loss_window(known: Tensor) -> tuple[slice, slice]:
    """Rows and columns around what is known, with a margin.

    Of a slab (Z, Y, X).
    """
    size = known.shape[1]
    spans = []
    for axis in (1, 2):
        found = torch.nonzero(known.any(0).any(2 - axis)).flatten()
        low, high = (int(found[0]), int(found[-1]) + 1) if len(found) else (size // 4, 3 * size // 4)
        spans.append(slice(max(low - MARGIN_VOXELS, 0), min(high + MARGIN_VOXELS, size)))
    return spans[0], spans[1]


def _centred(count: int, spacing_mm: float) -> F32:
    return ((np.arange(count) - (count - 1) / 2) * spacing_mm).astype(np.float32)


def _known_hu(case: Case, slices: F32, device: torch.device) -> tuple[Tensor, F32]:
    """HU above air, 0 where unknown, and the known mask, (z, 2, y, x), of the source slices in question; those, renumbered."""
    first = max(int(np.floor(slices.min())), 0)
    codes = torch.from_numpy(case.ct[first : max(int(np.ceil(slices.max())) + 1, first + 1)]).to(device)
    above_air = torch.from_numpy(HU_OF_CODE - np.float32(AIR_HU)).to(device)[codes.long()]
    return torch.stack([above_air, (codes > 0).float()], dim=1), slices - np.float32(first)


def _normalised(case: Case, in_plane_mm: Tensor) -> Tensor:
    """Offsets (2, Z, Y, X) from the middle of the body to positions (Z, Y, X, 2) for grid_sample: x first, edges at -1 and 1."""
    centre = case.body_centre_mm
    sizes = [count * spacing for count, spacing in zip(case.ct.shape[1:], case.spacing_mm[1:], strict=True)]
    y, x = (2 * (in_plane_mm[axis] + centre[axis]) / sizes[axis] - 1 for axis in (0, 1))
    return torch.stack([x, y], dim=-1)


def _resample(volume: Tensor, slices: F32, where: Tensor) -> Tensor:
    """Linear along z at `slices`, then bilinear in plane: (z, C, y, x) to (Z, C, Y, X); 0 outside."""
    return functional.grid_sample(between_slices(volume, slices), where, align_corners=False, padding_mode="zeros")


def between_slices(volume: Tensor, slices: F32) -> Tensor:
    """Linear interpolation along the first axis; 0 outside."""
    whole = torch.cat([torch.zeros_like(volume[:1]), volume, torch.zeros_like(volume[:1])])
    lower = np.floor(slices).astype(np.int64)
    below, above = (torch.from_numpy(np.clip(index, -1, len(volume)) + 1).to(volume.device) for index in (lower, lower + 1))
    weight = torch.from_numpy((slices - lower).astype(np.float32)).to(volume.device)
    return torch.lerp(whole[below], whole[above], weight.view(-1, *[1] * (volume.dim() - 1)))


def _label_fractions(
    case: Case,
    grid: GridConfig,
    *,
    slices: F32,
    z_mm: F32,
    deformation: Deformation,
    window: tuple[slice, slice],
    device: torch.device,
) -> Tensor:
    """Fractions (channels, Z, y · upscale, x · upscale) of the labelled organs within the window."""
    fine = grid.upscale
    _, y_mm, x_mm = grid.positions(1, fine)
    rows, columns = _fine(window[0], fine), _fine(window[1], fine)
    where = _normalised(case, deformation.in_plane(z_mm, y_mm[rows], x_mm[columns], device))
    first = max(int(np.floor(slices.min())), 0)
    source = slice(first, max(int(np.ceil(slices.max())) + 1, first))
    out = torch.zeros((len(case.channels), len(slices), *where.shape[1:3]), device=device)
    present = np.flatnonzero(case.drawn[:, source].any(axis=1))
    if len(present):
        codes = torch.from_numpy(case.labels[present, source]).to(device).transpose(0, 1)  # (z, C, y, x)
        found = _resample(to_fraction(codes, case.label_full), slices - first, where)
        out[torch.from_numpy(present).to(device)] = found.transpose(0, 1)
    return out


def to_fraction(codes: Tensor, full: int) -> Tensor:
    """`Case.fraction_of_label` of both raters, on any device: label bytes to fractions."""
    return ((codes >> 4) + (codes & 15)).float().div_(2 * full).clamp_(max=1.0)


def _fine(span: slice, factor: int) -> slice:
    return slice(span.start * factor, span.stop * factor)


def _labelled(case: Case, slices: F32) -> Tensor:
    """In which slices of the slab each channel is labelled, (channels, Z)."""
    nearest = np.rint(slices)
    ranges = np.array(case.labelled_slices)
    return torch.from_numpy((nearest >= ranges[:, :1]) & (nearest <= ranges[:, 1:]))


def enlarged(mask: Tensor, factor: int) -> Tensor:
    """Each voxel to factor x factor voxels in plane.

    Of (…, Y, X).
    """
    return mask.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)


def to_subpixels(fine: Tensor, factor: int) -> Tensor:
    """Voxels in the order of `Head.subpixels`.

    (C, Z, Y · factor, X · factor) to (C, factor, factor, Z, Y, X).
    """
    channels, slices, rows, columns = fine.shape
    split = fine.reshape(channels, slices, rows // factor, factor, columns // factor, factor)
    return split.permute(0, 3, 5, 1, 2, 4)


def no_deformation() -> Deformation:
    """The deformation that changes nothing."""
    none: npt.NDArray[Any] = np.zeros((2, 1, 1, 1), np.float32)
    return Deformation(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), none, 100.0, 1.0, mirror=False)


def cases_by_source(cases: Sequence[Case], source: str) -> list[Case]:
    """The cases that come from one source."""
    return [case for case in cases if case.source == source]
