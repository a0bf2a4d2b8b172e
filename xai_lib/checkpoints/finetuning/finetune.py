"""`finetune`: train a text classifier into a folder, or go on with the training that is in it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from xai_lib.checkpoints.finetuning.bases import base_folder, fingerprint, read_base
from xai_lib.checkpoints.finetuning.card import model_card
from xai_lib.checkpoints.finetuning.config import FinetuneConfig
from xai_lib.checkpoints.finetuning.folder import Finetuned, FinetuneFolder
from xai_lib.checkpoints.finetuning.texts import Encoded, Labelled, held_out, read_labelled
from xai_lib.checkpoints.finetuning.training import accuracy_of, make_trainer, train_and_choose
from xai_lib.datasets import open_dataset
from xai_lib.datasets.base import TextDataset
from xai_lib.datasets.registry import SPLIT, parse_name
from xai_lib.errors import InputError, OptionError, needs_extra
from xai_lib.runs.fingerprints import versions

DEVICES = ("auto", "cpu")


@dataclass(frozen=True)
class Sets:
    """The data sets of a training; test may be None, and so may a validation to be cut off."""

    train: TextDataset
    validation: TextDataset | None
    test: TextDataset | None

    def fingerprints(self) -> dict[str, dict | None]:
        return {
            name: None if found is None else found.fingerprint()
            for name, found in vars(self).items()
        }


def finetune(
    base: str,
    dataset: str | TextDataset,
    out: str | os.PathLike,
    *,
    validation: str | TextDataset | None = None,
    test: str | TextDataset | None = None,
    data: str | os.PathLike | None = None,
    device: str = "auto",
    progress: bool = True,
    **settings,
) -> Finetuned:
    """Fine-tune a text classifier into the folder `out`, or go on with what is in it.

    base: "minilm", a model of texts that `load` knows, or a folder with an encoder. dataset,
    validation, test: names for `open_dataset` (with `data` as their path) or the sets themselves; a
    training set that has splits and names none is its split "train". No two may be the same data.
    settings: further fields of `FinetuneConfig` (epochs, lr, batch_size, max_length, seed...). The
    weights with the highest validation accuracy are kept; the test set decides nothing. A finished
    folder is returned as it is; one of another configuration is a RunError. After a kill the same
    call goes on from the last checkpoint, and ends with the weights of a training in one go, given
    the same versions, threads and device.

    >>> finetune("minilm", "sst2#train", "runs/minilm", test="sst2#dev")  # doctest: +SKIP
    """
    needs_extra("train", "accelerate")
    if not isinstance(base, str | os.PathLike):
        raise OptionError(f"base is {base!r}; expected a name or the path of a folder.")
    if device not in DEVICES:
        raise OptionError(f"device is {device!r}; expected {' or '.join(DEVICES)}.")
    given = {"dataset": _training_split(dataset, data), "validation": validation, "test": test}
    names = {name: _name(value, name) for name, value in given.items() if value is not None}
    try:
        config = FinetuneConfig(base=os.fspath(base), **names, **settings)
    except TypeError as error:
        raise OptionError(f"{error}: expected fields of FinetuneConfig.") from error
    sets = Sets(*(_open(given[name], config, data) for name in ("dataset", "validation", "test")))
    _refuse_same(sets)
    with base_folder(config.base, config.base_revision) as source:
        identity = {
            "configuration": config.as_dict(),
            "base": fingerprint(source),
            "data": sets.fingerprints(),
        }
        folder = FinetuneFolder(out)
        with folder.started(identity):
            done = folder.finished()
            if done is not None:
                return done
            return _train(config, sets, source, folder, identity, device, progress)


def _train(config, sets, source, folder, identity, device, progress) -> Finetuned:
    class_names = _class_names(sets.train)
    train, held, held_name = _split(config, sets, class_names)
    model, tokenizer, limit, new = read_base(source, class_names, config.seed)
    max_length = _max_length(config.max_length, limit)
    encoded = {
        "training": Encoded(train, tokenizer, max_length),
        "validation": Encoded(held, tokenizer, max_length, by_length=True),
    }
    if sets.test is not None:
        tested = read_labelled(sets.test, class_names)
        encoded["test"] = Encoded(tested, tokenizer, max_length, by_length=True)
    if config.max_length is None:
        _refuse_long(encoded, max_length)
    # On a CPU two threads add up in another order than one: noted, since digits depend on it.
    threads = torch.get_num_threads()
    trainer = make_trainer(
        model,
        tokenizer,
        *(encoded["training"], encoded["validation"]),
        *(config, folder, progress, device),
    )
    facts = train_and_choose(trainer, folder)
    validation = accuracy_of(trainer, encoded["validation"]) | {"source": held_name}
    test = None
    if "test" in encoded:
        test = accuracy_of(trainer, encoded["test"]) | {"source": config.test}
    metrics = {
        "class": type(model).__name__,
        "class_names": list(class_names),
        "validation": validation,
        "test": test,
        "samples": len(train),
        "max_length": max_length,
        "cut": {name: found.cut for name, found in encoded.items()},
        **facts,
        "new_parameters": new,
        "seed": config.seed,
        "command": config.command(folder.path.name),
        "versions": versions(),
        "threads": threads,
        **identity,
    }
    model = trainer.model.cpu().eval()
    if limit is not None:
        tokenizer.model_max_length = limit
    return folder.write_model(model, tokenizer, model_card(config, metrics), metrics)


def _name(value: object, which: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, TextDataset):
        return value.name
    raise OptionError(f"{which} is {value!r}; expected a name of `xai datasets` or a TextDataset.")


def _training_split(dataset, data):
    """Return the name with "#train" where no split is named.

    What `open_dataset` takes then is the split that papers report on.
    """
    if not isinstance(dataset, str):
        return dataset
    asked = parse_name(dataset)
    if asked is None or asked.split is not None or asked.entry.name == "csv":
        return dataset
    if asked.entry.name == "hf":
        return dataset if "#" in dataset else f"{dataset}#train"
    if SPLIT not in asked.entry.takes:
        return dataset
    source = asked.entry.source
    place = asked.place if source is None else source.looked_for(asked.place or data)
    is_file = place is not None and Path(place).expanduser().is_file()
    return dataset if is_file else f"{dataset}#train"


def _refuse_same(sets: Sets) -> None:
    """Raise InputError where a set is another one again: its accuracy would be none of new data."""
    seen: dict[str, str] = {}
    for name, found in sets.fingerprints().items():
        if found is None:
            continue
        told = json.dumps(found, sort_keys=True)
        if told in seen:
            raise InputError(
                f"{name} is the same data as {seen[told]} ({getattr(sets, name).name!r}): name "
                "another split or file, such as NAME#train and NAME#test."
            )
        seen[told] = name


def _open(value, config: FinetuneConfig, data) -> TextDataset | None:
    if value is None or isinstance(value, TextDataset):
        return value
    # Another split of the training set's data lies where that lies; other data does not.
    same = value.partition("#")[0] == config.dataset.partition("#")[0]
    where = {"path": data, "revision": config.dataset_revision} if same else {}
    found = open_dataset(value, **where)
    if not isinstance(found, TextDataset):
        raise OptionError(f"The data set {value!r} holds images; expected one of texts.")
    return found


def _class_names(dataset: TextDataset) -> tuple[str, ...]:
    if dataset.class_names:
        return tuple(dataset.class_names)
    labels = read_labelled(dataset).labels
    return tuple(str(index) for index in range(max(labels) + 1))


def _split(config, sets: Sets, class_names) -> tuple[Labelled, Labelled, str]:
    samples = read_labelled(sets.train, class_names, config.limit)
    if len(set(samples.labels)) < 2:
        raise InputError(f"{config.dataset!r} has samples of one class only; expected two or more.")
    if sets.validation is not None:
        return samples, read_labelled(sets.validation, class_names), config.validation
    train, held = held_out(samples, config.validation_share, config.seed)
    return train, held, f"held out of {config.dataset}"


def _max_length(asked: int | None, limit: int | None) -> int | None:
    if asked is not None and limit is not None and asked > limit:
        raise OptionError(f"max_length is {asked}; the base takes {limit} tokens at most.")
    return limit if asked is None else asked


def _refuse_long(encoded: dict[str, Encoded], max_length: int | None) -> None:
    long = {name: found.cut for name, found in encoded.items() if found.cut}
    if long:
        found = ", ".join(f"{count} {name} texts" for name, count in long.items())
        longest = max(set_.longest for set_ in encoded.values())
        raise InputError(
            f"{found} are longer than the {max_length} tokens that the base takes (the longest has "
            f"{longest}): give max_length={max_length} to cut them at their end."
        )
