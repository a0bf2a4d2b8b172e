"""What the explorers of images with texts show and remember. No widgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from xai_lib.api import explain
from xai_lib.attribution import Attribution
from xai_lib.datasets.base import QuestionSample
from xai_lib.errors import InputError, TargetError, XAIError
from xai_lib.files.images import read_image
from xai_lib.passes.loan import borrowed, unwrap
from xai_lib.streams.prepare import prepare
from xai_lib.widgets.gallery import decoded, free_name, named_images
from xai_lib.widgets.session import Session
from xai_lib.widgets.text_state import named_texts


@dataclass(frozen=True)
class PairView:
    """An explanation of several streams, or the sentence that says why there is none."""

    title: str
    note: str
    att: Attribution | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Logits:
    """What a model says of one source: logits (classes,); `heads` is not looked at."""

    logits: Tensor
    heads: tuple = ()


@dataclass(frozen=True)
class PairChoice:
    """What is shown of a model that scores images with texts: text `target` of `image`.

    target None: the text that fits best. against: the number of a text that it is compared with, or
    None. texts: all that are scored.
    """

    image: str
    texts: tuple[str, ...]
    method: str
    target: int | None = None
    against: int | None = None
    start: None = None
    layer: None = None
    head: None = None

    @property
    def source(self) -> tuple[str, tuple[str, ...]]:
        """What is explained."""
        return self.image, self.texts


@dataclass(frozen=True)
class QuestionChoice:
    """What is shown of a model of questions: `question` about the image of `sample`."""

    sample: str
    question: str
    method: str
    target: int | None = None
    start: None = None
    layer: None = None
    head: None = None

    @property
    def source(self) -> tuple[str, str]:
        """What is explained."""
        return self.sample, self.question


class StreamSession(Session):
    """A model of several streams; a source is what its inputs are made of."""

    def inputs(self, source):
        """Return what the model takes of a source. Raises InputError."""
        raise NotImplementedError

    def read(self, source) -> Logits:
        """Return the logits of a source."""
        return Logits(logits_of(self.model, self.on_device(self.inputs(source)))[0])

    def on_device(self, inputs):
        """Return inputs where the model is."""
        like = next(self.model.parameters(), None)
        return inputs if like is None else inputs.to(like.device)

    def explained(self, choice) -> PairView:
        """Return the explanation by a method, or the sentence of one that refuses the model."""
        options, note = self.method_options(choice), self.about(choice)
        target, against = self.target(choice), getattr(choice, "against", None)
        wanted = target if against is None else (target, against)
        try:
            inputs = self.on_device(self.inputs(choice.source))
            att = explain(self.model, inputs, choice.method, wanted, **options)
        except XAIError as error:
            return PairView(choice.method, note, refusal=str(error))
        return PairView(choice.method, note, att)

    def attended(self, choice) -> PairView:
        """Raw attention is one of the methods here."""
        raise NotImplementedError

    def _key(self, choice) -> tuple:
        # Of a model that scores texts, even a map that no score changes is of the target's text.
        return *super()._key(choice), self.target(choice), getattr(choice, "against", None)


class PairSession(StreamSession):
    """A model that scores images with texts, and the images by name."""

    def __init__(self, model: nn.Module, processor, images, options: dict | None = None):
        """Read all images. Raises InputError where one cannot be read."""
        super().__init__(model, processor, options)
        self.images: dict[str, object] = {}
        for name, image in named_images(images).items():
            self.images[name] = read_image(image)
        self.texts: tuple[str, ...] = ()

    def add_file(self, name: str, content: bytes) -> str:
        """Take in an uploaded file; return its name. Raises InputError if it holds no image."""
        image = read_image(decoded(name, content))
        name = free_name(name, self.images)
        self.images[name] = image
        return name

    def inputs(self, source):
        """Return one image and all texts as the model takes them."""
        image, texts = source
        return self.processor([self.images[image]], list(texts))

    def class_name(self, index: int) -> str:
        """Return the text of a score."""
        return self.texts[index] if index < len(self.texts) else f"text {index}"


class QuestionSession(StreamSession):
    """A model of questions on image regions, and the samples by name."""

    def __init__(self, model: nn.Module, processor, samples, options: dict | None = None):
        """Name the samples. Raises InputError where one is none or has no regions."""
        super().__init__(model, processor, options)
        self.samples = named_samples(samples)

    def sample(self, source: tuple[str, str]) -> QuestionSample:
        """Return the sample with the question that is asked."""
        name, question = source
        return replace(self.samples[name], question=question)

    def inputs(self, source):
        """Return one question and its regions as the model takes them."""
        return self.processor.of(self.sample(source))


def named_samples(samples) -> dict[str, QuestionSample]:
    """Return {name: sample} of a mapping, a sequence or one sample. Raises InputError."""
    samples = getattr(samples, "samples", samples)
    if isinstance(samples, QuestionSample):
        samples = [samples]
    if not isinstance(samples, Mapping | Sequence) or isinstance(samples, str) or not len(samples):
        raise InputError(
            "There is no question to explore: give a QuestionSample, a list of them or "
            "{name: QuestionSample}, such as xai_lib.datasets.sample_questions(...) returns."
        )
    pairs = samples.items() if isinstance(samples, Mapping) else ((s, s) for s in samples)
    named: dict[str, QuestionSample] = {}
    for name, sample in pairs:
        if not isinstance(sample, QuestionSample):
            raise InputError(f"samples holds {type(sample).__name__}; expected QuestionSamples.")
        if sample.features is None or sample.boxes is None:
            raise InputError(
                f"The sample {sample.key!r} has no regions; expected both of a detector."
            )
        name = sample.key if isinstance(name, QuestionSample) else str(name)
        named[free_name(name, named)] = sample
    return named


def text_lines_of(texts) -> tuple[str, ...]:
    """Return the texts that are scored; lines of one string. Raises InputError where none is."""
    found = texts.splitlines() if isinstance(texts, str) else list(named_texts(texts).values())
    found = tuple(text.strip() for text in found if text.strip())
    if not found:
        raise InputError("There is no text to score: give at least one, each on a line of its own.")
    return found


def text_number(texts: tuple[str, ...], wanted: int | str | None) -> int | None:
    """Return the place of a text given by number or as it is. Raises TargetError."""
    if wanted is None:
        return None
    if isinstance(wanted, str) and wanted in texts:
        return texts.index(wanted)
    if isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(texts):
        return wanted
    raise TargetError(
        f"{wanted!r} is none of the texts; expected one of them, or a number from 0 to "
        f"{len(texts) - 1}."
    )


def logits_of(model: nn.Module, inputs) -> Tensor:
    """Return (samples, classes) of one pass, in float32; the model comes back as it was."""
    model = unwrap(model)
    with borrowed(model), torch.no_grad():
        prepared = prepare(model, inputs)
        return prepared.scores(model).detach().float()
