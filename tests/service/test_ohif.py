"""OHIF, a viewer that no one here wrote, opens the series and the RTSTRUCT of a job from our DICOMweb.

Its published build has 50 MB and is not in the repository: OARLOCK_OHIF names its folder (docs/dicomweb.md says how it is got).
OARLOCK_OHIF_PICTURE names a file that the screenshot goes to.
"""

import mimetypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from oarlock.ct.series import check_headers
from oarlock.ct.series_geometry import write_series_geometry
from oarlock.facts import ModelFacts
from oarlock.organs.catalogue import OARS
from oarlock.phantom.patient import Phantom, write_ct_series
from oarlock.pictures.slice_archive import save_rendering
from oarlock.rtstruct.writer import Authorship, write_rtstruct
from oarlock.scopes import Scope
from oarlock.store.files import GEOMETRY, RENDERING, RTSTRUCT
from oarlock.store.jobs import JobId
from oarlock.store.keys import KeyStore
from tests.service.conftest import make_settings
from tests.service.running import Running, parts, serve, write_model

pytestmark = pytest.mark.slow

PATIENCE_MS = 120_000

CONFIG = """
window.config = {
  routerBasename: null, extensions: [], modes: [], customizationService: {}, showStudyList: true, maxNumberOfWebWorkers: 2,
  showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false, strictZSpacingForVolumeViewport: true,
  defaultDataSourceName: 'oarlock',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'oarlock',
    configuration: {
      friendlyName: 'Oarlock', name: 'oarlock', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web', wadoUriRoot: '/dicom-web',
      qidoSupportsIncludeField: true, imageRendering: 'wadors', thumbnailRendering: 'wadors', enableStudyLazyLoad: true,
      supportsFuzzyMatching: false, supportsWildcard: true, bulkDataURI: { enabled: true },
    },
  }],
};
"""


@contextmanager
def front(build: Path, service: str, token: str) -> Iterator[str]:
    """What a site puts before the two: OHIF's files, and our DICOMweb under the same origin with a key that stays with us."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/dicom-web"):
                headers = {"Authorization": f"Bearer {token}", "Accept": self.headers.get("Accept", "*/*")}
                headers["Host"] = self.headers["Host"]
                got = httpx.get(f"{service}{self.path}", headers=headers, timeout=60)
                self._answer(got.status_code, got.headers["content-type"], got.content)
            elif self.path.startswith("/app-config.js"):
                self._answer(200, "text/javascript", CONFIG.encode())
            else:
                file = build / urlsplit(self.path).path.lstrip("/")
                file = file if file.is_file() else build / "index.html"
                self._answer(200, mimetypes.guess_type(file.name)[0] or "application/octet-stream", file.read_bytes())

        def _answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(content)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def build() -> Path:
    folder = os.environ.get("OARLOCK_OHIF")
    if not folder:
        pytest.skip("OARLOCK_OHIF is not set: it names the folder dist/ of the package @ohif/app")
    return Path(folder)


def finish(running: Running, phantom: Phantom, folder: Path) -> str:
    """Post the phantom and do what a worker does, with its own masks; gives the study."""
    files = write_ct_series(folder / "ct", phantom.hu, phantom.grid)
    job = httpx.post(f"{running.url}/v1/jobs", files=parts(files), timeout=60).raise_for_status().json()
    header, stored = check_headers(files), running.store.get(JobId(job["id"]))
    facts = ModelFacts(stored.model.name, stored.model.version, stored.model.sha256)
    write_rtstruct(folder / RTSTRUCT, phantom.masks, header, Authorship(stored.id, stored.created_at, facts))
    write_series_geometry(folder / GEOMETRY, header)
    save_rendering(folder / RENDERING, phantom.hu, phantom.grid, phantom.masks)
    running.finish(job, {name: (folder / name).read_bytes() for name in (RTSTRUCT, GEOMETRY, RENDERING)})
    return str(header.study_instance_uid)


def test_ohif_opens_a_job_and_shows_21_rois_and_asks_nobody_else(
    build: Path, tmp_path: Path, redis_url: str, phantom: Phantom
) -> None:
    from playwright.sync_api import sync_playwright

    write_model(tmp_path / "models")
    with serve(make_settings(tmp_path, redis_url, max_upload_files=1_000, rate_per_minute=0)) as running:
        study = finish(running, phantom, tmp_path)
        _, token = KeyStore(running.service.database).create("viewer", [Scope.JOBS_READ])
        with front(build, running.url, token) as url, sync_playwright() as playwright:
            arguments = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            asked: set[str] = set()
            page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
            page.goto(f"{url}/viewer?StudyInstanceUIDs={study}")
            page.add_style_tag(
                content=".shepherd-modal-overlay-container, .shepherd-element { display: none !important }"
            )  # a tour
            thumbnail = page.locator('[data-cy="study-browser-thumbnail-no-image"]', has_text="RTSTRUCT").first
            thumbnail.wait_for(timeout=PATIENCE_MS)
            page.get_by_text("Confirm and hide").click(timeout=PATIENCE_MS)
            shown = page.get_by_text(f"/{len(phantom.hu)})")  # a double click has no effect before the CT is there
            shown.first.wait_for(timeout=PATIENCE_MS)
            page.wait_for_load_state("networkidle", timeout=PATIENCE_MS)
            thumbnail.dblclick()
            page.get_by_text("Yes", exact=True).click(timeout=PATIENCE_MS)
            page.locator('[data-cy="panelSegmentation-btn"]').click(timeout=PATIENCE_MS)
            rows = page.locator('[data-cy="data-row"]')
            rows.nth(len(OARS) - 1).wait_for(timeout=PATIENCE_MS)
            names = [text.splitlines()[-1] for text in rows.all_inner_texts()]
            if picture := os.environ.get("OARLOCK_OHIF_PICTURE"):
                page.locator('[data-cy="viewport-pane"]').hover()
                for _ in range(62):
                    page.mouse.wheel(0, 100)
                    page.wait_for_timeout(60)
                page.screenshot(path=picture)
            browser.close()
    assert asked == {urlsplit(url).netloc}
    assert names == [oar.name for oar in OARS]
