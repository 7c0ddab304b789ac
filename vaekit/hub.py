"""Models in folders and on the Hugging Face Hub: `config.yaml`, `model.safetensors` and a model card."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vaekit.config import read_recipe, resolve
from vaekit.errors import VaekitError
from vaekit.files import atomic, pack_tensors
from vaekit.places import hide_places, without_places
from vaekit.reporting.model_card import model_card
from vaekit.reporting.record import read_record

if TYPE_CHECKING:
    from vaekit.run import Run

__all__ = ["from_pretrained", "push_to_hub", "save_pretrained"]

_CONFIG, _WEIGHTS, _CARD = "config.yaml", "model.safetensors", "README.md"


def save_pretrained(run: Run, folder: str | Path, *, license: str | None = None, name: str | None = None) -> Path:
    """Write the model of a run as a folder that `from_pretrained` reads: configuration, weights and a card.

    Absolute paths, `data.root` among them, stay behind: see `vaekit.places`. The card has the figures of
    `evaluation.json`, each with its protocol.

    Arguments:
        run: The run.
        folder: Where; not the run directory.
        license: The licence for the card's metadata, such as `mit`; none is named if not given.
        name: What the card says the model is loaded by; the folder's own name if not given.

    Returns:
        The folder.

    Raises:
        VaekitError: The folder is the run's own, or may not be written.

    Examples:
        >>> from vaekit.run import Run, recipe
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = recipe("vae", data="digits")
        ...     path = save_pretrained(run, folder)
        ...     sorted(file.name for file in path.iterdir()), type(from_pretrained(path).model).__name__
        (['README.md', 'config.yaml', 'model.safetensors'], 'VAE')
    """
    folder = Path(folder)
    if run.out is not None and folder.resolve() == run.out.resolve():
        raise VaekitError(f"{folder} is the run directory itself: choose another folder to save the model in")
    model, config = run.model, run.config
    if config.data_shape is None:
        config = config.model_copy(update={"data_shape": model.data_shape, "data_values": run.data.values})
    weights = pack_tensors(model.state_dict())
    recorded = run.out is not None and (run.out / _CONFIG).is_file()
    shared = without_places(config)
    card = model_card(
        shared.model_dump(mode="json"),
        read_record(run.out) if run.out is not None and recorded else None,
        hashlib.sha256(weights).hexdigest(),
        name=name or folder.resolve().name,
        license=license,
    )
    contents = {
        _CARD: hide_places(card, config).encode(),
        _WEIGHTS: weights,
        _CONFIG: shared.to_yaml().encode(),
    }
    with ExitStack() as stack:
        for file, content in contents.items():
            stack.enter_context(atomic(folder / file)).write(content)
    return folder


def from_pretrained(name: str | Path, *, revision: str | None = None, offline: bool = False) -> Run:
    """Load a model from a folder that `save_pretrained` or a run wrote, or from the Hugging Face Hub.

    Nothing is unpickled, and no code is run but that of vaekit and of installed plug-ins that the configuration names.
    The run has no directory of its own: what is done with it writes nothing into the folder or the Hub's cache.

    Arguments:
        name: A folder, or a repository such as `owner/name`.
        revision: A branch, a tag or a commit of the repository; its main branch if not given.
        offline: Forbid downloads: of a repository, what the Hub's cache on this machine holds.

    Raises:
        VaekitError: There is no such folder or repository, it holds no model, or the model cannot be built here.
    """
    from vaekit.run import Run

    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _download(str(name), revision, offline)
    elif revision is not None:
        raise VaekitError(f"a revision is for models on the Hub, and {folder} is a folder: leave it out")
    for file in (_CONFIG, _WEIGHTS):
        if not (folder / file).is_file():
            raise VaekitError(f"{name} holds no model of vaekit: it has no {file}")
    if resolve(read_recipe(folder)).data_shape is None:
        raise VaekitError(f"the config.yaml of {name} does not say the shape of the data, data_shape: save it again")
    run = Run.load(folder, offline=offline)
    run.out = None
    return run


def push_to_hub(run: Run, repo_id: str, *, private: bool = False, license: str | None = None) -> str:
    """Write the model of a run into a repository on the Hugging Face Hub, which is made where there is none.

    Log in before, with `hf auth login`. What is written is what `save_pretrained` writes.

    Arguments:
        run: The run.
        repo_id: The repository, such as `owner/name`.
        private: Whether a repository that is made is private.
        license: The licence for the card's metadata, such as `mit`; none is named if not given.

    Returns:
        The address of the commit.

    Raises:
        VaekitError: The run is offline, huggingface_hub is not installed, or the Hub does not take it.
    """
    if run.offline:
        raise VaekitError(f"the run is offline, and '{repo_id}' is on the Hub: leave offline out, or save_pretrained")
    hub = _hub()
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(run, folder, license=license, name=repo_id)
        with _sentences(repo_id):
            hub.create_repo(repo_id, private=private, exist_ok=True)
            commit = hub.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="A model of vaekit")
    return str(commit.commit_url)


def _download(name: str, revision: str | None, offline: bool) -> Path:
    hub = _hub()
    with _sentences(name):
        # Only what is read: a stranger's repository may hold anything.
        wanted = [_CONFIG, _WEIGHTS]
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=offline))


def _hub() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise VaekitError('the Hugging Face Hub needs huggingface_hub: pip install "vaekit[hub]"') from error
    return huggingface_hub


@contextmanager
def _sentences(name: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence."""
    from huggingface_hub import errors

    # Failures of the network are those of the library that huggingface_hub happens to use: its own error says which.
    failures: Any = errors.HfHubHTTPError.__bases__
    try:
        yield
    except errors.HFValidationError as error:
        raise VaekitError(f"{name} is neither a folder that is here nor a repository such as owner/name") from error
    except errors.RevisionNotFoundError as error:
        raise VaekitError(f"the repository '{name}' has no such revision: see its page on the Hub") from error
    except errors.RepositoryNotFoundError as error:
        raise VaekitError(
            f"there is no repository '{name}' on the Hub that you may use: check its name, or log in with "
            "`hf auth login`"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise VaekitError(
            f"'{name}' is not on this machine and the Hub cannot be asked: leave offline and HF_HUB_OFFLINE out, or "
            "look at the network"
        ) from error
    except failures as error:
        said = next(filter(None, map(str.strip, str(error).splitlines())), type(error).__name__)
        raise VaekitError(f"the Hub did not take or give '{name}': {said}") from error
