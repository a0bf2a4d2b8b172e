"""Which parquet files of a hub's repository make a split, and having them here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from xai_lib.errors import InputError, MissingDataError, OptionError
from xai_lib.files.hub import TIMEOUT_S, reach_hub

CARD = "README.md"
DEFAULT_SPLITS = ("validation", "test")
_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^#@\s]+))?(?:#(?P<split>[\w.-]+))?"
)
# The words by which the hub's own rules know a split in a file's or folder's name.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=[.-])")


@dataclass(frozen=True)
class HubName:
    """A hub's data set: its repository, the commit, branch or tag, and the split, or None."""

    repo: str
    revision: str | None = None
    split: str | None = None

    @classmethod
    def parse(cls, text: str, revision: str | None = None) -> HubName:
        """Return the parts of "hf:OWNER/NAME@REVISION#SPLIT"; the last two may be left out."""
        found = _NAME.fullmatch(text)
        if found is None:
            raise OptionError(
                f"{text!r} is no name of a hub's data set: expected hf:OWNER/NAME, "
                "hf:OWNER/NAME@REVISION or hf:OWNER/NAME@REVISION#SPLIT."
            )
        if revision and found["revision"] and revision != found["revision"]:
            raise OptionError(f"{text!r} and revision={revision!r} contradict each other.")
        return cls(found["repo"], revision or found["revision"], found["split"])

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repo}{revision}" + (f"#{self.split}" if self.split else "")


def fetch_split(name: HubName, path: Path | None = None) -> list[Path]:
    """Return the local parquet files of the split, in order.

    Looked for in `path` if given, else in the hub's cache, else fetched: only these files. Raises
    MissingDataError where they cannot be had, OptionError for an unknown split, InputError for a
    repository without parquet files or with a file of the split missing.
    """
    if path is not None:
        if not path.is_dir():
            raise MissingDataError(f"There is no folder {str(path)!r} with a copy of {name}.")
        return _choose_local(name, path)
    return _cached(name) or _fetch(name)


