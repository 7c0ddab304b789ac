"""Models in folders and on the Hub: what is pushed is what is pulled, bit for bit, and nothing else leaves or comes."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from helpers import SEVERAL_MODALITIES, call, tiny
from test_recipes import SMALL

import vaekit as vk
from vaekit.config import RunConfig, read_recipe, resolve
from vaekit.errors import VaekitError
from vaekit.evaluation.records import Record, keep_record
from vaekit.files import save_json, sha256
from vaekit.observed import Observed
from vaekit.places import hide_places, without_places

hub = pytest.importorskip("huggingface_hub", reason="the hub extra is not installed")


class Folder:
    """A Hub that is a folder: what is uploaded lies below it, by repository and commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commits: list[str] = []
        self.private: bool | None = None

    def create_repo(self, repo_id: str, *, private: bool | None = None, exist_ok: bool = False) -> None:
        assert exist_ok
        self.private = private
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        assert commit_message
        self.commits.append(f"{len(self.commits):040d}")
        shutil.copytree(folder_path, self.root / repo_id / self.commits[-1])
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/{self.commits[-1]}")

    def snapshot_download(
        self, repo_id: str, *, revision: str | None, allow_patterns: Sequence[str], local_files_only: bool
    ) -> str:
        assert not local_files_only
        out = self.root / "cache" / repo_id
        for file in (self.root / repo_id / (revision or self.commits[-1])).iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                out.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, out)
        return str(out)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    made = Folder(tmp_path / "hub")
    for name in ("create_repo", "upload_folder", "snapshot_download"):
        monkeypatch.setattr(hub, name, getattr(made, name))
    return made


def untrained(name: str, **overrides: Any) -> vk.Run:
    config = tiny(name, **SMALL.get(name, {}), **overrides)
    shape: Any = {"m0": (3, 28, 28), "m1": (3, 28, 28)} if name in SEVERAL_MODALITIES else (1, 8, 8)
    values = dict.fromkeys(shape, "image") if name in SEVERAL_MODALITIES else None
    run = vk.Run(config.model_copy(update={"data_shape": shape, "data_values": values}))
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "vae"
    config = tiny("vae", trainer={"max_steps": 2, "accelerator": "cpu"}, data={"limit": 100})
    vk.Run(config, out).fit(command=f"vaekit run vae --out {out}")
    record = {
        "protocol": {"data": {"data": "digits", "limit": 100}, "split": "test", "samples": 100, "particles": 50},
        "made": {"weights_sha256": sha256(out / "model.safetensors")},
        "notes": ["a note on the figure"],
    }
    values = {"log_likelihood": {"mean": -31.4159, "standard_error": 0.25, "count": 100}}
    keep_record(out, Record("likelihood", values, **record))
    protocol = {**record["protocol"], "particles": 500}
    keep_record(out, Record("likelihood", values | {"log_likelihood": {"mean": -30.5, "standard_error": 0.2}},
                            protocol, record["made"]))  # fmt: skip
    keep_record(out, Record("probe", {"accuracy": 0.9876}, {"split": "test"}, {"weights_sha256": "of earlier ones"}))
    return out


# ---- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vae", "gamix", "pvae", "iaf-vae", "vampprior", "mmvm", "mmvae-plus"])
def test_what_is_pulled_is_what_was_pushed(name: str, folder: Folder) -> None:
    run = untrained(name)
    assert run.push_to_hub("me/model") == f"https://hub/me/model/commit/{folder.commits[-1]}"
    pulled = vk.Run.from_pretrained("me/model")
    before, after = run.model.state_dict(), pulled.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert type(pulled) is type(run)
    assert pulled.config == run.config
    assert not pulled.model.training
    model = run.model.eval()
    if name in SEVERAL_MODALITIES:
        x: Any = Observed({part: torch.rand(3, 3, 28, 28) for part in model.names})
        expected, found = model.reconstruct(x), pulled.model.reconstruct(x)
        assert all(torch.equal(value, found[part]) for part, value in expected.items())
        expected, found = run.sample(4, seed=3).modalities, pulled.sample(4, seed=3).modalities
        assert all(torch.equal(value, found[part]) for part, value in expected.items())
    else:
        x = torch.rand(3, 1, 8, 8)
        assert torch.equal(model.encode(x).mean, pulled.model.encode(x).mean)
        assert torch.equal(model.reconstruct(x), pulled.model.reconstruct(x))
        assert torch.equal(run.sample(4, seed=3).tensor, pulled.sample(4, seed=3).tensor)


