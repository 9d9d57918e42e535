"""What the review page costs, in headless Chromium.

The worker's files, the first slice, and the time of a slice.

    python -m benchmarks.review FOLDER_OF_A_CT_SERIES

Organs are as many ellipsoids as the catalogue has, of the size of a head's: the network is not run. It prints what the two files
take, when the first slice and all slices are there, and how long one redraw of each cut takes.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import httpx
import numpy as np
from playwright.sync_api import sync_playwright

from oarlock.ct.series import CTSeries, check_headers, read_ct_series
from oarlock.geometry.masks import OARMasks
from oarlock.organs.catalogue import OARS
from oarlock.pictures.review import write_review
from oarlock.store.files import QA_REPORT, REVIEW, REVIEW_DATA
from tests.service.conftest import make_settings
from tests.service.running import parts, serve, write_model, zipped
from tests.web.planted import planted_redis

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
DRAWN = """() => [...window.oarlock.planes.values()].map((plane) => {
  const { state } = window.oarlock, keep = state.at[plane.axis], spent = [];
  for (let i = 0; i < 100; i++) { state.at[plane.axis] = Math.floor((plane.count * (i + 0.5)) / 100); plane.draw(); spent.push(plane.spent); }
  state.at[plane.axis] = keep;
  spent.sort((a, b) => a - b);
  return [spent[50], spent[95]];
})"""  # noqa: E501 - a script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", type=Path)
    files = sorted(path for path in parser.parse_args().series.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as scratch:
        run(Path(scratch), files)


def run(folder: Path, files: list[Path]) -> None:
    """Measure on one series."""
    series = read_ct_series(check_headers(files, refuse_gaps=False))
    masks = ellipsoids(series)
    began, cpu = perf_counter(), process_time()
    write_review(folder / REVIEW, folder / REVIEW_DATA, series.hu, series.header.grid, masks, model="benchmark")
    print(f"files      {perf_counter() - began:.2f} s, {process_time() - cpu:.2f} CPU s")
    sizes = [(folder / name).stat().st_size for name in (REVIEW, REVIEW_DATA)]
    print(f"           head {sizes[0] / 1e3:.0f} kB, data {sizes[1] / 1e6:.1f} MB, of {series.hu.nbytes / 1e6:.0f} MB of pixels")
    write_model(folder / "models")
    with (
        planted_redis(folder) as url,
        serve(make_settings(folder, url, max_upload_files=5000, max_upload_bytes=10**9)) as running,
    ):
        posted = httpx.post(f"{running.url}/v1/jobs", files=parts([zipped(files)]), timeout=600).raise_for_status().json()
        results = {name: (folder / name).read_bytes() for name in (REVIEW, REVIEW_DATA)}
        running.finish(posted, results | {QA_REPORT: json.dumps({"checks": [], "comparisons": [], "organs": []}).encode()})
        look(f"{running.url}/jobs/{posted['id']}")


def ellipsoids(series: CTSeries) -> OARMasks:
    """As many organs as the catalogue has, on a ring.

    The largest is like a brain; the ring is around the middle.
    """
    grid, rng = series.header.grid, np.random.default_rng(1)
    masks = OARMasks.empty(OARS, grid.shape)
    for number, oar in enumerate(OARS):
        radius_mm = 70.0 if number == 0 else float(rng.uniform(6, 40))
        middle = np.array(grid.shape) * rng.uniform(0.35, 0.65, 3)
        reach = [radius_mm / spacing for spacing in grid.spacing_mm]
        box = tuple(
            slice(max(0, int(at - far)), min(n, int(at + far) + 1)) for at, far, n in zip(middle, reach, grid.shape, strict=True)
        )
        z, y, x = np.ogrid[box]
        inside = sum(((along - at) / far) ** 2 for along, at, far in zip((z, y, x), middle, reach, strict=True)) < 1
        masks.put_inside(oar, (box[0], box[1], box[2]), inside)
    return masks


def look(url: str) -> None:
    """Open the page as a person does."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(120_000)
        began = perf_counter()
        page.goto(url, wait_until="commit")
        page.wait_for_selector("body[data-first]")
        print(f"page       first slice after {page.evaluate('document.body.dataset.first')} ms")
        page.wait_for_selector("body[data-ready]")
        print(f"           all slices after {perf_counter() - began:.1f} s")
        for name, (median, most) in zip(("axial", "coronal", "sagittal"), page.evaluate(DRAWN), strict=True):
            print(f"{name:10} a slice {median:.1f} ms (median), {most:.1f} ms (95 %)")
        browser.close()


if __name__ == "__main__":
    main()
