"""From the CT of a series to masks.

Each part of a model looks where its manifest says, and draws the organs that it owns.

A part is fed the CT on its own lattice (``resampling``), predicts in slabs or at once (``slabs``) or in patches (``patches``),
keeps what lies in the body, and draws on the CT's grid (``to_ct_grid``). A part that looks at a box waits for the part that finds
the organs in it (``anchors``), and may draw some of its organs together with that one (``shared``). At last the edges that tissue
draws move to it (``edges``).

Slabs, and boxes that do not look around each other's organs, may be predicted side by side. They are drawn one after another, in
one order (of boxes the largest first), so how many run at once decides nothing.
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from oarlock.ahead import ahead
from oarlock.arrays import Mask
from oarlock.facts import ModelFacts, Notice
from oarlock.geometry.body import body_mask, within_body
from oarlock.geometry.grid import Grid
from oarlock.geometry.masks import OARMasks, bounding_box, grow
from oarlock.organs.catalogue import OAR
from oarlock.segmentation.anchors import Anchor, AnchorFinder, box_around, box_at
from oarlock.segmentation.certainty import Certainty, CertaintyMeter
from oarlock.segmentation.edges import move_edges
from oarlock.segmentation.manifest import InputSpec, ModelManifest, Part
from oarlock.segmentation.patches import predict_in_patches
from oarlock.segmentation.resampling import ModelInput, Region, body_region, cut_in_plane, refine, to_model_grid, to_own_grid
from oarlock.segmentation.rivals import rivals
from oarlock.segmentation.shared import Claim, ClaimKeeper, share_slabs
from oarlock.segmentation.slabs import Predictor, Volume, predict_at_once, predict_in_slabs
from oarlock.segmentation.to_ct_grid import probabilities_to_masks

Progress = Callable[[float], Any]

_BODY_SPEC = InputSpec("", (4.0, 4.0, 4.0), None, 1, -1000.0)
"""The lattice on which the body is found for a part that is fed the CT's own voxels."""

_WHOLE: Final = (slice(None), slice(None))

_BESIDE_BODY: Final = 2
"""Voxels of a lattice that are kept around the body, so that an organ, interpolated one voxel further, ends before an edge."""

AT_ONCE: Final = 2
"""Slabs or boxes that are predicted side by side, each on half of the cores.

A network is not parallel throughout, so that two fill the cores better than one; each more needs the memory of one more.
"""

Slabs = Iterable[tuple[int, Volume]]


@dataclass(frozen=True, eq=False)
class Model:
    """A model that can predict.

    :param predictors: by the name of the part; see :data:`oarlock.segmentation.slabs.Predictor`.
    :param device: where it runs: ``cpu`` or ``cuda``.
    :param side_by_side: the parts of which ``AT_ONCE`` predictions may run at the same time, from threads of this process.
    """

    manifest: ModelManifest
    predictors: Mapping[str, Predictor]
    device: str
    side_by_side: frozenset[str] = frozenset()

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts(self.manifest.name, self.manifest.version, self.manifest.sha256)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a model drew on one series, before it is cleaned up.

    :param masks: on the grid of the CT.
    :param certainty: for each organ that was looked for its volume at three thresholds.
    :param notices: which organs were not looked for, and why.
    """

    masks: OARMasks
    certainty: Mapping[OAR, Certainty]
    notices: tuple[Notice, ...]


def segment(
    hu: npt.NDArray[np.int16],
    grid: Grid,
    model: Model,
    *,
    progress: Progress = lambda _: None,
    spare: Callable[[], Any] = lambda: None,
) -> Segmentation:
    """Masks of every organ that the model draws.

    :param hu: (z, y, x) Hounsfield units on ``grid``.
    :param progress: told the share of the work that is done, in [0, 1], in this thread: 0 before anything is predicted. May raise
        to stop.
    :param spare: called in this thread when the last of slabs side by side is under way alone: a core has nothing to do. Called
        for each part that slides so; not where slabs go one by one.
    :raises InferenceFailed: as the predictor raises it; likewise DeviceOutOfMemory.
    """
    manifest = model.manifest
    run = _Run(hu, grid, manifest, OARMasks.empty(manifest.oars, grid.shape))
    batches = _batches(manifest.parts)
    order = [part.name for batch in batches for part in batch]
    for batch in batches:
        sights = [run.look(part) for part in batch]
        shares = [_share(progress, order.index(part.name), len(order)) for part in batch]
        with closing(_predicted(model, batch, sights, shares, spare)) as slabs:
            for part, sight, share in zip(batch, sights, shares, strict=True):
                if sight is None:
                    run.do_without(part)
                    continue
                share(0.0)
                run.draw(part, sight, next(slabs))
                share(1.0)
    run.settle_rivals()
    run.settle_edges()
    notices = [notice for part in manifest.parts for notice in run.said.get(part.name, ())]
    return Segmentation(run.masks, run.certainty, tuple(notices))


def _batches(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts in their order: boxes that are seen whole together, up to one that looks around what another of them finds.

    Of boxes that go together the largest is the first: begun last, it would keep one core for itself.
    """
    batches: list[list[Part]] = []
    for part in parts:
        before = batches[-1] if batches else []
        joins = before and all(_seen_whole(one) is not None for one in (*before, part))
        if joins and part.look.found_by not in {one.name for one in before}:
            before.append(part)
        else:
            batches.append([part])
    return [sorted(batch, key=_input_voxels, reverse=True) for batch in batches]