def test_a_revision_is_what_it_was(folder: Folder) -> None:
    first, second = untrained("vae"), untrained("vae", latent_dim=3)
    for run in (first, second):
        run.push_to_hub("me/model")
    assert vk.Run.from_pretrained("me/model").model.latent_dim == 3
    assert vk.Run.from_pretrained("me/model", revision=folder.commits[0]).model.latent_dim == 4


def test_a_saved_folder_is_a_run_directory(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = vk.Run.load(trained)
    saved = run.save_pretrained(tmp_path / "saved")
    assert {path.name for path in saved.iterdir()} == {"README.md", "config.yaml", "model.safetensors"}
    assert (saved / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert call("sample", str(saved), "--n", "4", "--out", str(tmp_path / "four.png")) == 0
    # Both kinds of folder can be loaded as a model.
    for place in (saved, trained):
        assert torch.equal(vk.Run.from_pretrained(place).sample(4, seed=0).tensor, run.sample(4, seed=0).tensor)
    with pytest.raises(VaekitError, match="is the run directory itself"):
        run.save_pretrained(trained)


def test_what_is_done_with_a_pulled_model_leaves_its_folder_alone(trained: Path, tmp_path: Path) -> None:
    saved = vk.Run.load(trained).save_pretrained(tmp_path / "saved")
    before = sorted(saved.iterdir())
    run = vk.Run.from_pretrained(saved, offline=True)
    assert run.out is None
    assert run.offline
    run.sample(2, "expost-mixture", seed=0)
    assert sorted(saved.iterdir()) == before
    with pytest.raises(VaekitError, match="has no directory to export into"):
        run.export()


def test_a_run_that_was_never_fitted_says_the_shape_of_its_data(tmp_path: Path) -> None:
    run = vk.Run(tiny("vae"))
    run.save_pretrained(tmp_path / "saved")
    assert vk.Run.from_pretrained(tmp_path / "saved").config.data_shape == (1, 8, 8)


# ---- the card --------------------------------------------------------------------------------------------------------


def test_card(trained: Path, tmp_path: Path) -> None:
    saved = vk.Run.load(trained).save_pretrained(tmp_path / "digits-vae", license="apache-2.0")
    card = hub.ModelCard.load(saved / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "vaekit"
    assert {"vaekit", "vae", "gaussian-posterior"} <= set(card.data.tags)
    text = card.content
    assert 'vk.Run.from_pretrained("digits-vae")' in text
    assert "```bash\nvaekit run config.yaml\n```" in text
    assert "Loss: negative ELBO. 2 steps" in text
    assert f"SHA-256 of `model.safetensors`: `{sha256(saved / 'model.safetensors')}`" in text
    # Two protocols are two columns, with what they share below; figures of other weights are not there.
    assert "| figure | 50 | 500 |\n" in text or "| figure | 50 particles | 500 particles |\n" in text
    assert "| log p(x) | -31.42 ± 0.25 | -30.50 ± 0.2 |" in text
    assert "Protocol: data digits; split test; samples 100." in text
    records = json.loads((trained / "evaluation.json").read_text())["records"]
    assert "| digest | " + " | ".join(f"`{each['digest']}`" for each in records[:2]) + " |" in text
    assert "Note: a note on the figure." in text
    assert "0.9876" not in text
    assert "1 metric(s) were computed with earlier weights and are left out." in text


def test_card_without_licence_or_record(tmp_path: Path) -> None:
    run = untrained("mmvae-plus")
    saved = run.save_pretrained(tmp_path / "saved")
    metadata = yaml.safe_load((saved / "README.md").read_text().split("---")[1])
    assert metadata.keys() == {"library_name", "tags"}
    assert "multimodal" in metadata["tags"]
    text = (saved / "README.md").read_text()
    assert "The record of the run was not at hand" in text
    assert "## Figures" not in text


def test_card_says_on_what_terms_the_data_are(trained: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained, tmp_path / "run")
    environment = json.loads((out / "environment.json").read_text())
    notes = ["CelebA is for non-commercial research only", "another | note"]
    save_json(out / "environment.json", {**environment, "notes": notes})
    text = (vk.Run.load(out).save_pretrained(tmp_path / "saved") / "README.md").read_text()
    assert "## What to know\n\n- CelebA is for non-commercial research only\n- another | note\n" in text


def test_the_card_makes_the_run_again(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = vk.Run.load(trained).save_pretrained(tmp_path / "saved")
    (command,) = re.findall(r"```bash\nvaekit (.+)\n```", (saved / "README.md").read_text())
    monkeypatch.chdir(saved)
    assert call(*command.split(), "--out", str(tmp_path / "again")) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()


# ---- what stays here -------------------------------------------------------------------------------------------------


def test_paths_of_this_machine_stay_here(trained: Path, tmp_path: Path) -> None:
    out, photographs = shutil.copytree(trained, tmp_path / "run"), tmp_path / "secret" / "photographs"
    config = resolve(read_recipe(out), {"data": {"root": "/srv/secret", "name": str(photographs)}})
    config = config.model_copy(update={"backbone": {**config.backbone, "weights": "~/secret/weights.pt"}})
    environment = json.loads((out / "environment.json").read_text())
    notes = [f"3 files in {photographs} were skipped", f"kept in {Path.home() / 'cache'}"]
    save_json(out / "environment.json", {**environment, "notes": notes})
    run = vk.Run.load(out)
    run.config = config
    saved = run.save_pretrained(tmp_path / "saved")
    for file in saved.iterdir():
        content = file.read_bytes()
        for place in ("/srv", "secret", str(tmp_path), str(Path.home())):
            assert place.encode() not in content, f"{file.name} names {place}"
    told = yaml.safe_load((saved / "config.yaml").read_text())
    assert told["data"]["name"] == "photographs"
    assert told["backbone"]["weights"] == "weights.pt"
    text = (saved / "README.md").read_text()
    assert "- 3 files in photographs were skipped\n- kept in ~/cache\n" in text
    assert "vaekit run config.yaml --data PATH" in text


def test_what_is_no_absolute_path_stays_as_it_is() -> None:
    config = resolve(read_recipe("vae"), {"about": "grey / white", "data": {"name": "some/folder"}})
    assert without_places(config) == config
    assert hide_places("nats/sample in some/folder, 1/255 and https://x/y", config) == (
        "nats/sample in some/folder, 1/255 and https://x/y"
    )


def test_push_is_forbidden_offline(trained: Path, folder: Folder) -> None:
    with pytest.raises(VaekitError, match="the run is offline, and 'me/model' is on the Hub"):
        vk.Run.load(trained, offline=True).push_to_hub("me/model")
    assert folder.commits == []


# ---- what may come in ------------------------------------------------------------------------------------------------


def test_nothing_but_configuration_and_weights_is_fetched(folder: Folder, tmp_path: Path) -> None:
    untrained("vae").push_to_hub("me/model")
    planted = folder.root / "me/model" / folder.commits[-1]
    for name in ("pytorch_model.bin", "checkpoint.pt", "vaekit.py", "config.yaml.py"):
        (planted / name).write_text("import os")
    vk.Run.from_pretrained("me/model")
    fetched = {path.name for path in (folder.root / "cache/me/model").iterdir()}
    assert fetched == {"config.yaml", "model.safetensors"}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return untrained("vae").save_pretrained(tmp_path / "saved")


def changed(folder: Path, **changes: Any) -> None:
    content = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**content, **changes}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"posterior": {"name": "gausian"}}, "unknown posterior 'gausian': did you mean 'gaussian'"),
        ({"posterior": {"name": "os:system"}}, "unknown posterior 'os:system'"),
        ({"latent_dim": 5}, "the weights in .* are not those of its config.yaml"),
        ({"data_shape": None}, "does not say the shape of the data, data_shape"),
        ({"code": "print()"}, "unknown key 'code'"),
        ({"backbone": {"name": "mlp", "hidden": "[16]"}}, "backbone.hidden = .* is not valid"),
    ],
)
def test_a_configuration_that_is_not_right_is_a_sentence(saved: Path, changes: dict[str, Any], sentence: str) -> None:
    changed(saved, **changes)
    with pytest.raises(VaekitError, match=sentence):
        vk.Run.from_pretrained(saved)


