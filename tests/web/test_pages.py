"""Jobs, quality and models in a real browser: the journeys of IT and of a physicist."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from oarlock.scopes import Scope
from oarlock.store.jobs import JobId, Stage
from oarlock.store.keys import KeyStore
from oarlock.store.leases import Lease
from tests.service.conftest import make_settings
from tests.service.running import Running, serve, write_model
from tests.web.conftest import Tab, hold, wait_for
from tests.web.history import CENTRES, DRIFTING, SCANNER
from tests.web.past_patients import BETTER, LABEL, commission
from tests.web.planted import Planted
from tests.web.test_review_page import PHONE, serious

pytestmark = pytest.mark.slow

DARK = {"color_scheme": "dark"}


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    """A service that asks for a key."""
    folder = tmp_path_factory.mktemp("locked")
    write_model(folder / "models")
    with serve(make_settings(folder, redis_url)) as running:
        KeyStore(running.service.database).create("first", [Scope.ADMIN])
        yield running


def names(page: Page) -> list[str]:
    return page.locator("#jobs tbody tr td:first-child a").all_inner_texts()


@pytest.mark.long("pages")
def test_it_sees_what_is_not_ready_and_why_and_what_failed(tab: Tab, planted: Planted) -> None:
    page = tab.open(f"{planted.url}/")
    page.wait_for_selector(".part.wrong")
    assert "no worker reported" in page.locator("#health").inner_text()
    page.get_by_role("button", name="failed", exact=True).click()
    expect(page.locator("#count")).to_have_text("1 job")
    assert names(page) == ["planning failed"]
    assert "ran out of memory" in page.locator("td.remarks").inner_text()
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_role("searchbox").fill("PLANNING R")
    expect(page.locator("#count")).to_have_text("1 job")
    assert names(page) == ["planning running"]
    assert page.locator("progress").get_attribute("value") == "0.42"


@pytest.mark.long("pages")
def test_the_list_moves_by_itself_and_is_read_again_only_when_it_changed(tab: Tab, planted: Planted) -> None:
    job, leases, read = planted.others["running"], planted.running.store.leases, list[str]()
    tab.page.on("request", lambda request: read.append(request.url) if "/v1/jobs?" in request.url else None)
    page = tab.open(f"{planted.url}/")
    state = page.locator(f"[id='job-{job}'] .state")
    for _ in range(200):  # it is read once by itself, once when the stream has told of itself
        if len(read) >= 2:
            break
        page.wait_for_timeout(50)
    for stage in (Stage.COMPARING, Stage.INFERRING):
        leases.progress(Lease(JobId(job), 1, "worker", 1), stage=stage, progress=0.42, lease_s=3600)
        expect(state).to_have_text(stage)
    page.wait_for_timeout(3_000)  # longer than a list that is polled is left alone
    assert len(read) == 2
    for verb, button in (("retry", "Cancel"), ("cancel", "Retry")):
        httpx.post(f"{planted.url}/v1/jobs/{planted.others['cancelled']}/{verb}").raise_for_status()
        expect(page.get_by_role("button", name=f"{button} job planning cancelled")).to_be_visible()


@pytest.mark.long("pages")
def test_a_reading_that_comes_late_does_not_put_a_job_back(tab: Tab, planted: Planted) -> None:
    lease, other = Lease(JobId(planted.others["running"]), 1, "worker", 1), planted.others["cancelled"]
    page = tab.open(f"{planted.url}/")
    held = hold(page, "**/v1/jobs?*")
    planted.running.store.leases.progress(lease, stage=Stage.COMPARING, progress=0.42, lease_s=3600)
    httpx.post(f"{planted.url}/v1/jobs/{other}/retry").raise_for_status()
    route, answer = wait_for(page, held)
    assert Stage.COMPARING in answer.text()
    planted.running.store.leases.progress(lease, stage=Stage.INFERRING, progress=0.42, lease_s=3600)
    state = page.locator(f"[id='job-{lease.job_id}'] .state")
    expect(state).to_have_text(Stage.INFERRING)
    route.fulfill(response=answer)
    expect(page.get_by_role("button", name="Cancel job planning cancelled")).to_be_visible()
    assert state.inner_text() == Stage.INFERRING
    httpx.post(f"{planted.url}/v1/jobs/{other}/cancel").raise_for_status()


@pytest.mark.long("pages")
def test_a_reading_that_comes_late_does_not_undo_a_filter(tab: Tab, planted: Planted) -> None:
    page = tab.open(f"{planted.url}/")
    held = hold(page, "**/v1/jobs?*")
    page.get_by_role("button", name="running", exact=True).click()
    route, answer = wait_for(page, held)
    page.get_by_role("button", name="failed", exact=True).click()
    page.wait_for_function("document.querySelector('#jobs tbody').innerText.includes('planning failed')")
    route.fulfill(response=answer)
    page.wait_for_timeout(500)
    assert names(page) == ["planning failed"]


def test_charts_that_come_late_do_not_undo_a_choice(tab: Tab, planted: Planted) -> None:
    page = tab.open(f"{planted.url}/charts")
    held = hold(page, "**/v1/qa/scores?shadow=true*")
    page.get_by_role("button", name="shadow").click()
    route, answer = wait_for(page, held)
    page.locator("#origins button").first.click()
    page.wait_for_timeout(500)
    before = page.locator("#charts").inner_text()
    route.fulfill(response=answer)
    page.wait_for_timeout(500)
    assert page.locator("#charts").inner_text() == before


def test_it_cancels_a_job_and_purges_it_only_when_sure(tab: Tab, planted: Planted) -> None:
    page = tab.open(f"{planted.url}/")
    page.get_by_role("button", name="Cancel job planning queued").click()
    purge = page.get_by_role("button", name="Purge job planning queued")
    purge.click()
    page.get_by_role("button", name="Keep it").click()
    job = f"{planted.url}/v1/jobs/{planted.others['queued']}"
    assert httpx.get(job).json()["state"] == "cancelled"
    purge.click()
    page.get_by_role("button", name="Purge", exact=True).click()
    expect(purge).to_have_count(0)
    assert httpx.get(job).status_code == 410


@pytest.mark.long("pages")
def test_it_counts_a_series_that_waits_at_a_gateway_as_whole_and_sends_a_dead_letter_again(tab: Tab, planted: Planted) -> None:
    gateway, dead = f"{planted.url}/v1/gateways/ward", {"place": "tps", "result": "rtstruct", "state": "dead", "attempts": 9}
    times = dict.fromkeys(("first_at", "last_at"), "2026-03-05T12:00:00Z")
    waits = {"id": "ab" * 10, "state": "coming_in", "calling": "CT1", "called": "OARLOCK", "images": 40, **times}
    httpx.post(gateway, json={"series": [waits]}).raise_for_status()
    httpx.post(f"{planted.url}/v1/jobs/{planted.job}/deliveries", json=dead | {"gateway": "ward"}).raise_for_status()
    page = tab.open(f"{planted.url}/")
    page.get_by_role("button", name="Count as whole").click()
    page.get_by_role("button", name="Send again").click()
    expect(page.locator("#toast")).to_have_text("Send again: done")
    tasks = httpx.post(gateway, json={}).json()["tasks"]
    assert [(task["request"]["kind"], task["request"]["series"]) for task in tasks] == [("complete", "ab" * 10), ("resend", None)]
    page.get_by_role("button", name="Count as whole").wait_for(state="detached")


def test_a_physicist_sees_which_organ_drifts_by_which_rule_within_which_limits(tab: Tab, planted: Planted) -> None:
    page = tab.open(f"{planted.url}/charts")
    drift = httpx.get(f"{planted.url}/v1/qa/drift").json()
    [expected] = [one for one in drift["charts"] if (one["oar"], one["scanner"]) == (DRIFTING, SCANNER)]
    assert expected["alarms"]
    signals = page.locator(".signal-list").inner_text()
    assert DRIFTING in signals
    assert "beyond limit" in signals
    assert page.locator(".chart", has_text=SCANNER).count() == len(CENTRES)
    page.locator("#organ").select_option(label=DRIFTING)
    chart = page.locator(".chart", has_text=SCANNER)
    expect(chart).to_have_count(1)
    assert f"lower limit {expected['limits']['lower']:.3f}" in chart.locator("svg").text_content()
    assert chart.locator(".point.alarm").count() == len({alarm["at"] for alarm in expected["alarms"]})
    assert chart.locator(".point.base").count() == expected["baseline"]["n"] == 30


def test_an_operator_picks_the_charts_of_one_site_or_those_of_none(tab: Tab, planted: Planted) -> None:
    drift = httpx.get(f"{planted.url}/v1/qa/drift").json()
    charts = [one | {"site": site} for one, site in zip(drift["charts"], ("", "north", "north"), strict=False)]
    tab.page.route("**/v1/qa/drift*", lambda route: route.fulfill(json=drift | {"charts": charts}))
    page = tab.open(f"{planted.url}/charts")
    for site, count in (("north", 2), ("none (an operator's)", 1), ("all", 3)):
        page.locator("#site").select_option(label=site)
        expect(page.locator(".chart")).to_have_count(count)


def test_supplied_contours_have_points_but_no_limits(tab: Tab, planted: Planted) -> None:
    page = tab.open(f"{planted.url}/charts")
    page.get_by_role("button", name="Supplied contours").click()
    page.wait_for_selector("text=no limits")
    assert page.locator(".chart .point").count() >= 20
    assert page.locator(".limit").count() == 0


@pytest.fixture(scope="module")
def commissioned(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Running]:
    """A service with the same past patients drawn by two models."""
    folder = tmp_path_factory.mktemp("commissioned")
    write_model(folder / "models")
    with serve(make_settings(folder, redis_url, lease_s=3600)) as running:
        commission(running, folder / "past", patients=6)
        yield running


@pytest.mark.long("pages")
def test_a_physicist_compares_two_models_on_past_patients_and_keeps_the_better_one_as_baseline(
    tab: Tab, commissioned: Running
) -> None:
    tab.own.append(commissioned.url)
    page = tab.open(f"{commissioned.url}/commissionings")
    assert page.locator("tbody tr").count() == 2
    page.locator("tr", has_text="second").get_by_role("link", name=LABEL).click()
    page.wait_for_selector("body[data-ready=true]")
    expect(page.get_by_role("button", name="Keep as baseline")).to_be_disabled()  # one patient still waits
    assert "1 not drawn yet" in page.locator("main").inner_text()
    [last, *_] = httpx.get(f"{commissioned.url}/v1/jobs?state=queued").json()["jobs"]
    looked = list[str]()
    page.on("request", lambda request: looked.append(request.url) if "/v1/commissionings/" in request.url else None)
    with page.expect_response("**/v1/commissionings"):  # the list alone is asked while nothing moves
        pass
    httpx.post(f"{commissioned.url}{last['links']['cancel']}").raise_for_status()
    expect(page.get_by_role("button", name="Keep as baseline")).to_be_enabled(timeout=15_000)
    assert len(looked) == 1
    page.locator("#against").select_option(label=f"oarlock-hn 1.2.3, {LABEL}")
    better = page.locator("tr", has_text="Parotid_L")
    expect(better).to_contain_text(f"+{BETTER:.3f} (6)")
    expect(better).to_contain_text("better")
    expect(page.locator("tr", has_text="SpinalCord")).to_contain_text("no difference seen")
    assert serious(page) == []
    page.get_by_role("button", name="Keep as baseline").click()
    page.get_by_role("button", name="Keep it").click()
    expect(page.locator("#toast")).to_contain_text("The baseline is kept")
    page.get_by_role("link", name="All commissionings").click()
    expect(page.get_by_role("region", name="Baselines").locator("tbody tr")).to_have_count(1)


def test_a_model_says_what_it_is_not_for(tab: Tab, planted: Planted) -> None:
    page = tab.open(f"{planted.url}/models")
    card = page.locator(".model-card").inner_text()
    assert "oarlock-hn 1.2.3" in card
    assert "21 organs" in card
    assert "patients" in card


def test_somebody_signs_in_with_a_key_and_sees_no_more_than_it_allows(tab: Tab, closed: Running) -> None:
    tab.own.append(closed.url)
    _, key = KeyStore(closed.service.database).create("looker", [Scope.JOBS_READ])
    page = tab.page
    page.goto(f"{closed.url}/?tab=jobs")
    page.wait_for_url("**/sign-in?**")
    tab.wrong.clear()  # the browser reports the 401 that led here
    assert serious(page) == []
    page.get_by_label("Key").fill(key)
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-ready=true]")
    assert "looker" in page.locator("#account").inner_text()
    assert page.locator(".tile").count() == 0  # metrics:read
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    assert httpx.get(f"{closed.url}/v1/jobs", cookies={c["name"]: c["value"] for c in page.context.cookies()}).status_code == 401


def test_who_may_not_see_jobs_still_sees_what_is_ready(tab: Tab, closed: Running) -> None:
    tab.own.append(closed.url)
    _, key = KeyStore(closed.service.database).create("watcher", [Scope.METRICS_READ])
    page = tab.page
    page.goto(f"{closed.url}/sign-in")
    page.get_by_label("Key").fill(key)
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-ready=true]")
    assert page.locator(".tile").count() > 0
    assert "jobs:read" in page.locator("#toast").inner_text()
    tab.wrong.clear()  # the browser reports the 403


@pytest.mark.long("pages")
@pytest.mark.parametrize("tab", [{}, DARK, PHONE], indirect=True, ids=["light", "dark", "phone"])
@pytest.mark.parametrize("path", ["/", "/charts", "/commissionings", "/models"])
def test_every_page_is_accessible_and_fits_its_window(tab: Tab, planted: Planted, path: str) -> None:
    page = tab.open(f"{planted.url}{path}")
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