def _input_voxels(part: Part) -> int:
    """How many voxels a part that sees its box at once is shown; 0 for a part that slides."""
    return (part.input.slices or 0) * math.prod(part.input.size_yx or ())


def _share(progress: Progress, done: int, parts: int) -> Progress:
    """Progress within one of several parts."""
    return lambda share: progress((done + share) / parts)


@dataclass(frozen=True, eq=False)
class _Sight:
    """What a part is shown.

    :param window: (y, x) of what it is shown, in which the body lies; the rest of its answer is not kept.
    :param lattice: of the window: where the predictions lie, but for ``upscale``.
    :param body: (z, y, x) of ``lattice``: nothing is drawn elsewhere.
    :param agreed: whether the organs that it looks around lie as they should to each other.
    :param channels: of its answer, those that anything is made of; the others are not kept.
    """

    fed: ModelInput
    window: tuple[slice, slice]
    lattice: Grid
    body: Mask
    agreed: bool
    channels: tuple[int, ...]


@dataclass(eq=False)
class _Run:
    """One series on its way through the parts of a model."""

    hu: npt.NDArray[np.int16]
    grid: Grid
    manifest: ModelManifest
    masks: OARMasks
    certainty: dict[OAR, Certainty] = field(default_factory=dict)
    said: dict[str, list[Notice]] = field(default_factory=dict)
    _anchors: dict[tuple[str, OAR], Anchor | None] = field(default_factory=dict)
    _claims: dict[tuple[str, OAR], Claim] = field(default_factory=dict)
    _lattices: dict[str, Grid] = field(default_factory=dict)
    _body: "tuple[Grid, Mask] | None" = None

    def look(self, part: Part) -> _Sight | None:
        """What a part is shown; None where nothing of what it looks around was found."""
        if not self._can_look(part):
            return None
        region, agreed = self._region(part)
        fed = self._fed(part, region)
        finer = _seen_whole(part)
        lattice = fed.grid if finer is None else refine(fed.grid, finer)
        body = self._body_on(part, fed, lattice)
        window = _window(body) if part.patches is None and finer is None else _WHOLE
        return _Sight(fed, window, cut_in_plane(lattice, window), body[:, *window], agreed, self._channels(part))

    def draw(self, part: Part, sight: _Sight, slabs: Slabs) -> None:
        """Draw the organs that a part owns, and find those that later parts look around.

        :param slabs: what the part predicted.
        """
        owned, shared = self.manifest.organs_of(part)
        if not sight.agreed:
            sentence = "it was looked for around {}, and the model found these where they contradict each other."
            self._say("contours.box_uncertain", owned, sentence, part)
        lattice, finer = sight.lattice, _seen_whole(part)
        oars, thresholds = [part.oars[i] for i in sight.channels], [part.thresholds[i] for i in sight.channels]
        alone = owned - shared.keys()
        meter = CertaintyMeter(lattice, oars, thresholds, wanted=alone)
        finder = AnchorFinder(self.manifest.found_by(part), oars, thresholds)
        keeper = ClaimKeeper(self.manifest.lent_by(part), oars)
        claims = keeper.over(finder.over(meter.over(within_body(slabs, sight.body))))
        if shared:
            claims = iter(answers := list(claims))  # the one answer of a box
        probabilities_to_masks(self.masks, claims, lattice, self.grid, channels=oars, thresholds=thresholds, owned=alone)
        self.certainty |= meter.found()
        found_on = refine(lattice, _output_shape(part, lattice)) if finer is None else lattice
        self._anchors |= {(part.name, oar): finder.found(oar, found_on) for oar in self.manifest.found_by(part)}
        self._claims |= {(part.name, oar): claim for oar, claim in keeper.kept(found_on).items()}
        self._lattices[part.name] = found_on
        if shared:
            (_, answer) = answers[0]
            self._draw_shared(part, shared, {oar: answer[oars.index(oar)] for oar in shared}, found_on)

    def do_without(self, part: Part) -> None:
        """A box that cannot be laid: what is shared with the finder is drawn by that one alone, the rest is not drawn."""
        owned, shared = self.manifest.organs_of(part)
        self._anchors |= {(part.name, oar): None for oar in self.manifest.found_by(part)}
        why, finder = "as the model found nothing of what it is looked for around ({}).", part.look.found_by or ""
        if shared and finder in self._lattices:
            self._draw_shared(part, shared, {}, self._lattices[finder])
        drawn = {oar for oar in shared if self.masks.crop(oar) is not None}
        self._say("contours.drawn_by_finder", drawn, f"drawn by the part '{finder}' alone, {why}", part)
        self._say("contours.not_looked_for", owned - drawn, f"not drawn, {why}", part)

    def _draw_shared(self, part: Part, shared: Mapping[OAR, float], answer: Mapping[OAR, Volume], lattice: Grid) -> None:
        """Draw what a part shares with its finder, on a lattice that is continued beyond the box."""
        claims = {oar: claim for oar in shared if (claim := self._claims.get((part.look.found_by or "", oar))) is not None}
        thresholds = [part.thresholds[part.oars.index(oar)] for oar in shared]
        grid, slabs = share_slabs(claims, answer, lattice, shared, thresholds)
        meter = CertaintyMeter(grid, tuple(shared), thresholds)
        probabilities_to_masks(self.masks, meter.over(slabs), grid, self.grid, channels=tuple(shared), thresholds=thresholds)
        self.certainty |= meter.found()

    def _fed(self, part: Part, region: Region | None) -> ModelInput:
        """What a part is shown. One that goes in patches resamples for itself, as its training did."""
        if part.patches is not None:
            return to_own_grid(self.hu, self.grid, part.input.padding_hu, region)
        return to_model_grid(self.hu, self.grid, part.input, region)

    def _found(self, part: Part) -> dict[OAR, Anchor]:
        """The organs that a part looks around, as far as they were found."""
        found = {oar: self._anchors[part.look.found_by or "", oar] for oar in part.look.organs}
        return {oar: anchor for oar, anchor in found.items() if anchor is not None}

    def _can_look(self, part: Part) -> bool:
        """A box of fixed size needs one organ to lie right, a box around organs all of them."""
        found, around = len(self._found(part)), len(part.look.around)
        return found == around or (found > 0 and part.look.margin_mm is None)

    def _region(self, part: Part) -> tuple[Region | None, bool]:
        """The box that a part looks at, None for the whole scan, and whether the organs in it agree."""
        look, found = part.look, self._found(part)
        if look.at == "scan":
            return None, True
        if look.at == "body":
            return body_region(self.hu, self.grid), True
        if look.margin_mm is not None:
            return box_around(list(found.values()), look.margin_mm), True
        return box_at([(found[oar], offset) for oar, offset in look.around if oar in found])

    def _body_on(self, part: Part, fed: ModelInput, lattice: Grid) -> Mask:
        """Where the body is on a lattice. A box shows no whole body: it asks the first part that saw one."""
        if part.patches is not None and self._body is None:
            coarse = to_model_grid(self.hu, self.grid, _BODY_SPEC)
            self._body = (coarse.grid, body_mask(coarse.volume))
        elif part.patches is None and part.look.at != "box":
            body = body_mask(fed.volume)
            self._body = self._body or (fed.grid, body)
            return body
        assert self._body is not None  # a box is found by a part that was there before
        return _sampled(*self._body, lattice)

    def _channels(self, part: Part) -> tuple[int, ...]:
        """The channels that are used."""
        if part.patches is not None:
            return tuple(range(len(part.oars)))
        used = self.manifest.used_of(part)
        return tuple(i for i, oar in enumerate(part.oars) if oar in used)

    def _say(self, code: str, owned: Iterable[OAR], sentence: str, part: Part) -> None:
        """A warning for each organ that a part draws."""
        around = " and ".join(oar.name for oar in part.look.organs)
        for oar in self.masks.oars:
            if oar in owned:
                self.said.setdefault(part.name, []).append(Notice(code, f"{oar}: {sentence.format(around)}"))

    def settle_rivals(self) -> None:
        """Where rivals of two parts claim a voxel, the part with the finer voxels keeps it."""
        owners = self.manifest.owners
        for oar in self.masks.oars:
            finer = [rival for rival in rivals(oar) if rival in owners and owners[rival] != owners[oar]]
            for rival in finer:
                if self._voxel_mm3(rival) < self._voxel_mm3(oar) and (crop := self.masks.crop(rival)) is not None:
                    box, theirs = crop
                    ours = np.not_equal(self.masks.bits[box] & self.masks.bit(oar), 0)
                    self.masks.put_inside(oar, box, ours & ~theirs)

    def settle_edges(self) -> None:
        """Move the edges that tissue draws; what an organ measures then is what was found of it."""
        edges = self.manifest.edges
        move_edges(self.masks, self.hu, self.grid, edges, at_once=AT_ONCE)
        for oar in edges.keys() & self.certainty.keys():
            self.certainty[oar] = replace(self.certainty[oar], drawn_ml=self.masks.volume_ml(oar, self.grid))

    def _voxel_mm3(self, oar: OAR) -> float:
        return self.manifest.part_named(self.manifest.owners[oar]).voxel_mm3 or 0.0


