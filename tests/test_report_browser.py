"""Reports in a real browser: they load nothing, say no error, draw every picture and fit a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny

import vaekit as vk
from vaekit.evaluation.records import Record, keep_record
from vaekit.reporting import write_report
from vaekit.reporting.several_runs import write_side_by_side

pytestmark = pytest.mark.slow

SIZES = {"wide": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("there is no chromium on this machine: install the package chromium")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, posterior in (("gaussian", "gaussian"), ("mixture", "gmm")):
        config = tiny("vae", posterior=posterior, trainer={"max_steps": 25, "accelerator": "cpu"})
        vk.Run(config, folder / name).fit()
        for sampler in ("prior", "aggregate-gaussian", "expost-mixture", "expost-flow"):
            values = {"a_figure_with_a_long_name": {"mean": 1.5, "standard_error": 0.1, "count": 9}}
            keep_record(folder / name, Record("frechet", values, {"data": {"data": "digits"}, "sampler": sampler}))
        write_report(folder / name)
    together = write_side_by_side([folder / "gaussian", folder / "mixture"], folder / "together.html")
    return [folder / "gaussian" / "report.html", folder / "mixture" / "report.html", together]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_in_a_browser(browser: Any, pages: list[Path], size: str, scheme: str) -> None:
    width, height = SIZES[size]
    for path in pages:
        said: list[str] = []
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("pageerror", lambda error, said=said: said.append(str(error)))
        page.on("request", lambda request, said=said: said.append(request.url) if is_outside(request.url) else None)
        page.goto(path.as_uri())
        assert said == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        pictures = page.evaluate("[...document.images].map(image => [image.complete, image.naturalWidth, image.width])")
        assert len(pictures) > 10
        assert all(complete and natural > 100 and shown > 100 for complete, natural, shown in pictures)
        for part in page.query_selector_all("details"):
            part.query_selector("summary").click()
            assert part.get_attribute("open") is not None
        assert page.evaluate("document.documentElement.scrollWidth") == width, "opened parts must not widen the page"
        # The colours are those of the scheme, of the page and of its drawings.
        light = sum(
            map(int, page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)"))
        )
        assert (light > 600) == (scheme == "light")
        chosen = page.evaluate(
            "[...document.querySelectorAll('picture img')].map(image => image.currentSrc == image.src)"
        )
        assert chosen
        assert set(chosen) == {scheme == "light"}
        page.close()


def is_outside(url: str) -> bool:
    return not url.startswith(("file:", "data:"))
