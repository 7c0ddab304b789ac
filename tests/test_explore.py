"""`vaekit explore`: what the page asks of a run, tested without a browser, and the page itself in one."""

from __future__ import annotations

import base64
import functools
import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from helpers import tiny
from PIL import Image
from torch.distributions import Independent, Normal, kl_divergence

import vaekit as vk
from vaekit.cli.main import main
from vaekit.distributions import Epanechnikov, RelaxedOneHot, SphereUniform
from vaekit.errors import VaekitError
from vaekit.evaluation import Aggregate
from vaekit.exploring import markup
from vaekit.exploring.explorer import Explorer
from vaekit.exploring.knobs import Knob, Knobs
from vaekit.exploring.modalities import Modalities
from vaekit.exploring.page import explorer_of
from vaekit.exploring.pictures import Pictures
from vaekit.exploring.server import listening_socket
from vaekit.files import save_tensors, save_text


def aggregate(mean: list[float], of_means: list[float], within: list[float]) -> Aggregate:
    return Aggregate(*(torch.tensor(values, dtype=torch.float64) for values in (mean, of_means, within)), 10)


def standard_normal(dimensions: int) -> Independent:
    return Independent(Normal(torch.zeros(dimensions), 1.0), 1)


# ---- knobs -----------------------------------------------------------------------------------------------------------


def test_knobs_are_ordered_by_what_they_tell_and_reach_three_deviations() -> None:
    knobs = Knobs("real", standard_normal(3), aggregate([0.0, 1.0, -2.0], [0.0, 0.75, 3.0], [1.0, 0.25, 1.0]))
    assert [knob.label for knob in knobs.each] == ["dimension 2", "dimension 1", "dimension 0"]
    assert [(knob.low, knob.high) for knob in knobs.each] == [(-8.0, 4.0), (-2.0, 4.0), (-3.0, 3.0)]
    z = torch.tensor([[0.1, 0.2, 0.3]])
    assert knobs.values(z) == pytest.approx([0.3, 0.2, 0.1])
    assert torch.equal(knobs.latent(knobs.values(z)), z)


def test_knobs_of_an_interval_end_at_the_box_and_a_dead_dimension_has_a_range() -> None:
    box = Epanechnikov(torch.zeros(2), torch.full((2,), 0.5)).to_event(1)
    knobs = Knobs("interval", box, aggregate([0.0, 0.0], [0.04, 0.0001], [0.0, 0.0]))
    assert (knobs.each[0].low, knobs.each[0].high) == (-0.5, 0.5)
    assert (knobs.each[1].low, knobs.each[1].high) == pytest.approx((-0.03, 0.03))
    dead = Knobs("real", standard_normal(1), aggregate([2.0], [0.0], [0.0])).each[0]
    assert dead.low < dead.high


def test_a_range_grows_with_what_it_has_to_show() -> None:
    knob = Knob("dimension 0", -1.0, 1.0, 0.01)
    assert knob.reaching(0.3) == knob
    assert knob.reaching(2.345).high == 2.35
    assert knob.reaching(-7.0).low == -7.0


def test_knobs_of_counts_are_whole_numbers() -> None:
    prior = Independent(torch.distributions.Poisson(torch.tensor([0.1, 2.0])), 1)
    knobs = Knobs("counts", prior, aggregate([0.1, 2.0], [0.0, 1.0], [0.01, 3.0]))
    assert [(knob.label, knob.low, knob.high, knob.step) for knob in knobs.each] == [
        ("dimension 1", 0, 8, 1),
        ("dimension 0", 0, 1, 1),
    ]
    assert knobs.latent([2.0, -1.0]).tolist() == [[0.0, 2.0]]
    assert knobs.values(torch.tensor([[0.4, 1.6]])) == [2.0, 0.0]


def test_knobs_of_a_sphere_are_brought_to_length_one() -> None:
    knobs = Knobs("sphere", SphereUniform(3), aggregate([0.0] * 3, [0.1, 0.2, 0.3], [0.1] * 3))
    z = knobs.latent([0.5, -0.5, 1.0])
    assert float(z.norm()) == pytest.approx(1.0)
    assert torch.allclose(z / z[0, 0], torch.tensor([[1.0, -0.5, 0.5]]))


def test_knobs_of_categories_choose_one_of_them() -> None:
    prior = RelaxedOneHot(torch.zeros(2, 3))
    knobs = Knobs("one-hot", prior, aggregate([1 / 3] * 6, [0.0, 0.0, 0.1, 0.2, 0.1, 0.0], [0.1] * 6))
    assert knobs.each == (Knob("variable 1", 0, 2, 1), Knob("variable 0", 0, 2, 1))
    z = knobs.latent([2, 0])
    assert z.tolist() == [[1, 0, 0, 0, 0, 1]]
    assert knobs.values(z) == [2, 0]