def _predicted(
    model: Model,
    batch: Sequence[Part],
    sights: Sequence[_Sight | None],
    shares: Sequence[Progress],
    spare: Callable[[], Any],
) -> Generator[Slabs]:
    """What each part of a batch predicts where it can look, in their order."""
    laid = [(part, sight, share) for part, sight, share in zip(batch, sights, shares, strict=True) if sight is not None]
    calls = [
        partial(predict_at_once, sight.fed.volume, _kept(model.predictors[part.name], part, sight), size)
        for part, sight, _ in laid
        if (size := _seen_whole(part)) is not None
    ]
    at_once = AT_ONCE if all(part.name in model.side_by_side for part in batch) else 1
    if calls:
        with closing(ahead(calls, at_once)) as answers:
            yield from ([answer] for answer in answers)
        return
    for part, sight, share in laid:
        with closing(_slid(model, part, sight, share, spare)) as slabs:
            yield slabs


def _slid(model: Model, part: Part, sight: _Sight, progress: Progress, spare: Callable[[], Any]) -> Generator[tuple[int, Volume]]:
    """The probabilities of a part that slides; slabs that show no body are left out."""
    fed, predictor = sight.fed, model.predictors[part.name]
    if part.patches is not None:
        return predict_in_patches(fed.volume, fed.grid.spacing_mm, predictor, part, needed=sight.body, progress=progress)
    outer = 0 if part.look.at == "scan" else part.input.context_slices // 2
    at_once = AT_ONCE if part.name in model.side_by_side else 1
    kept = _kept(predictor, part, sight)
    return predict_in_slabs(
        fed.volume,
        kept,
        part.input,
        outer=outer,
        needed=_shows(sight.body),
        progress=progress,
        at_once=at_once,
        all_begun=spare,
    )