def _choose_local(name: HubName, folder: Path) -> list[Path]:
    found = [file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet")]
    card = folder / CARD
    return [folder / file for file in choose_files(name, found, card if card.is_file() else None)]


def choose_files(name: HubName, files: Iterable[str], card: Path | None = None) -> list[str]:
    """Return the files of the split, by the card's configuration, else by the words in their names.

    files: all of the repository, relative. card: its README with the YAML header, or None.
    """
    parquet = sorted(file for file in files if file.endswith(".parquet"))
    if not parquet:
        raise InputError(
            f"{name} has no parquet files. The hub converts public sets: try the revision "
            f"'refs/convert/parquet', as in hf:{name.repo}@refs/convert/parquet."
        )
    splits = (_by_card(name, parquet, card) if card else None) or _by_words(parquet)
    wanted = (name.split,) if name.split else DEFAULT_SPLITS
    split = next((split for split in wanted if splits.get(split)), None)
    if split is None:
        raise OptionError(
            f"{name} has no split {' or '.join(map(repr, wanted))}. It has: "
            f"{', '.join(sorted(splits))}; choose with hf:OWNER/NAME#SPLIT."
        )
    chosen = splits[split]
    folders = {file.rpartition("/")[0] for file in chosen}
    if len(folders) > 1:
        raise InputError(
            f"{name}: the split {split!r} lies in several folders, {', '.join(sorted(folders))}, "
            "perhaps of several configurations. Copy the wanted one and give it as path=."
        )
    if any(part.startswith("partial-") for part in folders.pop().split("/")):
        raise InputError(f"{name}: the hub has converted only a part of the split {split!r}.")
    _check_shards(name, chosen)
    return chosen


def _by_card(name: HubName, files: list[str], card: Path) -> dict[str, list[str]] | None:
    """Return the files by split as the card's `configs` say, or None where it has none."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        configs = (metadata_load(card) or {}).get("configs") or []
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise InputError(
            f"The card {str(card)!r} of {name} is damaged ({' '.join(str(error).split())[:120]}): "
            "fetch it again, or remove it to go by the files' names."
        ) from error
    configs = configs if isinstance(configs, list) else []
    configs = [c for c in configs if isinstance(c, dict) and isinstance(c.get("data_files"), list)]
    if not configs:
        return None
    default = [c for c in configs if c.get("default") or c.get("config_name") == "default"]
    if not default and len(configs) > 1:
        names = ", ".join(str(config.get("config_name")) for config in configs)
        raise InputError(
            f"{name} has the configurations {names} and no default: copy the files of one and "
            "give the folder as path=."
        )
    splits = {}
    for entry in (default or configs)[0]["data_files"]:
        if isinstance(entry, dict) and "split" in entry:
            patterns = entry.get("path") or []
            patterns = [patterns] if isinstance(patterns, str) else patterns
            splits[str(entry["split"])] = [
                file for file in files if any(fnmatch(file, pattern) for pattern in patterns)
            ]
    return splits or None


def _by_words(files: list[str]) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for file in files:
        words = re.split(r"[^a-z0-9]+", file.lower())
        known = [split for split, names in _WORDS.items() if set(names) & set(words)]
        # As the hub's rules have it, files that name no split are all training data.
        splits.setdefault(known[0] if len(known) == 1 else "train", []).append(file)
    return splits


def _check_shards(name: HubName, files: list[str]) -> None:
    numbers = [(file, _SHARD.search(file)) for file in files]
    if not all(found for _, found in numbers):
        return
    present = {int(found[1]) for _, found in numbers}
    total = int(numbers[0][1][2])
    lacking = sorted(set(range(total)) - present)
    if lacking:
        raise InputError(
            f"{name} is incomplete: {len(lacking)} of {total} files are missing, the first is "
            f"number {lacking[0]:05d}."
        )


def _cached(name: HubName) -> list[Path] | None:
    """Return the files in the hub's cache, or None unless the whole split is there."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.file_download import repo_folder_name

    # By the cache's layout: asked for a snapshot, the library wants every split of it to be there.
    store = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name.repo, repo_type="dataset")
    revision = name.revision or "main"
    ref = store / "refs" / revision
    folder = store / "snapshots" / (ref.read_text() if ref.is_file() else revision)
    try:
        files = _choose_local(name, folder)
        # Files of a split differ in numbers: the library knows if one of them was never fetched.
        alike = [re.sub(r"\d+", "*", file.relative_to(folder).as_posix()) for file in files]
        snapshot_download(
            name.repo,
            repo_type="dataset",
            revision=name.revision,
            allow_patterns=sorted(set(alike)),
            local_files_only=True,
        )
    except (InputError, OptionError, LocalEntryNotFoundError):
        return None
    return files


def _fetch(name: HubName) -> list[Path]:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    where = {"repo_type": "dataset", "revision": name.revision, "etag_timeout": TIMEOUT_S}
    try:
        reach_hub()
        listed = HfApi().dataset_info(name.repo, revision=name.revision, timeout=TIMEOUT_S)
        files = [entry.rfilename for entry in listed.siblings or []]
        card = Path(hf_hub_download(name.repo, CARD, **where)) if CARD in files else None
    except Exception as error:  # its HTTP library and so its errors vary by version
        raise _unavailable(name, error) from error
    chosen = choose_files(name, files, card)
    try:
        folder = Path(snapshot_download(name.repo, allow_patterns=[CARD, *chosen], **where))
    except Exception as error:  # as above
        raise _unavailable(name, error) from error
    return [folder / file for file in chosen]


def _unavailable(name: HubName, error: Exception) -> MissingDataError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        reason, advice = "is gated", "accept its terms on the hub and log in with `hf auth login`"
    elif isinstance(error, ConnectionError | errors.OfflineModeIsEnabled):
        reason, advice = "is not in the local cache and the hub cannot be reached", "go online once"
    else:
        reason = f"cannot be had from the hub ({type(error).__name__})"
        advice = "check its name and revision"
    return MissingDataError(
        f"The data set '{name}' {reason}: {advice}, or give a folder with a copy of it as path=."
    )