# ---- what is asked of a run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], vk.Run]:
    """Return runs by name, with first weights: what a page does with them does not depend on training."""
    place = tmp_path_factory.mktemp("explore")
    np.save(place / "vectors.npy", np.random.RandomState(0).randn(80, 6).astype(np.float32))
    four = {"latent_dim": 12, "posterior": {"categories": 4}, "prior": {"categories": 4}}

    @functools.cache
    def make(name: str) -> vk.Run:
        torch.manual_seed(0)
        if name == "vectors":
            config = vk.recipe("vae", data=place / "vectors.npy", latent_dim=3, likelihood="gaussian").config
        elif name == "labels":
            data = {"name": "mnist-labels", "digits": "digits", "limit": 60, "batch_size": 20}
            config = tiny("masked-multimodal", data=data)
        else:
            config = tiny(name, **(four if name == "categorical-vae" else {}))
        run = vk.Run(config, place / name)
        kept = config.model_copy(update={"data_shape": run.data.shape, "data_values": run.data.values})
        save_text(place / name / "config.yaml", kept.to_yaml())
        save_tensors(place / name / "model.safetensors", run.model.state_dict())
        return vk.Run.load(place / name, offline=True)

    return make


@pytest.mark.parametrize(
    ("name", "kind", "space"),
    [
        ("vae", Pictures, "real"),
        ("gamix", Pictures, "real"),
        ("evae", Pictures, "real"),
        ("rae", Pictures, "point"),
        ("pvae", Pictures, "counts"),
        ("categorical-vae", Pictures, "one-hot"),
        ("hyperspherical-vae", Pictures, "sphere"),
        ("vampprior", Pictures, "real"),
        ("vectors", Explorer, "real"),
        ("masked-multimodal", Modalities, "real"),
        ("mmvm", Modalities, "real"),
    ],
)
def test_every_kind_of_latent_has_knobs_that_move_what_is_decoded(
    made: Callable[[str], vk.Run], name: str, kind: type, space: str
) -> None:
    explorer = explorer_of(made(name))
    assert type(explorer) is kind
    assert explorer.knobs.space == space
    start = explorer.first()
    assert len(start) == len(explorer.knobs)
    for values in (start, explorer.prior_draw(), explorer.values_of(explorer.random_sample())):
        decoded = explorer.decode(values)
        assert decoded.keys() == explorer.ranges.keys()
        assert all(sample.isfinite().all() for sample in decoded.values())
        again = explorer.decode(values)
        assert all(torch.equal(sample, again[name]) for name, sample in decoded.items())
    knob = explorer.knobs.each[0]
    moved = [knob.high if start[0] < knob.high else knob.low, *start[1:]]
    before, after = explorer.decode(start), explorer.decode(moved)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    # What a slider may show lies on the latent space again.
    assert explorer.knobs.values(explorer.knobs.latent(start)) == pytest.approx(start, abs=1e-6)


def test_starts(made: Callable[[str], vk.Run]) -> None:
    explorer = explorer_of(made("vae"))
    assert explorer.prior_mean() == [0.0] * 4
    x = explorer.random_sample()
    decoded = explorer.decode(explorer.values_of(x))[""]
    assert torch.allclose(decoded, made("vae").reconstruct(x).tensor[0], atol=1e-6)
    assert not torch.equal(x, torch.cat([explorer.random_sample() for _ in range(8)])[:1]) or len(x) == 1
    assert "4 latent dimensions" in explorer.about
    for name in ("hyperspherical-vae", "categorical-vae"):
        assert not explorer_of(made(name)).has_prior_mean


def test_a_picture_is_read_and_reconstructed_as_the_run_does(made: Callable[[str], vk.Run], tmp_path: Path) -> None:
    run = made("vae")
    explorer = explorer_of(run)
    assert isinstance(explorer, Pictures)
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    x = explorer.read(tmp_path / "a.png")
    assert torch.equal(x, run.read([tmp_path / "a.png"]))
    assert torch.allclose(explorer.reconstruct(x), run.reconstruct(x).tensor[0])
    draws = explorer.draws(x, 3)
    assert draws.shape == (3, 1, 8, 8)
    assert not torch.equal(draws[0], draws[1])
    with pytest.raises(VaekitError, match="cannot be read as an image"):
        explorer.read(__file__)