def _kept(predictor: Predictor, part: Part, sight: _Sight) -> Predictor:
    """A predictor some channels of whose answer are kept, within the window."""
    upscale, whole = part.output.upscale, sight.window == _WHOLE
    y, x = _WHOLE if whole else (slice(side.start * upscale, side.stop * upscale) for side in sight.window)
    needs_all = whole and len(sight.channels) == len(part.oars)

    def predict(hu: Volume) -> Volume:
        answer = predictor(hu)
        return answer if needs_all else answer[:, sight.channels, :, y, x]

    return predict


def _window(body: Mask) -> tuple[slice, slice]:
    """The rows and columns in which a body lies, and a few around."""
    box = bounding_box(body)
    if box is None:
        return _WHOLE
    z, y, x = body.shape
    return grow(box, _BESIDE_BODY, (z, y, x))[1:]


def _seen_whole(part: Part) -> tuple[int, int, int] | None:
    """The shape of the answer of a part that sees its box at once; None for a part that slides."""
    return part.output.size_zyx if part.patches is None else None


def _shows(body: Mask) -> Mask:
    """(z,) whether a slice or one beside it shows any body: from nothing to an organ probabilities are interpolated."""
    return np.asarray(ndimage.binary_dilation(np.asarray(body.any(axis=(1, 2)))))


def _output_shape(part: Part, lattice: Grid) -> tuple[int, int, int]:
    z, y, x = lattice.shape
    return z, y * part.output.upscale, x * part.output.upscale


def _sampled(of: Grid, mask: Mask, lattice: Grid) -> Mask:
    """A mask on another canonical lattice: each voxel is that of the nearest one."""
    ours, theirs = lattice.along_patient_axes(), of.along_patient_axes()
    assert ours is not None  # canonical grids
    assert theirs is not None
    nearest = [
        np.abs(to.positions_mm[:, None] - at.positions_mm[None]).argmin(axis=1) for to, at in zip(ours, theirs, strict=True)
    ]
    return np.asarray(mask[np.ix_(*nearest)])
