"""The review page in a real browser, on a job whose CT is gone."""

from typing import Any

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from oarlock.phantom.patient import Phantom
from oarlock.pictures.planes import to_axes
from oarlock.store import audit
from tests.web.conftest import Tab, hold, wait_for
from tests.web.planted import EDITED, SHIFTED, Planted

PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True}

pytestmark = pytest.mark.slow


def state(page: Page, expression: str) -> Any:
    return page.evaluate(f"(({{ state, planes }}) => {expression})(window.oarlock)")


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in {"serious", "critical"}]


def test_the_pixel_under_the_pointer_is_the_voxel_of_the_series(tab: Tab, planted: Planted, coarse_phantom: Phantom) -> None:
    page = tab.open(planted.page)
    turned = to_axes(coarse_phantom.grid).turned(coarse_phantom.hu)
    _, oy, ox = state(page, "state.volume.first")
    for plane in ("axial", "coronal", "sagittal"):
        z, y, x = state(page, "state.at")
        found = state(page, f"planes.get('{plane}').voxelAt(...planes.get('{plane}').toScreen([40.2, 60.3]))")
        shown = state(
            page, f"state.volume.head.hu[state.volume.images[{found[0]}][{found[1]} * state.volume.columns + {found[2]}]]"
        )
        true = int(turned[found[0], found[1] + oy, found[2] + ox])
        assert abs(shown - true) <= (8 if true < 300 else 50)
        assert (
            dict(zip(("axial", "coronal", "sagittal"), (z, y, x), strict=True))[plane]
            == found[("axial", "coronal", "sagittal").index(plane)]
        )


def test_a_dosimetrist_finds_what_is_wrong_by_keys_alone(tab: Tab, planted: Planted) -> None:
    page = tab.open(planted.page)
    page.keyboard.press("r")  # none
    page.keyboard.press("r")  # what came with the series
    assert page.locator(".unapproved").inner_text() == "UNAPPROVED"
    assert "oarlock-hn 1.2.3" in page.locator("#model").inner_text()
    page.keyboard.press("a")
    before = state(page, "state.at[0]")
    page.keyboard.press("ArrowUp")
    assert state(page, "state.at[0]") == before + 1
    for _ in range(state(page, "state.findings.length")):
        page.keyboard.press("n")
        if SHIFTED in page.locator("#chosen").inner_text():
            break
    assert SHIFTED in page.locator("#chosen").inner_text()
    [[first, end], *_] = state(page, f"state.organs.find(organ => organ.name === '{SHIFTED}').box")
    assert first <= state(page, "state.at[0]") < end
    facts = page.locator("#chosen").inner_text()
    score = next(one for one in state(page, "state.qa.comparisons")[0]["oars"] if one["oar"] == SHIFTED)
    assert f"{score['surface_dsc']:.3f} at {score['tolerance_rounded_mm']:.2f} mm" in facts
    assert f"{score['surface_dsc_unrounded']:.3f} at {score['tolerance_mm']:.2f} mm" in facts
    assert "beyond the tolerance" in facts
    page.keyboard.press("c")
    page.keyboard.press("0")
    page.wait_for_function("window.oarlock.planes.get('coronal').far.length > 0")
    page.keyboard.press("3")
    assert state(page, "[state.level, state.width]") == [400, 1800]
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("h")
    assert state(page, "[...state.hidden]") == [SHIFTED]


def test_a_click_on_any_finding_stands_the_page_on_its_slice(tab: Tab, planted: Planted) -> None:
    page = tab.open(planted.page)
    findings = state(page, "state.findings.map(one => [one.oar, one.slices.best])")
    assert {oar for oar, _ in findings} >= {SHIFTED, "Cochlea_L"}
    numbers = state(page, "state.volume.head.slice_numbers")
    for place, (_, best) in enumerate(findings):
        page.locator("#findings button").nth(place).click()
        assert numbers[state(page, "state.at[0]")] == best


def test_the_patient_is_named_to_who_asks_and_the_audit_log_says_who_did(tab: Tab, planted: Planted) -> None:
    page = tab.open(planted.page)
    documents = "".join(httpx.get(f"{planted.url}/v1/jobs/{planted.job}{path}").text for path in ("", "/qa", "/review"))
    assert "Phantom, Oarlock" not in page.content()
    assert "Phantom^" not in documents
    page.get_by_role("button", name="Patient", exact=True).click()
    page.wait_for_selector("text=Phantom, Oarlock · PHANTOM")
    *_, last = [one for one in audit.read_entries(planted.running.service.database) if one.action == "result.read"]
    assert (last.job_id, (last.result or "").split()[0]) == (planted.job, "patient")


