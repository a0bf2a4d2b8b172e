"""The Hugging Face hub: first its local cache, then the network, and never a long wait."""

from __future__ import annotations

from pathlib import Path

from xai_lib.errors import CheckpointError
from xai_lib.files.weights import (
    CONFIG_NAME,
    INDEX_NAME,
    PREPROCESSOR_NAME,
    TOKENIZER_NAMES,
    WEIGHTS_NAME,
    check_weights,
    read_json,
)

# Pickled weights are left on the hub: nothing here would open them.
TOKENIZER_EXTRAS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
WANTED = (
    *(CONFIG_NAME, PREPROCESSOR_NAME, INDEX_NAME, "model*.safetensors"),
    *(TOKENIZER_NAMES + TOKENIZER_EXTRAS),
)
TIMEOUT_S = 10.0


def cached(repo: str, filename: str = WEIGHTS_NAME, revision: str | None = None) -> Path | None:
    """Return the file's place in the local cache, or None; this never uses the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, filename, revision=revision)
    return Path(found) if isinstance(found, str) else None


def fetch_file(repo: str, filename: str, revision: str | None = None) -> Path:
    """Return a local copy of one file of `repo`, from the cache or else from the hub."""
    from huggingface_hub import hf_hub_download

    try:
        found = cached(repo, filename, revision)
        if found is not None:
            return found
        reach_hub()
        return Path(hf_hub_download(repo, filename, revision=revision, etag_timeout=TIMEOUT_S))
    except Exception as error:  # its HTTP library and so its errors vary by version
        raise _failure(repo, revision, error) from error


def fetch_folder(repo: str, revision: str | None = None) -> Path:
    """Return a local folder of `repo`: config, safetensors weights, preprocessor or tokenizer."""
    from huggingface_hub import snapshot_download

    try:
        config = cached(repo, CONFIG_NAME, revision)
        if config is not None and _is_whole(config.parent):
            return config.parent
        reach_hub()
        return Path(
            snapshot_download(
                repo, revision=revision, allow_patterns=list(WANTED), etag_timeout=TIMEOUT_S
            )
        )
    except Exception as error:  # its HTTP library and so its errors vary by version
        raise _failure(repo, revision, error) from error


def _is_whole(folder: Path) -> bool:
    """Say whether a cached snapshot can be loaded; other programs fetch only what they need."""
    try:
        check_weights(folder)
    except CheckpointError:
        return False
    config = read_json(folder / CONFIG_NAME)
    # VisualBERT's repositories have no tokenizer: they share that of BERT.
    alone = "architecture" in config or config.get("model_type") == "visual_bert"
    names = (PREPROCESSOR_NAME, *TOKENIZER_NAMES)
    return alone or any((folder / name).is_file() for name in names)


def reach_hub() -> None:
    """Ask the hub for nothing, once: a download retries for half a minute before it gives up."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception as error:  # whatever it is, there is no hub to load from
        raise ConnectionError(str(error)) from error


def why_not(error: Exception, wanted: str = "such file") -> tuple[str, str]:
    """Return why something cannot be had from the hub, and what to do about it, in words."""
    from huggingface_hub import errors

    offline = (ConnectionError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
    if isinstance(error, errors.GatedRepoError):
        return "is gated", "accept its terms on the hub and log in with `hf auth login`"
    if isinstance(error, offline):
        return "is not in the local cache and the hub cannot be reached", "go online once"
    if isinstance(error, errors.EntryNotFoundError):
        return f"has no {wanted} on the hub", "choose another one"
    reason = f"cannot be had from the hub ({type(error).__name__})"
    return reason, "check its name and revision"


def _failure(repo: str, revision: str | None, error: Exception) -> CheckpointError:
    at = f" at revision {revision!r}" if revision else ""
    reason, advice = why_not(error, "safetensors weights")
    return CheckpointError(
        f"{repo!r}{at} {reason}: {advice}, or give the path of a local folder that holds "
        f"{CONFIG_NAME} and {WEIGHTS_NAME}."
    )