def test_a_walk_goes_from_one_reconstruction_to_the_other(made: Callable[[str], vk.Run]) -> None:
    for name in ("vae", "hyperspherical-vae"):
        explorer = explorer_of(made(name))
        assert isinstance(explorer, Pictures)
        first, second = explorer.random_sample(), explorer.random_sample()
        walk = explorer.walk(first, second, 5)
        assert walk.shape == (5, 1, 8, 8)
        assert torch.allclose(walk[0], explorer.reconstruct(first), atol=1e-6)
        assert torch.allclose(walk[-1], explorer.reconstruct(second), atol=1e-6)


def test_components_of_a_mixture(made: Callable[[str], vk.Run]) -> None:
    run = made("gamix")
    explorer = explorer_of(run)
    assert isinstance(explorer, Pictures)
    assert explorer.component_count == 2
    x = explorer.random_sample()
    with torch.no_grad():
        q = run.model.encode(x)
        weights, pictures = explorer.components(x)
        assert torch.equal(weights, q.component_probs[0])
        assert torch.allclose(pictures[1], run.model.decode(q.loc[:, 1]).mean[0])
    assert torch.allclose(explorer.knobs.latent(explorer.component_values(x, 1)), q.loc[:, 1])
    assert torch.allclose(explorer.decode(explorer.component_values(x, 0))[""], pictures[0], atol=1e-6)
    # Draws of a component lie about its mean as wide as the component is.
    seen: list[torch.Tensor] = []
    explorer.decode_latents = lambda z: seen.append(z) or z  # type: ignore[method-assign, func-returns-value]
    explorer.component_draws(x, 1, 20_000)
    assert torch.allclose(seen[0].mean(0), q.loc[0, 1], atol=0.05)
    assert torch.allclose(seen[0].std(0), q.scale[0, 1], rtol=0.05)
    gaussian = explorer_of(made("vae"))
    assert isinstance(gaussian, Pictures)
    assert gaussian.component_count == 0
    with pytest.raises(VaekitError, match="no mixture"):
        gaussian.components(x)


def test_kl_of_a_picture(made: Callable[[str], vk.Run]) -> None:
    explorer = explorer_of(made("vae"))
    assert isinstance(explorer, Pictures)
    x = explorer.random_sample()
    kl = explorer.kl(x)
    with torch.no_grad():
        exact = float(kl_divergence(explorer.posterior(x), explorer.prior))
    assert kl.total == pytest.approx(exact)
    assert kl.sentence == "in closed form"
    assert kl.by_unit is not None
    assert float(kl.by_unit.sum()) == pytest.approx(exact, rel=1e-5)
    mixture = explorer_of(made("gamix"))
    assert isinstance(mixture, Pictures)
    kl = mixture.kl(x)
    assert "estimated" in kl.sentence
    assert kl.by_unit is not None
    assert float(kl.by_unit.sum()) == pytest.approx(kl.total, rel=0.2, abs=0.1)
    point = explorer_of(made("rae"))
    assert isinstance(point, Pictures)
    assert point.kl(x).total is None
    assert "a point has no density" in point.kl(x).sentence
    sphere = explorer_of(made("hyperspherical-vae"))
    assert isinstance(sphere, Pictures)
    assert sphere.kl(x).by_unit is None


def test_generation_from_some_modalities(made: Callable[[str], vk.Run]) -> None:
    explorer = explorer_of(made("masked-multimodal"))
    assert isinstance(explorer, Modalities)
    given = explorer.sample_of_each()
    assert given.keys() == {"m0", "m1"}
    generated = explorer.generate(given, ["m0"], 3)
    assert {name: values.shape for name, values in generated.items()} == {
        name: (3, *explorer.shapes[name]) for name in ("m0", "m1")
    }
    # What is not chosen has no say.
    torch.manual_seed(3)
    first = explorer.generate(given, ["m0"], 3)
    torch.manual_seed(3)
    second = explorer.generate({**given, "m1": torch.zeros_like(given["m1"])}, ["m0"], 3)
    assert torch.equal(first["m1"], second["m1"])
    with pytest.raises(VaekitError, match="choose one modality"):
        explorer.generate(given, [], 3)
    with pytest.raises(VaekitError, match="nothing is given of m1 yet"):
        explorer.generate({"m0": given["m0"]}, ["m0", "m1"], 3)


def test_text_on_the_page_opens_no_file(made: Callable[[str], vk.Run], tmp_path: Path) -> None:
    explorer = explorer_of(made("labels"))
    assert isinstance(explorer, Modalities)
    np.save(tmp_path / "label.npy", np.eye(10)[3])
    assert explorer.read("label", "3").argmax() == 3
    assert torch.equal(explorer.run.read_modality("label", str(tmp_path / "label.npy")), explorer.read("label", "3"))
    with pytest.raises(VaekitError, match="parted by commas"):
        explorer.read("label", str(tmp_path / "label.npy"))


