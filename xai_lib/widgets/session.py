"""What every explorer remembers: a model's predictions and explanations, each computed once."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from xai_lib.api import explain
from xai_lib.attribution import Attribution
from xai_lib.errors import MethodNotApplicableError, XAIError
from xai_lib.explainers import registry
from xai_lib.explainers.signs import ATTENTION
from xai_lib.heads import prune_heads
from xai_lib.plots import sign_of
from xai_lib.streams.labels import class_names, name_of_one
from xai_lib.streams.layouts import StreamsLayout
from xai_lib.streams.targets import resolve
from xai_lib.widgets.choice import Choice, Head, Source, View, drawable
from xai_lib.widgets.reading import Reading, read
from xai_lib.widgets.sources import Sources

# An explanation of 224 x 224 pixels takes 800 kB, most of it its input.
REMEMBERED = 256
LAYER_OPTIONS = ("start_layer", "layer")


class Session:
    """A model, the sources that it can be asked about, and everything computed of them.

    options: for every method that knows them, as `xai.explain(**options)`.
    """

    def __init__(self, model: nn.Module, sources: Sources, options: dict | None = None):
        """Take the names of the classes from the sources, else from the model."""
        self.model, self.sources, self.options = model, sources, options or {}
        self._names: dict[int, tuple[str, ...]] = {}
        self._readings: OrderedDict[Source, Reading] = OrderedDict()
        self._views: OrderedDict[tuple, View] = OrderedDict()

    @property
    def processor(self):
        """What makes the model's inputs."""
        return self.sources.processor

    def inputs(self, source: Source):
        """Return what the model takes of a source, where the model is and in its precision."""
        inputs = self.sources.inputs(source)
        like = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        if like is not None:
            # In place, since a tokenizer's result knows its texts and a plain dict would not.
            for name, x in inputs.items():
                inputs[name] = x.to(like.device, like.dtype if x.is_floating_point() else x.dtype)
        return inputs

    # -- predictions ------------------------------------------------------------------------------

    def reading(self, source: Source) -> Reading:
        """Return the logits of a source and the attention of every head."""
        return kept(self._readings, source, lambda: read(self.model, self.inputs(source)))

    def probabilities(self, source: Source) -> Tensor:
        """Return the probabilities of the classes, (classes,). Raises TargetError without any."""
        reading = self.reading(source)
        return reading.scale.probabilities(reading.logits)

    def said(self, source: Source, index: int, logits: Tensor | None = None) -> str:
        """Return what the model says of a class: "P(cat) = 12.3%", or "cat: score 1.23".

        logits: of the model without some of its heads.
        """
        reading, name = self.reading(source), self.class_name(source, index)
        told = reading.scale.said(reading.logits if logits is None else logits, index)
        return f"P({name}) = {told}" if reading.scale.has_chances else f"{name}: {told}"

    def bars(self, source: Source, classes: Iterable[int]) -> tuple[tuple[str, float], ...]:
        """Return names and probabilities of some classes, none where there are no probabilities."""
        if not self.reading(source).scale.has_chances:
            return ()
        chances = self.probabilities(source)
        return tuple((self.class_name(source, i), float(chances[i])) for i in classes)

    def class_names(self, source: Source) -> tuple[str, ...]:
        """Return the names of the classes, or none; the texts, where these are the classes."""
        classes, of_source = len(self.reading(source).logits), self.sources.classes(source)
        if len(of_source) == classes:
            return tuple(of_source)
        if classes not in self._names:
            self._names[classes] = class_names(self.model, classes) or ()
        return self._names[classes]

    def class_name(self, source: Source, index: int) -> str:
        """Return the name of a class, or "class 7" where it has none."""
        names = self.class_names(source)
        if len(self.reading(source).logits) == 1:
            return name_of_one(names, index)
        return names[index] if index < len(names) else f"class {index}"

    def index(self, source: Source, target: int | str | None) -> int | None:
        """Return the number of a class given by number or name. Raises TargetError."""
        if target is None:
            return None
        logits = self.reading(source).logits[None]
        return int(resolve(target, logits, self.class_names(source) or None))

    def ranked(self, source: Source, text: str = "", limit: int = 100) -> list[int]:
        """Return the likeliest classes whose name contains `text`, or whose number it is."""
        order = self.reading(source).logits.argsort(descending=True, stable=True).tolist()
        wanted = text.strip().casefold()
        named = ((i, self.class_name(source, i).casefold()) for i in order)
        found = (i for i, name in named if wanted in name or wanted == str(i))
        return [index for index, _ in zip(found, range(limit), strict=False)]

    def offered(self, source: Source, text: str = "") -> list[tuple[str, int]]:
        """Return the `ranked` classes as a menu has them: (name and probability, class)."""
        reading = self.reading(source)
        found = self.ranked(source, text)
        return [
            (f"{self.class_name(source, i)}  {reading.scale.said(reading.logits, i)}", i)
            for i in found
        ]

    def target(self, choice: Choice) -> int:
        """Return the class that a choice is about."""
        if choice.target is not None:
            return choice.target
        return int(self.reading(choice.source).logits.argmax())

    def likeliest(self, choice: Choice, top: int) -> list[int]:
        """Return the `top` likeliest classes, and the one explained, however unlikely it is."""
        shown, chosen = self.ranked(choice.source, limit=top), self.target(choice)
        return shown if chosen in shown else [*shown, chosen]

    # -- explanations -----------------------------------------------------------------------------

    def view(self, choice: Choice) -> View:
        """Return what is chosen; a method that refuses the model gives its sentence."""
        make = self._explained if choice.layer is None else self._attended
        return kept(self._views, self._key(choice), lambda: make(choice))

    def _explained(self, choice: Choice) -> View:
        """Return the explanation by a method, or the sentence of one that refuses the model."""
        options, target = self.method_options(choice), self.target(choice)
        said = choice.method, self.about(choice), sign_of(choice.method, options)
        wanted = target if choice.against is None else (target, choice.against)
        inputs = self.inputs(choice.source)
        with self._without(choice.pruned):
            try:
                att = explain(self.model, inputs, choice.method, wanted, **options)
                if not drawable(att):
                    raise MethodNotApplicableError("The model's patch grid could not be read.")
            except XAIError as error:
                # A pruned model predicts also where a method refuses it; it is not remembered as
                # what the whole one says.
                whole = not choice.pruned
                reading = self.reading(choice.source) if whole else read(self.model, inputs)
                return View(*said, refusal=str(error), logits=reading.logits)
        return View(*said, att, logits=att.logits[0].float())

    def _attended(self, choice: Choice) -> View:
        """Return the raw attention of one layer, of a head or averaged over heads."""
        reading, said = self.reading(choice.source), (*choice.attention, ATTENTION)
        if reading.refusal:
            return View(*said, refusal=reading.refusal)
        found = reading.attention(choice.layer, choice.head)[None]
        layout, target = reading.layout, torch.tensor([self.target(choice)])
        att = Attribution(
            relevance=found,
            target=target,
            logits=reading.logits[None],
            content=layout.content_of(1, found.device),
            method="raw_attention",
            options={"layer": choice.layer},
            layouts=StreamsLayout.side_by_side({layout.stream: layout}),
            inputs={},
            scale=reading.scale,
        )
        return View(*said, att, quantity="attention", logits=reading.logits)

    def _without(self, heads: Iterable[Head]):
        """Return the context in which the model does without some heads."""
        gone: dict[int, list[int]] = defaultdict(list)
        for call, head in sorted(heads):
            gone[call].append(head)
        return prune_heads(self.model, gone) if gone else nullcontext()

    # -- what is said of them ---------------------------------------------------------------------

    def layer_option(self, method: str) -> str | None:
        """Return which of `start_layer` and `layer` a method takes, if any."""
        known = registry.all_methods()[method].options
        return next((name for name in LAYER_OPTIONS if name in known), None)

    def method_options(self, choice: Choice) -> dict:
        """Return the options of the choice's method."""
        known = registry.all_methods()[choice.method].options
        options = {k: v for k, v in self.options.items() if k in known}
        name = self.layer_option(choice.method)
        if name and choice.start is not None:
            options[name] = choice.start
        return options

    def about(self, choice: Choice) -> str:
        """Return what an explanation is for, and its method's options."""
        specific = registry.all_methods()[choice.method].class_specific
        name = self.class_name(choice.source, self.target(choice))
        about = f"for “{name}”" if specific else "the same for every class"
        return ", ".join(filter(None, [about, self.options_said(choice)]))

    def options_said(self, choice: Choice) -> str:
        """Return the options of the choice's method in words, or nothing."""
        return ", ".join(f"{name} {v}" for name, v in self.method_options(choice).items())

    def _key(self, choice: Choice) -> tuple:
        if choice.layer is not None:
            return choice.source, choice.layer, choice.head
        method = registry.all_methods()[choice.method]
        options = method.options | self.method_options(choice)
        # The default of an option is the option, and a map that no class changes is one map.
        # Of a model that scores texts, even a map that no score changes is of the target's text.
        own = method.class_specific or self.reading(choice.source).several
        target = self.target(choice) if own else None
        said = tuple(sorted(map(repr, options.items())))
        return choice.source, choice.method, target, said, choice.against, choice.pruned


def kept(memory: OrderedDict, key, make):
    """Return what is remembered of `key`, else make it; the longest unused is forgotten."""
    if key not in memory:
        memory[key] = make()
    memory.move_to_end(key)
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)
    return memory[key]