def test_a_configuration_runs_no_code(saved: Path, tmp_path: Path) -> None:
    (saved / "config.yaml").write_text(f"about: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    with pytest.raises(VaekitError, match="is not readable YAML"):
        vk.Run.from_pretrained(saved)
    assert not (tmp_path / "made").exists()


def test_weights_are_never_unpickled(saved: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"x": Evil()}, saved / "model.safetensors")
    with pytest.raises(VaekitError, match="model.safetensors is damaged"):
        vk.Run.from_pretrained(saved)
    assert not (tmp_path / "made").exists()


def test_a_folder_that_is_no_model_is_a_sentence(saved: Path, tmp_path: Path, folder: Folder) -> None:
    with pytest.raises(VaekitError, match="a revision is for models on the Hub"):
        vk.Run.from_pretrained(saved, revision="main")
    for name in ("model.safetensors", "config.yaml"):
        (saved / name).unlink()
        with pytest.raises(VaekitError, match=f"saved holds no model of vaekit: it has no {name}"):
            vk.Run.from_pretrained(saved)
    folder.create_repo("me/empty", exist_ok=True)
    folder.upload_folder(repo_id="me/empty", folder_path=str(saved), commit_message="nothing")
    with pytest.raises(VaekitError, match="me/empty holds no model of vaekit"):
        vk.Run.from_pretrained("me/empty")