# ---- markup and server -----------------------------------------------------------------------------------------------


def test_pictures_are_data_and_names_are_text() -> None:
    image = torch.tensor([[[-1.0, 1.0]], [[0.0, 1.0]], [[1.0, 1.0]]])
    text = markup.sample("<b>", image, (-1.0, 1.0), "<b>")
    assert "<b>" not in text
    found = re.search(r'src="data:image/png;base64,([^"]+)"', text)
    assert found is not None
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        assert np.asarray(picture).tolist() == [[[0, 128, 255], [255, 255, 255]]]
    numbers = markup.sample("x", torch.arange(100.0), (0.0, 1.0))
    assert "the first 64 of 100 numbers" in numbers
    assert numbers.count("<tr>") == 64
    assert "width: 50.0%" in markup.bars([-1.0, 2.0], ["<i>", "b"])
    assert "<i>" not in markup.bars([-1.0, 2.0], ["<i>", "b"])


def test_the_first_free_port_is_taken_and_a_taken_one_refused() -> None:
    with listening_socket() as first, listening_socket() as second:
        host, port = first.getsockname()
        assert host == "127.0.0.1"
        assert second.getsockname()[1] > port >= 7860
        with pytest.raises(VaekitError, match=f"the port {port} is taken"):
            listening_socket(port)


