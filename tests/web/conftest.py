"""One headless Chromium and one service for all tests of the pages."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from playwright.sync_api import APIResponse, Browser, ConsoleMessage, Page, Request, Route, sync_playwright

from oarlock.ct.writer import write_ct_series
from oarlock.phantom.patient import Phantom, head_and_neck
from tests.fixtures.crooked import crooked_grid, crooked_hu
from tests.web.history import give_a_past, post_others
from tests.web.planted import Planted, planted_service

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="package")  # playwright leaves an event loop running, in which no other package's test can run its own
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def coarse_phantom() -> Phantom:
    """The phantom in a quarter of a second."""
    return head_and_neck(shape=(85, 120, 128), spacing_mm=(4.5, 3.90625, 3.90625))


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory, coarse_phantom: Phantom) -> Iterator[Planted]:
    with planted_service(tmp_path_factory.mktemp("pages"), coarse_phantom) as found:
        small = write_ct_series(tmp_path_factory.mktemp("small"), crooked_hu(), crooked_grid())
        give_a_past(found.running, found.job)
        yield replace(found, others=post_others(found.running, small))


@dataclass
class Tab:
    """A tab and everything that went wrong in it: errors of scripts, what the policy forbade, calls to elsewhere."""

    page: Page
    own: list[str]
    wrong: list[str] = field(default_factory=list)

    def note(self, message: ConsoleMessage) -> None:
        """An error or a warning of a script or the policy. That /readyz answers 503 is what the page is there to show."""
        if message.type in {"error", "warning"} and not message.location["url"].endswith("/readyz"):
            self.wrong.append(message.text)

    def sent(self, request: Request) -> None:
        if not request.url.startswith((*self.own, "data:", "blob:")):
            self.wrong.append(request.url)

    def open(self, address: str, *, ready: bool = True) -> Page:
        self.page.goto(address)
        if ready:
            self.page.wait_for_selector("body[data-ready=true]")
        return self.page


@pytest.fixture
def tab(browser: Browser, planted: Planted, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A fresh tab; its test fails if anything in it went wrong. Parametrize indirectly for other widths and schemes."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | getattr(request, "param", {})))
    context.set_default_timeout(30_000)
    made = Tab(context.new_page(), [planted.url])
    made.page.on("console", made.note)
    made.page.on("pageerror", lambda error: made.wrong.append(str(error)))
    made.page.on("request", made.sent)
    yield made
    context.close()
    assert made.wrong == []


def hold(page: Page, path: str) -> list[tuple[Route, APIResponse]]:
    """The next call of a path, and its answer, which the page does not get yet; empty until the page calls."""
    held: list[tuple[Route, APIResponse]] = []
    page.route(path, lambda route: held.append((route, route.fetch())), times=1)
    return held


def wait_for(page: Page, held: list[tuple[Route, APIResponse]]) -> tuple[Route, APIResponse]:
    while not held:
        page.wait_for_timeout(50)
    return held[0]
