"""What a model can be asked about, by name, and how its inputs are made of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from xai_lib.datasets.base import QuestionSample
from xai_lib.errors import InputError
from xai_lib.files.images import read_image
from xai_lib.models import Processor, TextProcessor
from xai_lib.models.processors.pair import PairProcessor
from xai_lib.models.processors.question import QuestionProcessor
from xai_lib.widgets.choice import Asked, Scored, Source
from xai_lib.widgets.gallery import decoded, free_name, named_images
from xai_lib.widgets.named import named_samples, named_texts


class Sources(ABC):
    """The one place that knows what an explorer's model reads.

    named: {name: source}, what is offered. takes: the processor that makes the inputs.
    """

    takes: ClassVar[type]
    # Said to whoever brings another processor.
    advice: ClassVar[str]

    named: dict[str, Source]

    def __init__(self, processor):
        self.processor = processor

    @classmethod
    def check(cls, processor) -> None:
        """Raise an InputError for the processor of another kind of model."""
        if not isinstance(processor, cls.takes):
            raise InputError(f"processor is {type(processor).__name__}; expected {cls.advice}")

    @abstractmethod
    def inputs(self, source: Source) -> MutableMapping[str, Tensor]:
        """Return what the model takes of a source. Raises InputError for what it cannot take."""

    def classes(self, source: Source) -> Sequence[str]:
        """Return the names of the classes that the processor knows, or none."""
        return getattr(self.processor, "class_names", None) or ()

    def name(self, source: Source) -> str:
        """Return the name of an offered source."""
        return next(name for name, one in self.named.items() if one == source)


class Images(Sources):
    """Images, which go by their names; more can be added."""

    takes = Processor
    advice = "a Processor, as xai.load returns it for models of images."

    def __init__(self, processor, images):
        """Read all images. Raises InputError where one cannot be read."""
        super().__init__(processor)
        self.named: dict[str, Source] = {}
        self.taken: dict[str, object] = {}
        for name, image in named_images(images).items():
            self.add(name, image)

    def add(self, name: str, image) -> str:
        """Take in an image; return the name it goes by."""
        image, name = self.read(image), free_name(name, self.taken)
        self.taken[name], self.named[name] = image, name
        return name

    def add_file(self, name: str, content: bytes) -> str:
        """Take in an uploaded file; return its name. Raises InputError if it holds no image."""
        return self.add(name, decoded(name, content))

    def read(self, image) -> object:
        """Return what is kept of an image."""
        return self.processor(image)

    def inputs(self, source: str):
        return self.taken[source]


class ScoredImages(Images):
    """Images, each of which a model scores with texts, which are its classes."""

    takes = PairProcessor
    advice = "a PairProcessor, as xai.load returns it for models of images and texts."

    def read(self, image) -> object:
        """Return the image as it is, since it is processed with its texts."""
        return read_image(image)

    def inputs(self, source: Scored):
        return self.processor([self.taken[source.image]], list(source.texts))

    def classes(self, source: Scored) -> Sequence[str]:
        return source.texts


class Texts(Sources):
    """Texts, which are their own sources, so that any other can be typed."""

    takes = TextProcessor
    advice = (
        "a TextProcessor, as xai.load returns it or TextProcessor(tokenizer) makes it. Models of "
        "images have xai.widgets.ImageExplorer."
    )

    def __init__(self, processor, texts):
        """Name the texts. Raises InputError where there is none."""
        super().__init__(processor)
        self.named = named_texts(texts)

    def inputs(self, source: str):
        return self.processor(source)


class Questions(Sources):
    """Questions on image regions; any other can be asked of the same regions."""

    takes = QuestionProcessor
    advice = "a QuestionProcessor, as xai.load returns it for models of questions."

    def __init__(self, processor, samples):
        """Name the samples. Raises InputError where one is none or has no regions."""
        super().__init__(processor)
        self.samples = named_samples(samples)
        self.named = {name: Asked(name, one.question) for name, one in self.samples.items()}

    def sample(self, source: Asked) -> QuestionSample:
        """Return the sample with the question that is asked."""
        return replace(self.samples[source.sample], question=source.question)

    def inputs(self, source: Asked):
        return self.processor.of(self.sample(source))


def sources_for(processor, samples) -> Sources:
    """Return the sources of whichever model reads images, texts or questions."""
    found = (kind for kind in (Images, Texts, Questions) if isinstance(processor, kind.takes))
    kind = next(found, None)
    if kind is None:
        raise InputError(
            f"processor is {type(processor).__name__}; expected one of xai.load for images "
            "(Processor), texts (TextProcessor) or questions (QuestionProcessor)."
        )
    return kind(processor, samples)
