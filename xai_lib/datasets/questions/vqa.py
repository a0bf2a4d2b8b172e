"""VQA v2: questions, their answers, and of each image the pixels and what a detector saw."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

from xai_lib.datasets.base import QuestionDataset, QuestionSample
from xai_lib.datasets.fingerprints import stated
from xai_lib.datasets.images.coco import CocoImages, image_key
from xai_lib.datasets.missing import Source
from xai_lib.datasets.questions.answers import find_answers
from xai_lib.datasets.questions.records import Question, read_lxmert, read_vqa2
from xai_lib.datasets.regions.features import RegionFeatures
from xai_lib.datasets.regions.opening import open_regions
from xai_lib.datasets.registry import PATH, PLACE, SPLIT, Asked, dataset, no_split
from xai_lib.errors import InputError, OptionError

VQA2 = Source(
    name="vqa2",
    title="VQA v2: Goyal et al., CVPR 2017, on COCO's images",
    place="https://visualqa.org/download.html",
    archive="the validation questions and annotations (or LXMERT's valid.json), COCO's val2014 or "
    "region features, and trainval_label2ans.json, in one folder",
    samples=214_354,
    split="validation",
)
# The published protocol of perturbation and pruning on VQA v2.
PROTOCOL_SAMPLES, PROTOCOL_SEED = 10_000, 1234
_VAL, _TRAIN = "val2014", "train2014"
# Each split's file of LXMERT's, and COCO's images that it asks about.
_SPLITS = {
    "validation": ("valid.json", _VAL),
    "train": ("train.json", _TRAIN),
    "minival": ("minival.json", _VAL),
    "nominival": ("nominival.json", _VAL),
}
# Splits of which VQA v2's own files are published.
_WHOLE = ("validation", "train")
_FEATURES = ("features", ".tsv", ".h5", ".hdf5", ".lmdb")


class VQA(QuestionDataset):
    """Questions with the regions and the pixels of their images, joined when they are asked for.

    questions: in order. class_names: the answers that a model chooses from, in the order of its
    outputs. regions, images: of all images that the questions are about, or None. A sample's label
    is the class of its best answer, of several that are equal the first class; None where no
    accepted answer is a class. Raises InputError where an image's regions or file are missing.
    """

    def __init__(
        self,
        name: str,
        questions: Sequence[Question],
        class_names: Sequence[str],
        *,
        regions: RegionFeatures | None = None,
        images: CocoImages | None = None,
    ):
        self.name, self.class_names = name, tuple(class_names)
        self.regions, self.images = regions, images
        self._questions = tuple(questions)
        self._classes = {answer: place for place, answer in enumerate(self.class_names)}
        self.has_labels = any(question.answers for question in self._questions)
        if not self._questions:
            raise InputError(f"{name!r} has no questions: expected at least one.")
        for source, what in ((regions, "no region features"), (images, "no file")):
            if source is not None:
                self._check_all(source, what)

    def _check_all(self, source: RegionFeatures | CocoImages, what: str) -> None:
        missing = [q for q in self._questions if q.image not in source]
        if missing:
            place = str(source.path if isinstance(source, RegionFeatures) else source.root)
            images = dict.fromkeys(image_key(q.image) for q in missing)
            raise InputError(
                f"{place!r} has {what} of {len(images)} images that questions are about, such as "
                f"{missing[0].image!r} of question {missing[0].key}: it has {len(source)} images. "
                "Complete it, or take it away."
            )

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> QuestionSample:
        question = self._questions[range(len(self))[index]]
        seen = None if self.regions is None else self.regions[question.image]
        return QuestionSample(
            question.key,
            question.text,
            features=None if seen is None else seen.features,
            boxes=None if seen is None else seen.boxes,
            image=None if self.images is None else self.images[question.image],
            answers=dict(question.answers),
            label=self._label(question),
        )

    def _label(self, question: Question) -> int | None:
        scored = [
            (-score, self._classes[answer])
            for answer, score in question.answers.items()
            if score > 0 and answer in self._classes
        ]
        return min(scored)[1] if scored else None

    def question(self, index: int) -> Question:
        """Return a sample's question, image name and answers, without reading its image."""
        return self._questions[range(len(self))[index]]

    def subset(self, samples: int = PROTOCOL_SAMPLES, seed: int = PROTOCOL_SEED) -> VQA:
        """Return the first `samples` after shuffling with Python's generator, as published.

        `random.Random(seed).shuffle` of the indices, whose first 10,000 with the seed 1234 are what
        the published perturbation and pruning curves are measured on (with the questions in the
        order of LXMERT's valid.json). Raises OptionError for more samples than there are.
        """
        chosen = _shuffled(self._questions, samples, seed, self.name)
        return VQA(self.name, chosen, self.class_names, regions=self.regions, images=self.images)

    def fingerprint(self) -> dict[str, str | int]:
        """Return number, bytes and a digest of questions, answers, and images' names and sizes."""
        digest, total = hashlib.sha256(ascii(self.class_names).encode()), 0
        for key, image, text, answers in self._questions:
            # As ASCII: JSON may hold half characters, which UTF-8 cannot.
            record = ascii((key, image_key(image), text, sorted(answers.items()))).encode()
            digest.update(record)
            total += len(record)
        images = dict.fromkeys(question.image for question in self._questions)
        if self.regions is not None:
            seen = self.regions.fingerprint(images)
            digest.update(ascii(sorted(seen.items())).encode())
            total += seen["bytes"]
        if self.images is not None:
            sizes = self.images.sizes(images)
            digest.update(ascii(sorted(sizes.items())).encode())
            total += sum(sizes.values())
        return stated(self.name, len(self), total, digest.hexdigest())


