"""What every explorer remembers: a model's predictions and explanations, each computed once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict

import torch
from torch import Tensor, nn

from xai_lib.explainers import registry
from xai_lib.streams.targets import class_names, resolve

# A map of 224 x 224 takes 200 kB.
REMEMBERED = 256
LAYER_OPTIONS = ("start_layer", "layer")


class Session(ABC):
    """A model and everything computed of it. A source is an image's name or a text.

    A choice has the fields source, method, target, start, layer and head (see `Choice`); `view`
    returns what it shows. options: for every method that knows them, as `xai.explain(**options)`.
    """

    def __init__(self, model: nn.Module, processor, options: dict | None = None):
        """Take the names of the classes from the processor, else from the model."""
        self.model, self.processor = model, processor
        self.options = options or {}
        self._readings: OrderedDict[str, object] = OrderedDict()
        self._views: OrderedDict[tuple, object] = OrderedDict()
        names = getattr(processor, "class_names", None) or class_names(model)
        self.class_names: tuple[str, ...] = tuple(names or ())

    # -- to be filled in --------------------------------------------------------------------------

    @abstractmethod
    def read(self, source: str):
        """Return a reading: `logits` (classes,) and `heads`, one entry a layer."""

    @abstractmethod
    def explained(self, choice):
        """Return the view of a method; one that refuses the model gives its sentence."""

    @abstractmethod
    def attended(self, choice):
        """Return the view of one layer's raw attention."""

    # -- predictions ------------------------------------------------------------------------------

    def reading(self, source: str):
        """Return the logits of a source and the attention of every head."""
        return kept(self._readings, source, lambda: self.read(source))

    def probabilities(self, source: str) -> Tensor:
        """Return softmax(logits), (classes,)."""
        return torch.softmax(self.reading(source).logits, -1)

    def class_name(self, index: int) -> str:
        """Return the name of a class, or "class 7" where it has none."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"

    def index(self, source: str, target: int | str | None) -> int | None:
        """Return the number of a class given by number or name. Raises TargetError."""
        if target is None:
            return None
        logits = self.reading(source).logits[None]
        return int(resolve(target, logits, self.class_names or None))

    def ranked(self, source: str, text: str = "", limit: int = 100) -> list[int]:
        """Return the likeliest classes whose name contains `text`, or whose number it is."""
        order = self.reading(source).logits.argsort(descending=True, stable=True).tolist()
        wanted = text.strip().casefold()
        found = (i for i in order if wanted in self.class_name(i).casefold() or wanted == str(i))
        return [index for index, _ in zip(found, range(limit), strict=False)]

    def target(self, choice) -> int:
        """Return the class that a choice is about."""
        if choice.target is not None:
            return choice.target
        return int(self.reading(choice.source).logits.argmax())

    def likeliest(self, choice, top: int) -> list[int]:
        """Return the `top` likeliest classes, and the one explained, however unlikely it is."""
        shown, chosen = self.ranked(choice.source, limit=top), self.target(choice)
        return shown if chosen in shown else [*shown, chosen]

    # -- explanations -----------------------------------------------------------------------------

    def layer_option(self, method: str) -> str | None:
        """Return which of `start_layer` and `layer` a method takes, if any."""
        known = registry.all_methods()[method].options
        return next((name for name in LAYER_OPTIONS if name in known), None)

    def view(self, choice):
        """Return what is chosen; a method that refuses the model gives its sentence."""
        make = self.explained if choice.layer is None else self.attended
        return kept(self._views, self._key(choice), lambda: make(choice))

    def method_options(self, choice) -> dict:
        """Return the options of the choice's method."""
        known = registry.all_methods()[choice.method].options
        options = {k: v for k, v in self.options.items() if k in known}
        name = self.layer_option(choice.method)
        if name and choice.start is not None:
            options[name] = choice.start
        return options

    def about(self, choice) -> str:
        """Return what an explanation is for, and its method's options."""
        specific = registry.all_methods()[choice.method].class_specific
        name = self.class_name(self.target(choice))
        about = f"for “{name}”" if specific else "the same for every class"
        return ", ".join(filter(None, [about, self.options_said(choice)]))

    def options_said(self, choice) -> str:
        """Return the options of the choice's method in words, or nothing."""
        return ", ".join(f"{name} {v}" for name, v in self.method_options(choice).items())

    def _key(self, choice) -> tuple:
        if choice.layer is not None:
            return choice.source, choice.layer, choice.head
        method = registry.all_methods()[choice.method]
        options = method.options | self.method_options(choice)
        target = self.target(choice) if method.class_specific else None
        return choice.source, choice.method, target, tuple(sorted(map(repr, options.items())))


def attention_of(choice) -> tuple[str, str]:
    """Return title and note of a look at raw attention."""
    title = f"attention of layer {choice.layer}"
    return title, "mean over heads" if choice.head is None else f"head {choice.head}"


def kept(memory: OrderedDict, key, make):
    """Return what is remembered of `key`, else make it; the longest unused is forgotten."""
    if key not in memory:
        memory[key] = make()
    memory.move_to_end(key)
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)
    return memory[key]
