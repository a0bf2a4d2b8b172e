"""Which parquet files of a hub's repository make a split, and having them here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from xai_lib.errors import InputError, MissingDataError, OptionError
from xai_lib.files.hub import TIMEOUT_S, reach_hub, why_not

CARD = "README.md"
DEFAULT_SPLITS = ("validation", "test")
_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^#@\s]+))?(?:#(?P<split>[\w.-]+))?"
)
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
    if path is None:
        return _cached(name) or _fetch(name)
    if not path.is_dir():
        raise MissingDataError(f"There is no folder {str(path)!r} with a copy of {name}.")
    return _in_folder(name, path)


def choose_files(name: HubName, base: str, card: Path | None = None) -> list[str]:
    """Return the files of the split below `base`, by the rules of the library `datasets`.

    base: a folder, or "hf://datasets/OWNER/NAME@REVISION". card: the repository's README, whose
    header may say which files are which split; without, the words in the files' names do.
    """
    from datasets.data_files import DataFilesList, get_data_patterns

    try:
        patterns = _of_card(name, card) or get_data_patterns(base)
    except FileNotFoundError:  # there is no file at all
        patterns = {}
    splits: dict[str, list[str]] = {}
    for split, found in patterns.items():
        try:
            files = DataFilesList.from_patterns(found, base, allowed_extensions=[".parquet"])
        except FileNotFoundError:
            # A copy, and the cache, may hold one split alone.
            continue
        if files:
            splits[str(split)] = [file.removeprefix(base).lstrip("/") for file in files]
    if not splits:
        raise InputError(
            f"{name} has no parquet files. The hub converts public sets: try the revision "
            f"'refs/convert/parquet', as in hf:{name.repo}@refs/convert/parquet."
        )
    wanted = (name.split,) if name.split else DEFAULT_SPLITS
    split = next((split for split in wanted if split in splits), None)
    if split is None:
        raise OptionError(
            f"{name} has no split {' or '.join(map(repr, wanted))}. It has: "
            f"{', '.join(sorted(splits))}; choose with hf:OWNER/NAME#SPLIT."
        )
    _check_whole(name, split, splits[split])
    return splits[split]


def _of_card(name: HubName, card: Path | None) -> dict[str, list[str]] | None:
    """Return the patterns of each split's files as the card's header gives them, else None."""
    import yaml
    from datasets.data_files import sanitize_patterns
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData, metadata_load

    if card is None:
        return None
    try:
        header = DatasetCardData(**(metadata_load(card) or {}))
        configs = MetadataConfigs.from_dataset_card_data(header)
        chosen = configs.get(configs.get_default_config_name())
    except (yaml.YAMLError, ValueError, TypeError, OSError) as error:
        raise InputError(
            f"The card {str(card)!r} of {name} is damaged ({' '.join(str(error).split())[:120]}): "
            "fetch it again, or remove it to go by the files' names."
        ) from error
    if configs and chosen is None:
        raise InputError(
            f"{name} has the configurations {', '.join(configs)} and no default: copy the files of "
            "one and give the folder as path=."
        )
    stated = chosen.get("data_files") if chosen else None
    return sanitize_patterns(stated) if stated else None


def _check_whole(name: HubName, split: str, files: list[str]) -> None:
    """Raise InputError for files of several configurations, and for a split that lacks some."""
    folders = {file.rpartition("/")[0] for file in files}
    if len(folders) > 1:
        raise InputError(
            f"{name}: the split {split!r} lies in several folders, {', '.join(sorted(folders))}, "
            "perhaps of several configurations. Copy the wanted one and give it as path=."
        )
    if any(part.startswith("partial-") for part in folders.pop().split("/")):
        raise InputError(f"{name}: the hub has converted only a part of the split {split!r}.")
    shards = [found for file in files if (found := _SHARD.search(file))]
    lacking = sorted(set(range(int(shards[0][2]))) - {int(s[1]) for s in shards}) if shards else []
    if lacking:
        raise InputError(
            f"{name} is incomplete: {len(lacking)} of {int(shards[0][2])} files are missing, the "
            f"first is number {lacking[0]:05d}."
        )


def _in_folder(name: HubName, folder: Path) -> list[Path]:
    folder = folder.resolve()
    card = folder / CARD
    chosen = choose_files(name, folder.as_posix(), card if card.is_file() else None)
    return [folder / file for file in chosen]


def _cached(name: HubName) -> list[Path] | None:
    """Return the files in the hub's cache, or None unless the whole split is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    where = {"repo_type": "dataset", "revision": name.revision, "local_files_only": True}
    try:
        folder = Path(snapshot_download(name.repo, allow_patterns=[CARD], **where))
        files = _in_folder(name, folder)
        # Files of a split differ in numbers: the library knows if one of them was never fetched.
        alike = {
            re.sub(r"\d+", "*", file.relative_to(folder.resolve()).as_posix()) for file in files
        }
        snapshot_download(name.repo, allow_patterns=sorted(alike), **where)
    except (InputError, OptionError, LocalEntryNotFoundError):
        return None
    return files


def _fetch(name: HubName) -> list[Path]:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    where = {"repo_type": "dataset", "revision": name.revision, "etag_timeout": TIMEOUT_S}
    try:
        reach_hub()
        listed = HfApi().dataset_info(name.repo, revision=name.revision, timeout=TIMEOUT_S)
        has_card = any(entry.rfilename == CARD for entry in listed.siblings or [])
        card = Path(hf_hub_download(name.repo, CARD, **where)) if has_card else None
        chosen = choose_files(name, f"hf://datasets/{name.repo}@{listed.sha}", card)
        folder = Path(snapshot_download(name.repo, allow_patterns=[CARD, *chosen], **where))
    except (InputError, OptionError):
        raise
    except Exception as error:  # its HTTP library and so its errors vary by version
        reason, advice = why_not(error)
        raise MissingDataError(
            f"The data set '{name}' {reason}: {advice}, or give a folder with a copy of it as "
            "path=."
        ) from error
    return [folder / file for file in chosen]
