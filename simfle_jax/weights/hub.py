"""Encoders from and to a model hub, through huggingface_hub: `hf://OWNER/NAME@REVISION` in, a folder out."""

from pathlib import Path
from typing import Any, NoReturn

from simfle_jax.errors import UserError, lacks

SCHEME = "hf://"
WEIGHTS = "model.safetensors"  # as hubs call it
OURS = "encoder.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".tar", ".ckpt", ".pkl", ".pickle", ".msgpack")


def is_hub_name(path: str) -> bool:
    """Whether this names a repository of a hub and not a path."""
    return path.startswith(SCHEME)


def fetch(name: str) -> Path:
    """The folder of a repository in huggingface_hub's cache, fetched where it is not there yet.

    name: hf://OWNER/NAME, or hf://OWNER/NAME@REVISION with a branch, a tag or a commit; without one its main branch.
        Settings of the environment count: HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE.

    Raises:
        UserError: huggingface_hub is not installed; no such repository or revision, or nobody may read it; no network
            and nothing in the cache; or it holds no safetensors file, but a pickle, which could run code.
    """
    hub = _import_hub("reading from a hub")
    owner_and_name, _, revision = name.removeprefix(SCHEME).partition("@")
    if "/" not in owner_and_name:
        raise UserError(f"{name} is no repository: give hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    wanted = [WEIGHTS, OURS, "*.json"]
    try:
        found = Path(hub.snapshot_download(owner_and_name, revision=revision or None, allow_patterns=wanted))
    except Exception as error:
        _tell(hub, error, name)
    if not (found / WEIGHTS).exists() and not (found / OURS).exists():
        raise UserError(f"{name} holds no {WEIGHTS}{_pickles(hub, owner_and_name, revision)}")
    return found


def push(folder: Path, repository: str, private: bool, revision: str) -> str:
    """Uploads a folder of the hub's form into OWNER/NAME, made where there is none; gives its address.

    Raises:
        UserError: huggingface_hub is not installed, no token, no network, or the hub refuses.
    """
    hub = _import_hub("pushing to a hub")
    api = hub.HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, revision=revision or None, commit_message="Weights from simfle-jax"
        )
    except Exception as error:
        _tell(hub, error, repository)
    return str(address)


def _import_hub(what: str) -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise lacks(what, "huggingface_hub", "hub") from None
    return huggingface_hub


def _tell(hub: Any, error: Exception, name: str) -> NoReturn:
    """Turns what huggingface_hub raises, and what its network layer does, into one line."""
    kinds, reason = hub.errors, " ".join(str(error).split())[:160]
    if isinstance(error, kinds.HFValidationError):
        message = f"{name} is no name of a repository: {reason}"
    elif isinstance(error, kinds.GatedRepoError):
        message = f"{name} is gated: ask for access on its page, and set HF_TOKEN"
    elif isinstance(error, kinds.RepositoryNotFoundError):
        message = f"there is no repository {name}, or it is private: check the name, or set HF_TOKEN"
    elif isinstance(error, kinds.RevisionNotFoundError):
        message = f"{name}: the repository is there, but has no such revision (a branch, a tag or a commit)"
    elif isinstance(error, kinds.LocalEntryNotFoundError):
        message = f"{name} is not in the cache, and the hub cannot be reached: check the network, or HF_ENDPOINT"
    elif isinstance(error, kinds.LocalTokenNotFoundError) or getattr(_response(error), "status_code", 0) in (401, 403):
        message = f"{name}: the hub wants a token that may do this: run `hf auth login`, or set HF_TOKEN"
    else:
        message = f"{name}: the hub could not be used: {type(error).__name__}: {reason}"
    raise UserError(message) from None


def _response(error: Exception) -> Any:
    return getattr(error, "response", None)


def _pickles(hub: Any, repository: str, revision: str) -> str:
    """What a repository without safetensors has instead; '' where that cannot be known."""
    try:
        files = hub.HfApi().list_repo_files(repository, revision=revision or None)
    except Exception:
        files = []
    found = [file for file in files if file.lower().endswith(PICKLES)]
    if found:
        return f", only {', '.join(found[:3])}: a pickle can run code and is not loaded; ask its owner for safetensors"
    return f", only {', '.join(files[:5])}" if files else ""