TILTED = """() => {
  const { state, planes } = window.oarlock, { geometry, volume } = state, [dy, dx] = volume.spacing;
  geometry.drift = volume.z_mm.map((z) => [z * Math.tan(0.3), z * 0.1]);
  const place = ([z, y, x]) => [z, y * dy + geometry.shift(z, 1), x * dx + geometry.shift(z, 2)], wrong = [];
  state.at = [40, 50, 60];
  for (const name of ["coronal", "sagittal"]) {
    const plane = planes.get(name), axis = plane.axis, [, ...here] = place(state.at);
    for (const down of [40.2, 150.7]) {
      const found = plane.voxelAt(...plane.toScreen([down, 230.3])), [, ...there] = place(found);
      const off = Math.abs(there[axis - 1] - here[axis - 1]);
      if (found[0] === 40 || off > volume.spacing[axis - 1] / 2 + 1e-6) wrong.push([name, found, here, there]);
    }
    const lines = [], note = (x, y) => lines.push([x, y]);
    plane.drawCross({ beginPath() {}, stroke() {}, moveTo: note, lineTo: note });
    const under = plane.voxelAt(lines[4][0], lines[0][1]);
    if (under.join() !== state.at.join()) wrong.push([name, "cross", under]);
  }
  return wrong;
}"""


def test_the_cuts_of_a_tilted_series_meet_in_one_point(tab: Tab, planted: Planted) -> None:
    assert tab.open(planted.page).evaluate(TILTED) == []


THINNED = """() => {
  const { state, planes } = window.oarlock, { volume } = state, [dy, dx] = volume.spacing, found = {};
  for (const [name, plane] of planes) {
    const begin = (step) => {
      let place;
      volume.head.window.step = step;
      plane.drawImage({ drawImage: (_, left, top) => (place = [left, top]) });
      return place;
    };
    const one = begin(1), two = begin(2), size = [name === "sagittal" ? dy : dx, dy];
    found[name] = size.map((mm, i) => Math.round(((one[i] - two[i]) / (plane.scale * mm)) * 1e6) / 1e6);
  }
  return found;
}"""


def test_of_every_second_voxel_each_lies_in_the_middle_of_its_pixel(tab: Tab, planted: Planted) -> None:
    found = tab.open(planted.page).evaluate(THINNED)
    assert found == {"axial": [0.5, 0.5], "coronal": [0.5, 0], "sagittal": [0.5, 0]}


def test_a_report_of_a_version_without_checks_does_not_read_as_all_clear(tab: Tab, planted: Planted) -> None:
    older: dict[str, Any] = {"verdict": None, "organs": [], "checks": [], "comparisons": []}
    tab.page.route("**/v1/jobs/*/qa", lambda route: route.fulfill(json=older))
    page = tab.open(planted.page)
    assert page.locator("#verdict").inner_text() == "Not checked"
    assert "did not check them" in page.locator("#findings").inner_text()


FARTHEST = """name => {
  const { state, planes } = window.oarlock, [[first, end]] = state.organs.find((organ) => organ.name === name).box;
  const plane = planes.get("axial"), found = [];
  for (const organ of state.organs) if (organ.name !== name) state.hidden.add(organ.name);
  for (let z = first; z < end; z++) {
    state.at[0] = z;
    state.version++;
    plane.draw();
    found.push(...plane.far.map((piece) => piece.mm));
  }
  return [Math.min(...found), Math.max(...found)];
}"""

WITHOUT_REFERENCE = """() => {
  const { state, planes } = window.oarlock;
  state.overlay = -1;
  state.version++;
  planes.get("axial").draw();
  return planes.get("axial").far.length;
}"""


def test_red_lies_between_the_tolerance_and_the_hausdorff_distance_of_the_report(tab: Tab, planted: Planted) -> None:
    page = tab.open(planted.page)
    report = httpx.get(f"{planted.url}/v1/jobs/{planted.job}/qa").json()
    score = next(one for one in report["comparisons"][0]["oars"] if one["oar"] == SHIFTED)
    page.locator("#overlay").select_option("0")
    nearest, farthest = page.evaluate(FARTHEST, SHIFTED)
    assert score["tolerance_rounded_mm"] < nearest <= farthest <= score["hausdorff_mm"] + 0.1
    assert farthest > score["hausdorff_95_mm"] / 2
    assert page.evaluate(WITHOUT_REFERENCE) == 0


