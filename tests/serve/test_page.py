"""The page in a real browser against a real server, at phone and desktop width.

Skipped if no Chromium is found: Playwright's own (``playwright install chromium``), or the system's.
If the environment variable EFFNET_SCREENSHOTS names a folder, a screenshot of every state is written there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import effnet
from effnet.serve.models import ServedModel
from effnet.serve.server import ServerLimits
from tests.serve.conftest import Running
from tests.serve.live_server import LiveServer, live_server

pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.serve.chromium import chromium

WINDOWS: dict[str, Any] = {
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
    "desktop": {"viewport": {"width": 1280, "height": 800}},
}
TIMEOUT_MS = 20_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = chromium(playwright)
        if path is None:
            pytest.skip("no Chromium is found: playwright install chromium")
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield made
        made.close()


def running_with(weights: Path, limits: ServerLimits) -> Running:
    other = effnet.load(weights)
    other.labels = effnet.Labels(tuple(f"other {name}" for name in other.labels.names))
    models = {"squares": ServedModel("squares", weights, "eager", 4), "other": ServedModel("other", other, "eager", 4)}
    return Running(models, limits)


@pytest.fixture(scope="module")
def running(weights: Path) -> Iterator[Running]:
    made = running_with(weights, ServerLimits(max_bytes=3_000_000))
    yield made
    made.queue.close()


@pytest.fixture(scope="module")
def where(running: Running) -> Iterator[LiveServer]:
    with live_server(running) as made:
        yield made


@pytest.fixture(params=list(WINDOWS))
def window(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """An empty window, in which no page may raise an error or overflow horizontally."""
    expect.set_options(timeout=TIMEOUT_MS)
    wrong: list[str] = []
    with browser.new_context(**WINDOWS[request.param]) as context:
        made = context.new_page()
        made.set_default_timeout(TIMEOUT_MS)
        made.on("pageerror", lambda error: wrong.append(str(error)))
        yield made
        assert wrong == []
        assert made.evaluate("document.documentElement.scrollWidth") <= WINDOWS[request.param]["viewport"]["width"]


@pytest.fixture
def page(window: Page, where: LiveServer) -> Iterator[Page]:
    """The page, which must not send requests to other hosts."""
    asked: list[str] = []
    window.on("request", lambda request: asked.append(request.url))
    window.goto(where.address)
    expect(window.locator("#model option")).to_have_count(2)
    yield window
    assert [url for url in asked if not url.startswith((where.address, "blob:", "data:"))] == []


def screenshot(page: Page, state: str) -> None:
    """Write a screenshot of the whole page, named by its state and width, to EFFNET_SCREENSHOTS if it is set."""
    if folder := os.environ.get("EFFNET_SCREENSHOTS"):
        size = page.viewport_size
        assert size
        whole = page.evaluate("document.documentElement.scrollHeight")
        page.set_viewport_size({"width": size["width"], "height": whole})  # full_page would forget about touch
        page.screenshot(path=Path(folder) / f"{state}-{size['width']}.png", animations="disabled")
        page.set_viewport_size(size)


def file(content: bytes, name: str = "x.png", kind: str = "image/png") -> Any:
    return {"name": name, "mimeType": kind, "buffer": content}


def choose_file(page: Page, content: bytes, **named: str) -> None:
    page.set_input_files("#file", file(content, **named))


def drop_file(page: Page, content: bytes, event: str = "drop") -> None:
    """Drop or paste a file, as a person does."""
    page.evaluate(
        """([bytes, event]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
            const made = event === "drop"
                ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
                : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
            document.querySelector("#drop-zone").dispatchEvent(made);
        }""",
        [list(content), event],
    )


def correct_photo(photos: list[tuple[bytes, str]], running: Running) -> tuple[bytes, str]:
    """An image that the network classifies correctly."""
    predictor = running.queue.models["squares"].predictor
    return next((content, label) for content, label in photos if predictor(content)[0].label == label)


def test_image_chosen_before_models_are_known(page: Page, running: Running, photos: list[tuple[bytes, str]]) -> None:
    content, label = correct_photo(photos, running)
    held: list[Route] = []
    page.route("**/v1/models", lambda route: held.append(route))  # (a bound method of a list is not accepted)
    for act in (choose_file, drop_file):
        page.reload()
        act(page, content)
        expect(page.locator("#preview")).to_be_visible()
        expect(page.locator("#model option")).to_have_count(0)
        held.pop().continue_()
        expect(page.locator("#labels button").first).to_contain_text(label)


def test_prediction_and_heat_map(page: Page, running: Running, photos: list[tuple[bytes, str]]) -> None:
    content, label = correct_photo(photos, running)
    for event in ("drop", "paste"):
        drop_file(page, content, event)
        expect(page.locator("#status")).to_contain_text(label)
        expect(page.locator("#labels button")).to_have_count(5)
        expect(page.locator("#timing")).to_contain_text("on the server: decoding")
        page.reload()
    choose_file(page, content)
    expect(page.locator("#labels button").first).to_contain_text(label)
    screenshot(page, "predicted")
    heat = page.get_by_role("switch", name="Heat map")
    expect(page.locator("#map")).to_be_hidden()
    heat.check()
    expect(page.locator("#map")).to_be_visible()
    expect(page.locator("#map")).to_have_attribute("alt", f"Where “{label}” is seen")
    screenshot(page, "heat-map")
    frame, photo = page.locator("#map").bounding_box(), page.locator("#preview").bounding_box()
    assert frame
    assert photo
    assert photo["width"] > 300  # from 64 pixels, too few to read a map
    assert frame["x"] - photo["x"] == pytest.approx(5 / 42 * photo["width"], abs=1.5)  # as in test_app
    assert frame["height"] == pytest.approx(0.8 * photo["height"], abs=1.5)
    first = page.locator("#map").get_attribute("src")
    page.locator("#labels button").nth(1).click()
    expect(page.locator("#labels button").nth(1)).to_have_attribute("aria-pressed", "true")
    assert page.locator("#map").get_attribute("src") != first
    heat.uncheck()
    expect(page.locator("#map")).to_be_hidden()


def test_switching_models(page: Page, running: Running, photos: list[tuple[bytes, str]]) -> None:
    content, label = correct_photo(photos, running)
    choose_file(page, content)
    expect(page.locator("#status")).to_contain_text(label)
    expect(page.locator("#status")).not_to_contain_text("other")
    page.locator("#model").select_option("other")
    expect(page.locator("#status")).to_contain_text(f"other {label}")


def test_scaling_by_phi(page: Page) -> None:
    page.get_by_role("tab", name="Scale").click()
    diagram, tiles = page.locator("#diagram svg"), page.locator("#tiles")
    expect(diagram).to_have_count(1)
    expect(tiles).to_contain_text("5.29 M")
    expect(page.locator("#released .current")).to_contain_text("b0")
    before = diagram.inner_html()
    page.locator("#phi").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#phi-value")).to_have_text("1")
    grown = effnet.count(effnet.scale("b0", 1))
    expect(tiles).to_contain_text(f"{grown.params / 1e6:.2f} M")
    expect(tiles).to_contain_text(f"{grown.macs / 1e6:.0f} M")
    expect(page.locator("#released .current")).to_contain_text("φ = 1")
    assert diagram.inner_html() != before
    screenshot(page, "phi-moved")
    page.locator("#base").select_option("v2_b0")
    expect(page.locator("#released")).to_contain_text("v2_b3")
    page.get_by_text("how fast depth").click()
    page.locator("#alpha").fill("9")
    expect(page.locator("#scale-status")).to_contain_text("Alpha should be less than or equal to 2")
    screenshot(page, "wrong-alpha")
    page.locator("#alpha").fill("1")
    expect(page.locator("#scale-status")).to_contain_text("params")


def test_comparing_two_models(page: Page, running: Running, photos: list[tuple[bytes, str]]) -> None:
    content, label = correct_photo(photos, running)
    choose_file(page, content)
    expect(page.locator("#labels button")).to_have_count(5)
    page.get_by_role("tab", name="Models").click()
    expect(page.locator("#properties")).to_contain_text("nano")
    expect(page.locator("#predictions h2")).to_have_text(["squares", "other"])
    expect(page.locator("#predictions ol").nth(0)).to_contain_text(label)
    expect(page.locator("#predictions ol").nth(1)).to_contain_text(f"other {label}")
    screenshot(page, "models-compared")


def test_invalid_files(page: Page, running: Running, photos: list[tuple[bytes, str]]) -> None:
    content, label = correct_photo(photos, running)
    noise = np.random.default_rng(0).bytes(2_000_000)
    said = page.locator("#status")
    for wrong, name in ((b"hello", "notes.txt"), (noise, "noise.jpg")):
        choose_file(page, wrong, name=name, kind="image/jpeg")
        expect(said).to_contain_text("The file is not an image")
        expect(page.locator("#no-preview")).to_contain_text(f"{name}: your browser cannot display it")
        expect(page.locator("#labels li")).to_have_count(0)
        expect(page.get_by_role("switch", name="Heat map")).to_be_disabled()
        screenshot(page, f"wrong-{Path(name).stem}")
    choose_file(page, noise * 2, name="large.jpg", kind="image/jpeg")
    expect(said).to_have_text("The file is 4 MB; the limit is 3 MB.")
    screenshot(page, "too-large")
    choose_file(page, content)
    expect(said).to_contain_text(label)


def test_fifty_megapixel_photo(page: Page) -> None:
    out = BytesIO()
    Image.new("RGB", (8192, 6144), (90, 120, 60)).save(out, "JPEG", quality=60)
    choose_file(page, out.getvalue(), name="large.jpg", kind="image/jpeg")
    expect(page.locator("#labels button")).to_have_count(5)
    expect(page.locator("#timing")).to_contain_text("on the server")
    screenshot(page, "fifty-megapixels")


def test_server_restart(window: Page, weights: Path, photos: list[tuple[bytes, str]]) -> None:
    running = running_with(weights, ServerLimits())
    first = LiveServer(running)
    window.goto(first.address)
    expect(window.locator("#model option")).to_have_count(2)
    first.stop()
    choose_file(window, photos[0][0])
    said = window.locator("#status")
    expect(said).to_have_text("The server is not responding. Retrying …")
    screenshot(window, "server-away")
    with live_server(Running(running.queue.models, ServerLimits()), first.port):
        expect(window.locator("#labels button")).to_have_count(5)  # without user action
        expect(said).to_contain_text("%")
        screenshot(window, "server-back")
        window.get_by_role("tab", name="Models").click()
        expect(window.locator("#predictions ol")).to_have_count(2)
    window.locator("#model-b").select_option("squares")
    expect(window.locator("#compare-status")).to_have_text("The server is not responding. Retrying …")
    screenshot(window, "server-away-models")
    with live_server(running_again := Running(running.queue.models, ServerLimits()), first.port):
        expect(window.locator("#predictions h2")).to_have_text(["squares", "squares"])
        expect(window.locator("#compare-status")).to_be_empty()
    running_again.queue.close()


def test_percent_format(page: Page) -> None:
    shares = [0.0004, 0.012, 0.0994, 0.42, 0.987, 0.9931, 0.9987, 1]
    told = page.evaluate("(shares) => import('/page/dom.js').then((dom) => shares.map(dom.formatPercent))", shares)
    assert told == ["0.0 %", "1.2 %", "9.9 %", "42 %", "99 %", "99.3 %", "99.9 %", "100.0 %"]


def test_keyboard_and_screen_reader(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("tab", name="Predict")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Scale")).to_be_focused()
    expect(page.get_by_role("tabpanel")).to_have_attribute("id", "scale")
    page.keyboard.press("End")
    expect(page.get_by_role("tab", name="Models")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    for name in ("status", "scale-status", "compare-status"):
        expect(page.locator(f"#{name}")).to_have_attribute("role", "status")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button")]
            .filter((one) => !(one.labels?.length || one.textContent.trim() || one.ariaLabel)).map((one) => one.id)"""
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast(page: Page, photos: list[tuple[bytes, str]], scheme: Any) -> None:
    """The contrast of text and background is at least 4.5 (WCAG 2.2, 1.4.3)."""
    page.emulate_media(color_scheme=scheme)
    screenshot(page, f"start-{scheme}")
    found = page.evaluate(
        """() => {
            const style = getComputedStyle(document.documentElement);
            const light = (name) => {
                const made = document.createElement("i");
                made.style.color = style.getPropertyValue(name);
                document.body.append(made);
                const parts = getComputedStyle(made).color.match(/\\d+/g).map((each) => each / 255)
                    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
                return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
            };
            const pairs = [["text", "background"], ["text", "surface"], ["text", "current"],
                ["muted", "background"], ["muted", "surface"],
                ["error", "background"], ["accent", "background"], ["on-accent", "accent"]];
            return pairs.map(([one, other]) => {
                const [high, low] = [light(`--${one}`), light(`--${other}`)].sort((a, b) => b - a);
                return [`${one} on ${other}`, (high + 0.05) / (low + 0.05)];
            });
        }"""
    )
    assert [pair for pair in found if pair[1] < 4.5] == []
    choose_file(page, photos[0][0])
    expect(page.locator("#labels button")).to_have_count(5)
    screenshot(page, f"predicted-{scheme}")
    page.get_by_role("tab", name="Scale").click()
    expect(page.locator("#diagram svg")).to_have_count(1)
    screenshot(page, f"scale-{scheme}")