# ---- the real huggingface_hub, without a network ---------------------------------------------------------------------


def test_offline_takes_what_the_cache_holds(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(VaekitError, match="'me/model' is not on this machine and the Hub cannot be asked"):
        vk.Run.from_pretrained("me/model", offline=True)
    repository, commit = tmp_path / "cache" / "models--me--model", "0" * 40
    shutil.copytree(saved, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    pulled = vk.Run.from_pretrained("me/model", offline=True)
    expected = vk.Run.from_pretrained(saved)
    assert torch.equal(pulled.sample(3, seed=0).tensor, expected.sample(3, seed=0).tensor)


def raising(error: Exception) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


def test_what_the_hub_says_is_a_sentence(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = hub.errors
    with pytest.raises(VaekitError, match="./nowhere/at/all is neither a folder that is here nor a repository"):
        vk.Run.from_pretrained("./nowhere/at/all")
    response = SimpleNamespace(headers={}, request=None, status_code=404)
    for error, sentence in (
        (errors.RepositoryNotFoundError("404", response=response), "there is no repository 'me/model' on the Hub"),
        (errors.GatedRepoError("403", response=response), "there is no repository 'me/model' on the Hub"),
        (errors.RevisionNotFoundError("404", response=response), "'me/model' has no such revision"),
        (errors.HfHubHTTPError("500 Server Error\nmore", response=response), "give 'me/model': 500 Server Error$"),
        (errors.OfflineModeIsEnabled("offline"), "the Hub cannot be asked"),
        (errors.HfHubHTTPError.__bases__[0]("no route to host"), "give 'me/model': no route to host"),
        (ConnectionError("connection reset"), "give 'me/model': connection reset"),
    ):
        monkeypatch.setattr(hub, "snapshot_download", raising(error))
        with pytest.raises(VaekitError, match=sentence):
            vk.Run.from_pretrained("me/model")
    monkeypatch.setattr(hub, "create_repo", raising(errors.HfHubHTTPError("403 Forbidden", response=response)))
    with pytest.raises(VaekitError, match="did not take or give 'me/model': 403 Forbidden"):
        vk.Run.load(trained).push_to_hub("me/model")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(VaekitError, match=r'needs huggingface_hub: pip install "vaekit\[hub\]"'):
        vk.Run.from_pretrained("me/model")


def test_command_line(trained: Path, folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("push", str(trained), "me/model", "--license", "mit", "--private") == 0
    printed = capsys.readouterr().out
    assert f"pushed: https://hub/me/model/commit/{folder.commits[-1]}" in printed
    assert 'load it with: vk.Run.from_pretrained("me/model")' in printed
    assert folder.private is True
    card = (folder.root / "me/model" / folder.commits[-1] / "README.md").read_text()
    assert "license: mit" in card
    assert "# me/model" in card
    assert isinstance(vk.Run.from_pretrained("me/model").config, RunConfig)
    assert call("push", str(trained / "nothing"), "me/model") == 2
