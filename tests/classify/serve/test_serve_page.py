"""The page in a real browser: an image in by keys, by dropping or pasting it, an answer out, nothing from elsewhere."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.served import server
from tests.tiny import png

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]

GIVE = """([kind, data]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(data)], "given.png", {type: "image/png"}));
  const known = kind === "paste" ? {clipboardData: transfer} : {dataTransfer: transfer};
  document.querySelector("main").dispatchEvent(new (kind === "paste" ? ClipboardEvent : DragEvent)(kind,
    {...known, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Chromium's own sandbox refuses to start as root, as in containers; the page is ours.
    rooted = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        playwright.expect.set_options(timeout=60_000)  # the machine may be busy
        opened = started.chromium.launch(executable_path=CHROMIUM, args=[*rooted, "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def url(served) -> Iterator[str]:
    with server(served / "run") as address:
        yield address


@pytest.fixture
def page(browser, url) -> Iterator[Any]:
    """The page, opened on a phone's width; afterwards it has asked nobody else, and met no error."""
    opened = browser.new_page(viewport={"width": 360, "height": 800})
    asked: list[str] = []
    said: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(url)
    yield opened
    assert [each for each in asked if not each.startswith((url, "data:", "blob:"))] == []
    assert said == []
    opened.close()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """An image, and what is none."""
    (tmp_path / "good.png").write_bytes(png(1))
    (tmp_path / "bad.png").write_bytes(b"no image")
    return [tmp_path / "good.png", tmp_path / "bad.png"]


def test_a_file_that_is_chosen_is_answered_and_shown(page, files):
    page.get_by_label("Images").set_input_files(files[0])
    playwright.expect(page.get_by_role("status")).to_contain_text("Answer: ")
    [card] = page.get_by_role("listitem").all()
    assert card.get_by_role("heading").inner_text() in ("cat", "dog", "eel")
    assert card.get_by_role("row").count() == 3
    assert "good.png" in card.inner_text()
    page.wait_for_function("document.images[0].naturalWidth > 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_bad_image_says_why_and_the_others_are_answered(page, files):
    page.get_by_label("Images").set_input_files(files)
    playwright.expect(page.get_by_role("status")).to_have_text("2 answers.")
    assert "not an image" in page.get_by_role("listitem").nth(1).inner_text()
    assert page.locator("img").count() == 1


def test_it_works_with_keys_alone(page, files):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") == "file"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Classify"
    page.keyboard.press("Enter")
    playwright.expect(page.get_by_role("status")).to_have_text("Choose an image first.")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
    chooser.value.set_files(files[0])
    playwright.expect(page.get_by_role("status")).to_contain_text("Answer: ")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_can_be_dropped_and_pasted(page, kind):
    page.evaluate(GIVE, [kind, list(png(2))])
    playwright.expect(page.get_by_role("status")).to_contain_text("Answer: ")
    assert "given.png" in page.get_by_role("listitem").inner_text()


def test_without_scripts_the_form_still_gives_an_answer(browser, url, files):
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(url)
    plain.get_by_label("Images").set_input_files(files[0])
    plain.get_by_role("button", name="Classify").click()
    assert '"answers"' in plain.content()
    context.close()
