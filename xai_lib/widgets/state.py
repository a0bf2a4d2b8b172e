"""What the explorer of images shows and remembers. No widgets."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from xai_lib.api import explain
from xai_lib.errors import MethodNotApplicableError, XAIError
from xai_lib.widgets.gallery import decoded, free_name, named_images
from xai_lib.widgets.reading import Reading, read
from xai_lib.widgets.session import Session, attention_of


@dataclass(frozen=True)
class Choice:
    """What is shown. target None: the predicted class. start: of the method's layer option.

    layer None: the method's own map; else the raw attention of that layer, of one head or, with
    head None, averaged over heads.
    """

    image: str
    method: str
    target: int | None = None
    start: int | None = None
    layer: int | None = None
    head: int | None = None

    @property
    def source(self) -> str:
        """What is explained."""
        return self.image


@dataclass(frozen=True)
class View:
    """One map (H, W) over an image, or the sentence that says why there is none."""

    title: str
    note: str
    heat: Tensor | None = None
    refusal: str = ""
    quantity: str = "relevance"


class ImageSession(Session):
    """A model, its images by name, and everything computed of them."""

    def __init__(self, model: nn.Module, processor, images, options: dict | None = None):
        """Read all images. Raises InputError where one cannot be read."""
        super().__init__(model, processor, options)
        self.pixels: dict[str, Tensor] = {}
        for name, image in named_images(images).items():
            self.add(name, image)

    def add(self, name: str, image) -> str:
        """Take in an image; return the name it goes by."""
        pixels = self.processor(image)["pixel_values"]
        like = next(self.model.parameters(), pixels)
        name = free_name(name, self.pixels)
        self.pixels[name] = pixels.to(like.device, like.dtype)
        return name

    def add_file(self, name: str, content: bytes) -> str:
        """Take in an uploaded file; return its name. Raises InputError if it holds no image."""
        return self.add(name, decoded(name, content))

    def read(self, source: str) -> Reading:
        """Return the logits of an image and the attention of every head."""
        return read(self.model, self.pixels[source])

    def explained(self, choice: Choice) -> View:
        """Return the map of a method, or the sentence of one that refuses the model."""
        options, target = self.method_options(choice), self.target(choice)
        note = self.about(choice)
        inputs = {"pixel_values": self.pixels[choice.image]}
        try:
            att = explain(self.model, inputs, choice.method, target, **options)
            heat = att.pixels if att.layout.grid is None else att.heatmap()
            if heat is None:
                raise MethodNotApplicableError("The model's patch grid could not be read.")
        except XAIError as error:
            return View(choice.method, note, refusal=str(error))
        return View(choice.method, note, heat[0].float().cpu())

    def attended(self, choice: Choice) -> View:
        """Return the raw attention of one layer, of a head or averaged over heads."""
        reading = self.reading(choice.image)
        title, note = attention_of(choice)
        if reading.refusal:
            return View(title, note, refusal=reading.refusal)
        return View(
            title, note, reading.attention(choice.layer, choice.head).cpu(), quantity="attention"
        )