def test_a_missing_gradio_is_one_sentence(
    made: Callable[[str], vk.Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as end:
        main(["explore", str(made("vae").out), "--no-browser"])
    assert end.value.code == 2
    assert capsys.readouterr().err.strip() == 'vaekit: the page needs gradio: pip install "vaekit[explore]"'


# ---- in the browser --------------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def _missing() -> str | None:
    for package in ("gradio", "playwright"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    return None if CHROMIUM else "there is no chromium on this machine"


class Served:
    """A served page: its address, the process, its working folder, and who asked the proxy to leave the machine."""

    def __init__(self, run: Path, folder: Path) -> None:
        self.temporary, self.folder = folder / "temporary", folder / "work"
        self.temporary.mkdir()
        self.folder.mkdir()
        self.proxy = socket.create_server(("127.0.0.1", 0))
        self.left: list[bytes] = []
        threading.Thread(target=self._note, daemon=True).start()
        proxy = f"http://127.0.0.1:{self.proxy.getsockname()[1]}"
        hidden = {"GRADIO_ANALYTICS_ENABLED", "NO_PROXY", "no_proxy"}
        environment = {key: value for key, value in os.environ.items() if key not in hidden}
        environment |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), proxy)
        environment |= {"TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from vaekit.cli.main import main; main()", "explore", str(run), "--no-browser"],
            cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        said = iter(self.process.stdout.readline, "")
        self.address = next((line.split(" ")[0] for line in said if line.startswith("http://127.0.0.1:")), "")
        if not self.address:
            pytest.fail(f"the server did not start: {self.process.communicate(timeout=60)[1]}")

    def _note(self) -> None:
        while True:
            try:
                connection, _ = self.proxy.accept()
            except OSError:
                return
            with connection:
                self.left.append(connection.recv(300))

    def end(self, number: signal.Signals) -> str:
        """Send a signal and return what was printed on standard error."""
        self.process.send_signal(number)
        error = self.process.communicate(timeout=60)[1]
        self.proxy.close()
        return error


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A page in the browser that remembers its requests and its errors."""

    def __init__(self, browser: Any, served: Served) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.page = self.context.new_page()
        self.hosts: set[str] = set()
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(served.address)
        self.served = served

    def picture(self, place: str) -> str:
        """Return the first picture of a place, when it is there."""
        return str(self.page.wait_for_selector(f"{place} img", timeout=60_000).get_attribute("src"))

    def after(self, place: str, before: str) -> str:
        """Return the first picture of a place as soon as it is another one."""
        changed = (
            "([place, before]) => { const i = document.querySelector(place + ' img'); return i && i.src != before; }"
        )
        self.page.wait_for_function(changed, arg=[place, before], timeout=60_000)
        return self.picture(place)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).locator("visible=true").first.click()

    def drop(self, content: bytes, name: str) -> None:
        """Drop a file where files are dropped on the tab that is seen."""
        data = self.page.evaluate_handle(
            "([content, name]) => { const data = new DataTransfer(); const bytes = Uint8Array.from(atob(content), c => "
            "c.charCodeAt(0)); data.items.add(new File([bytes], name, {type: 'image/png'})); return data; }",
            [base64.b64encode(content).decode(), name],
        )
        zone = self.page.locator("button", has_text="Drop File Here").locator("visible=true").first
        zone.dispatch_event("drop", {"dataTransfer": data})

    def close(self) -> None:
        self.context.close()
        assert self.errors == []
        assert {host for host in self.hosts if host} == {urlsplit(self.served.address).netloc}


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (20, 30, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.skipif(_missing() is not None, reason=f"the page is tested in a browser, and {_missing()}")
def test_page_of_a_mixture(made: Callable[[str], vk.Run], browser: Any, tmp_path: Path) -> None:
    served = Served(Path(str(made("gamix").out)), tmp_path)
    visit = Visit(browser, served)
    page = visit.page

    # A slider moves, and the picture with it; a draw is another picture; reset leads back.
    start = visit.picture("#decoded")
    slider = page.locator(".vk-knobs input[type=range]").first
    slider.focus()
    slider.press("End")
    moved = visit.after("#decoded", start)
    visit.press("Prior draw")
    drawn = visit.after("#decoded", moved)
    slider.focus()
    slider.press("Home")
    visit.after("#decoded", drawn)
    visit.press("Reset")
    page.wait_for_function("drawn => document.querySelector('#decoded img').src == drawn", arg=drawn, timeout=60_000)
    visit.press("Validation sample")
    visit.after("#decoded", drawn)

    # A picture that is dropped is reconstructed; one that is none is told in a sentence, without the server's folders.
    visit.tab("Picture")
    visit.drop(png(0), "one.png")
    first = visit.picture("#reconstruction")
    page.wait_for_selector("text=KL from its posterior to the prior")
    drawn = visit.picture("#component-draws")
    visit.drop(png(1), "two.png")
    visit.after("#reconstruction", first)
    visit.after("#component-draws", drawn)
    visit.drop(b"no image", "junk.png")
    told = page.get_by_text("cannot be read as an image")
    told.wait_for()
    assert told.inner_text().startswith("junk.png cannot be read")
    assert str(tmp_path) not in told.inner_text()

    # A component is picked, and draws pictures of its own.
    assert page.locator("#components img").count() == 2
    for number in (0, 1, 0):
        page.get_by_role("radio").nth(number).check()
        page.get_by_text(f"Draws from component {number + 1}, decoded").wait_for()
    drawn = visit.picture("#component-draws")
    visit.press("Draw again")
    visit.after("#component-draws", drawn)
    before = str(page.locator("#decoded img").get_attribute("src"))
    visit.press("Use its mean as start of the sliders")
    visit.after("#decoded", before)
    page.locator(".vk-knobs").wait_for(state="visible")

    # Two pictures, and the way between them.
    visit.tab("Walk")
    seen = page.get_by_alt_text("the picture as the model sees it").locator("visible=true")
    for number in range(2):
        page.get_by_role("button", name="Random validation image").locator("visible=true").nth(number).click()
        seen.nth(number).wait_for()
    here = visit.picture("#here")
    assert page.locator("#strip img").count() == 9
    position = page.get_by_label("range slider for Position on the way")
    position.focus()
    position.press("Home")
    visit.after("#here", here)

    visit.close()
    uploads = list(served.temporary.rglob("*.png"))
    assert {path.name for path in uploads} == {"one.png", "two.png", "junk.png"}
    error = served.end(signal.SIGINT)
    assert served.process.returncode == 0, error
    assert error == ""
    assert served.left == [], "something was asked of another machine"
    assert not list(served.temporary.rglob("*.png")), "a file of the user's was kept"
    assert not list(served.temporary.glob("vaekit-explore-*"))
    assert not list(served.folder.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(_missing() is not None, reason=f"the page is tested in a browser, and {_missing()}")
def test_page_of_several_modalities(made: Callable[[str], vk.Run], browser: Any, tmp_path: Path) -> None:
    served = Served(Path(str(made("masked-multimodal").out)), tmp_path)
    visit = Visit(browser, served)
    page = visit.page
    visit.picture("#decoded")
    assert page.locator("#decoded img").count() == 2
    visit.tab("Generate")
    visit.press("Generate")
    page.get_by_text("choose one modality or more").wait_for()
    visit.drop(png(0), "one.png")
    page.wait_for_function("document.querySelectorAll('input[type=checkbox]:checked').length == 1", timeout=60_000)
    visit.press("Generate")
    visit.picture("#generated")
    assert page.locator("#generated img").count() == 12
    visit.close()
    error = served.end(signal.SIGTERM)
    assert served.process.returncode == 143, error
    assert served.left == []
    assert not list(served.temporary.glob("vaekit-explore-*"))