def test_returned_contours_lie_over_ours_with_their_own_numbers(tab: Tab, planted: Planted) -> None:
    page = tab.open(planted.page)
    assert page.locator("#overlay option").all_inner_texts()[1].startswith("Supplied 1: ")
    assert page.locator("#overlay option:checked").inner_text().startswith("Returned 1: ")
    report = httpx.get(f"{planted.url}/v1/jobs/{planted.job}/qa").json()
    [returned] = [one for one in report["comparisons"] if one["origin"] == "approved"]
    score = next(one for one in returned["oars"] if one["oar"] == EDITED)
    page.locator(".pick-organ", has_text=EDITED).click()
    assert f"{score['surface_dsc']:.3f} at" in page.locator("#chosen").inner_text()
    nearest, farthest = page.evaluate(FARTHEST, EDITED)
    assert score["tolerance_rounded_mm"] < nearest <= farthest <= score["hausdorff_mm"] + 0.1
    assert farthest > score["hausdorff_95_mm"] / 2


def test_window_zoom_and_slices_follow_the_mouse(tab: Tab, planted: Planted) -> None:
    page = tab.open(planted.page)
    box = page.locator(".axial canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    z = state(page, "state.at[0]")
    page.mouse.move(x, y)
    page.mouse.wheel(0, 100)
    page.wait_for_function(f"window.oarlock.state.at[0] === {z - 1}")
    page.mouse.down(button="right")
    page.mouse.move(x + 60, y - 30)
    page.mouse.up(button="right")
    level, width = state(page, "[state.level, state.width]")
    assert width > 400
    assert level < 40
    page.mouse.click(x + 20, y + 10)
    under = state(
        page, "planes.get('axial').voxelAt(planes.get('axial').canvas.width / 2 + 20, planes.get('axial').canvas.height / 2 + 10)"
    )
    assert np.abs(np.array(state(page, "state.at")) - np.array(under)).max() <= 1


@pytest.mark.long("pages")
@pytest.mark.parametrize("tab", [{}, PHONE], indirect=True, ids=["desk", "phone"])
def test_the_page_is_accessible_and_fits_its_window(tab: Tab, planted: Planted) -> None:
    page = tab.open(planted.page)
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_an_organ_is_signed_off_by_a_key_and_the_others_in_one_go(tab: Tab, planted: Planted) -> None:
    page = tab.open(planted.page)
    page.keyboard.press("]")
    page.fill("#comment", "fits")
    page.locator(".axial").focus()
    page.keyboard.press("e")
    page.wait_for_selector(".said.needs_edits")
    page.get_by_role("button", name="The other 19 are usable").click()
    page.wait_for_selector(".said.usable")
    job = httpx.get(f"{planted.url}/v1/jobs/{planted.job}").json()
    told = {one["oar"]: (one["verdict"], one["comment"]) for one in job["reviews"]}
    assert told.pop("Brain") == ("needs_edits", "fits")
    assert set(told.values()) == {("usable", None)}
    assert len(told) == 19
    assert "Cochlea_L" not in told  # it was not drawn


def test_a_verdict_whose_answer_comes_late_does_not_hide_the_one_after_it(tab: Tab, planted: Planted) -> None:
    page = tab.open(planted.page)
    page.keyboard.press("]")
    page.locator(".axial").focus()
    held = hold(page, "**/reviews")
    page.keyboard.press("d")
    route, answer = wait_for(page, held)
    page.keyboard.press("u")
    said = "state.reviews.get(state.chosen)?.verdict"
    for _ in range(200):
        if state(page, said) == "usable":
            break
        page.wait_for_timeout(50)
    route.fulfill(response=answer)
    page.wait_for_timeout(500)
    assert state(page, said) == "usable"


ENCLOSED = """async () => {
  const { trace } = await import("/static/contour.js");
  let seed = 7, wrong = 0;
  const random = () => ((seed = (seed * 16807) % 2147483647) / 2147483647);
  for (let round = 0; round < 100; round++) {
    const h = 3 + Math.floor(random() * 15), w = 3 + Math.floor(random() * 15), mask = new Uint8Array(h * w);
    for (let i = 1; i < h - 1; i++) for (let j = 1; j < w - 1; j++) mask[i * w + j] = random() > 0.5;
    const { loops } = trace(mask, h, w);
    for (let i = 1; i < h - 1; i++) for (let j = 1; j < w - 1; j++) {
      let crossed = 0;
      for (const loop of loops) for (let k = 0; k < loop.length; k += 2) {
        const y0 = loop[k], x0 = loop[k + 1], y1 = loop[(k + 2) % loop.length], x1 = loop[(k + 3) % loop.length];
        if (y0 > i !== y1 > i && j < x0 + ((i - y0) / (y1 - y0)) * (x1 - x0)) crossed++;
      }
      if ((crossed & 1) !== mask[i * w + j]) wrong++;
    }
  }
  return wrong;
}"""


def test_a_drawn_contour_encloses_the_voxels_of_its_mask_and_no_others(tab: Tab, planted: Planted) -> None:
    page = tab.open(f"{planted.url}/models")
    assert page.evaluate(ENCLOSED) == 0