def _shuffled(questions: Sequence[Question], samples: int, seed: int, name: str) -> list[Question]:
    if type(samples) is not int or not 1 <= samples <= len(questions):
        raise OptionError(
            f"samples is {samples!r}; expected a whole number from 1 to {len(questions):,}, the "
            f"number of questions in {name!r}."
        )
    order = list(range(len(questions)))
    random.Random(seed).shuffle(order)
    return [questions[place] for place in order[:samples]]


def open_vqa(name: str, root: Path, split: str) -> VQA:
    """Return VQA v2 from a folder with these files, of which the last two may be absent, not both:

    - the questions: LXMERT's `valid.json` (`train.json`, `minival.json`, `nominival.json`), or VQA
      v2's own `v2_OpenEnded_mscoco_val2014_questions.json` and
      `v2_mscoco_val2014_annotations.json` (`train2014` for the split "train"); LXMERT's where both
      lie there;
    - the answers: `trainval_label2ans.json` or `trainval_ans2label.json`;
    - COCO's images: the folder `val2014` (`train2014`);
    - region features that `open_regions` reads: one file or folder whose name is `features` or ends
      in .tsv, .h5, .hdf5 or .lmdb. A name with the other split's `train2014` is left alone.

    split: "validation", "train", "minival", "nominival", or "protocol": the 10,000 questions of the
    validation split on which the published curves are measured (`VQA.subset`). Images and features
    have to cover the questions of the split that is opened, and no more.

    Raises OptionError for other splits, InputError for what is missing, damaged or does not fit.
    """
    known = (*_SPLITS, "protocol")
    if split not in known:
        raise no_split(name, split, known)
    if not root.is_dir():
        raise InputError(f"{str(root)!r} is no folder: expected one with questions and answers.")
    whole = "validation" if split == "protocol" else split
    coco = _SPLITS[whole][1]
    answers = find_answers(root)
    questions = _read_questions(root, whole, {answer: i for i, answer in enumerate(answers)})
    if split == "protocol":
        questions = _shuffled(questions, PROTOCOL_SAMPLES, PROTOCOL_SEED, name)
    found = _find_features(root, _TRAIN if coco == _VAL else _VAL)
    regions = None if found is None else open_regions(found)
    images = CocoImages(root / coco) if (root / coco).is_dir() else None
    if regions is None and images is None:
        raise InputError(
            f"{str(root)!r} has questions, but neither images, in a folder {coco!r}, nor region "
            "features, in a file or folder whose name is 'features' or ends in .tsv, .h5, .hdf5 or "
            ".lmdb: put one of them there."
        )
    return VQA(name, questions, answers, regions=regions, images=images)


def _read_questions(root: Path, split: str, known: dict[str, int]) -> list[Question]:
    lxmert, coco = _SPLITS[split]
    if (root / lxmert).is_file():
        return read_lxmert(root / lxmert, known)
    names = [f"v2_OpenEnded_mscoco_{coco}_questions.json", f"v2_mscoco_{coco}_annotations.json"]
    expected = repr(lxmert)
    if split in _WHOLE:
        expected += f", or {names[0]!r} together with {names[1]!r}"
        present = [name for name in names if (root / name).is_file()]
        if len(present) == 2:
            return read_vqa2(root / names[0], root / names[1], known)
        if present:
            (missing,) = set(names) - set(present)
            raise InputError(
                f"{str(root)!r} has {present[0]!r} but not {missing!r}: both are needed."
            )
    raise InputError(f"{str(root)!r} has no questions of the split {split!r}: expected {expected}.")


def _find_features(root: Path, other: str) -> Path | None:
    """Return the one file or folder of region features, or None; not the other split's."""
    found = [
        path
        for path in sorted(root.iterdir())
        if path.name[0] != "." and other not in path.name
        if path.name == _FEATURES[0] or path.suffix.lower() in _FEATURES[1:]
    ]
    if len(found) > 1:
        raise InputError(
            f"{str(root)!r} has region features in {' and '.join(repr(p.name) for p in found)}: "
            "which are meant? Keep one, and move the others out of the folder."
        )
    return found[0] if found else None


@dataset("vqa2", modality="question", takes=(PLACE, SPLIT, PATH), source=VQA2)
def open_vqa2(asked: Asked) -> VQA:
    """Return VQA v2 from the folder that the name or path= gives, or XAI_VQA2."""
    return open_vqa(asked.text, asked.locate(), asked.chosen_split)
