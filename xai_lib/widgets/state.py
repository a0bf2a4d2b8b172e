"""What an explorer shows and remembers: choices, explanations, probabilities. No widgets."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xai_lib import registry
from xai_lib.api import explain
from xai_lib.errors import MethodNotApplicableError, XAIError
from xai_lib.targets import class_names, resolve
from xai_lib.widgets.gallery import decoded, free_name, named_images
from xai_lib.widgets.reading import Reading, read

# A map of 224 x 224 takes 200 kB.
REMEMBERED = 256
LAYER_OPTIONS = ("start_layer", "layer")


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


@dataclass(frozen=True)
class View:
    """One map (H, W) over an image, or the sentence that says why there is none."""

    title: str
    note: str
    heat: Tensor | None = None
    refusal: str = ""
    quantity: str = "relevance"


class Session:
    """A model, its images, and everything computed of them; each is computed once.

    options: for every method that knows them, as `xai.explain(..., **options)`.
    """

    def __init__(self, model: nn.Module, processor, images, options: dict | None = None):
        """Read all images. Raises InputError where one cannot be read."""
        self.model, self.processor = model, processor
        self.options = options or {}
        self.pixels: dict[str, Tensor] = {}
        self._readings: dict[str, Reading] = {}
        self._views: OrderedDict[tuple, View] = OrderedDict()
        for name, image in named_images(images).items():
            self.add(name, image)
        names = getattr(processor, "class_names", None) or class_names(model)
        self.class_names: tuple[str, ...] = tuple(names or ())

    # -- images and classes -----------------------------------------------------------------------

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

    def reading(self, image: str) -> Reading:
        """Return the logits of an image and the attention of every head."""
        if image not in self._readings:
            self._readings[image] = read(self.model, self.pixels[image])
        return self._readings[image]

    def probabilities(self, image: str) -> Tensor:
        """Return softmax(logits), (classes,)."""
        return torch.softmax(self.reading(image).logits, -1)

    def class_name(self, index: int) -> str:
        """Return the name of a class, or "class 7" where it has none."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"

    def index(self, image: str, target: int | str | None) -> int | None:
        """Return the number of a class given by number or name. Raises TargetError."""
        if target is None:
            return None
        logits = self.reading(image).logits[None]
        return int(resolve(target, logits, self.class_names or None))

    def ranked(self, image: str, text: str = "", limit: int = 100) -> list[int]:
        """Return the likeliest classes whose name contains `text`, or whose number it is."""
        order = self.reading(image).logits.argsort(descending=True, stable=True).tolist()
        wanted = text.strip().casefold()
        found = (i for i in order if wanted in self.class_name(i).casefold() or wanted == str(i))
        return [index for index, _ in zip(found, range(limit), strict=False)]

    def target(self, choice: Choice) -> int:
        """Return the class that a choice is about."""
        if choice.target is not None:
            return choice.target
        return int(self.reading(choice.image).logits.argmax())

    # -- methods and their maps -------------------------------------------------------------------

    def layer_option(self, method: str) -> str | None:
        """Return which of `start_layer` and `layer` a method takes, if any."""
        known = registry.all_methods()[method].options
        return next((name for name in LAYER_OPTIONS if name in known), None)

    def view(self, choice: Choice) -> View:
        """Return the map that is chosen; a method that refuses the model gives its sentence."""
        key = self._key(choice)
        if key not in self._views:
            self._views[key] = self._explained(choice) if choice.layer is None else self._of(choice)
        self._views.move_to_end(key)
        while len(self._views) > REMEMBERED:
            self._views.popitem(last=False)
        return self._views[key]

    def _method_options(self, choice: Choice) -> dict:
        known = registry.all_methods()[choice.method].options
        options = {k: v for k, v in self.options.items() if k in known}
        name = self.layer_option(choice.method)
        if name and choice.start is not None:
            options[name] = choice.start
        return options

    def _key(self, choice: Choice) -> tuple:
        if choice.layer is not None:
            return choice.image, choice.layer, choice.head
        method = registry.all_methods()[choice.method]
        options = method.options | self._method_options(choice)
        target = self.target(choice) if method.class_specific else None
        return choice.image, choice.method, target, tuple(sorted(map(repr, options.items())))

    def _explained(self, choice: Choice) -> View:
        options, target = self._method_options(choice), self.target(choice)
        specific = registry.all_methods()[choice.method].class_specific
        about = f"for “{self.class_name(target)}”" if specific else "the same for every class"
        note = ", ".join([about, *(f"{name} {value}" for name, value in options.items())])
        inputs = {"pixel_values": self.pixels[choice.image]}
        try:
            att = explain(self.model, inputs, choice.method, target, **options)
            heat = att.pixels if att.layout.grid is None else att.heatmap()
            if heat is None:
                raise MethodNotApplicableError("The model's patch grid could not be read.")
        except XAIError as error:
            return View(choice.method, note, refusal=str(error))
        return View(choice.method, note, heat[0].float().cpu())

    def _of(self, choice: Choice) -> View:
        reading = self.reading(choice.image)
        title = f"attention of layer {choice.layer}"
        note = "mean over heads" if choice.head is None else f"head {choice.head}"
        if reading.refusal:
            return View(title, note, refusal=reading.refusal)
        return View(
            title, note, reading.attention(choice.layer, choice.head).cpu(), quantity="attention"
        )
