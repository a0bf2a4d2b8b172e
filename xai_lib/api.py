"""The entry points: `explain` a prediction, `examine` a model, `trace` a forward pass."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from xai_lib.attribution import Attribution
from xai_lib.errors import (
    IncompleteWarning,
    MethodNotApplicableError,
    TargetError,
    UnsupportedModelError,
    unknown_name,
)
from xai_lib.explainers import registry
from xai_lib.explainers.advice import advised
from xai_lib.explainers.reading import read_tokens
from xai_lib.passes.call import Call
from xai_lib.passes.examination import Examination
from xai_lib.passes.examining import examined, fully_examined
from xai_lib.passes.loan import borrowed, eager, unwrap
from xai_lib.passes.meeting import Meeting
from xai_lib.passes.negated import negated
from xai_lib.passes.refusals import (
    coupled_streams,
    merged_tokens,
    mingled_streams,
    not_finite,
)
from xai_lib.streams.labels import class_names
from xai_lib.streams.layouts import FIRST_TOKEN, Layout, StreamsLayout
from xai_lib.streams.outputs import Choice, choice_of
from xai_lib.streams.prepare import Inputs, prepare
from xai_lib.streams.scales import scale_of
from xai_lib.streams.targets import AGAINST, LOW, NONE, Target, resolve_all
from xai_lib.streams.vocabulary import spelled, token_number, vocabulary_of
from xai_lib.tracing import Trace

# From this share on a sum is said to be incomplete.
INCOMPLETE = 0.05
COMPAT = (None, "reference")


@torch.inference_mode(False)
def explain(
    model: nn.Module,
    inputs,
    method: str = "transformer_attribution",
    target: Target = None,
    *,
    targets=None,
    position: int | None = None,
    output: Choice = None,
    part: str | None = None,
    compat: str | None = None,
    first_token: str = "keep",
    check: bool = True,
    **options,
) -> Attribution:
    """Explain a model's predictions: how much each token counts for the target's logit.

    model: any unmodified timm, Hugging Face or torchvision transformer (or your own, if its
    attention is softmax(QKᵀ)V in torch operations). It comes back exactly as it was.
    inputs: pixels (batch, channels, H, W), normalised, or the dict that a processor or a tokenizer
    returns (pixel_values, or input_ids with attention_mask). Models of text and image take both in
    one dict (pixel_values, or visual_feats with visual_pos, or visual_embeds); their relevance is
    in `att.streams`. CLIP scores every image with every text: its samples are the images and its
    classes the texts.
    method: a name of `xai.methods()`; its options follow as keywords.
    target: None (the predicted class), a class number, a class name where the model has names (the
    texts themselves, where those are the classes; a token of a language model as text, " Paris", of
    inputs that a `TextProcessor` made), a tuple (one, other) for why one rather than the other (the
    difference of their logits), or a list with one of these per sample. Of a model of one score (a
    regression, a binary head), 0 or None explains what makes it high and -1 what makes it low:
    minus the score. targets=[...]: several for every sample, sharing a forward pass.
    position: of (batch, rows, classes) logits, the row to explain (a detector's query, a token).
    output: of a model that returns several tensors, the name or number of the one that holds the
    scores; part: "start" or "end" of the answer to a question, whose classes are the text's tokens
    (short for output="start_logits"). Models that name their scores, as transformers do, need none.
    compat: "reference" reproduces the published code where it differs from its paper
    (docs/conventions.md lists each case).
    first_token: "keep" what the first token ([CLS]) gets, or make it "zero" or the row's "min", as
    the published text pipelines do; in one sequence of text and image (VisualBERT), the token that
    the head reads. Padding always gets 0.
    check: examine the model at the first call with inputs of a shape (`examine`), and refuse what
    rests on an assumption that does not hold; what was measured is in `att.checks`.
    Raises InputError, TargetError, OptionError, UnsupportedModelError, MethodNotApplicableError.
    """
    if compat not in COMPAT:
        raise unknown_name("compat", compat, ("reference",))
    if first_token not in FIRST_TOKEN:
        raise unknown_name("first_token", first_token, FIRST_TOKEN)
    chosen = registry.find(method, options)
    model = unwrap(model)
    given = prepare(model, inputs, position, choice_of(output, part))
    witness = chosen.family == "gradient"
    examining = examined(model, given, witness) if check else nullcontext()
    with borrowed(model), examining as examination:

        def ask(method: registry.Method, options: dict) -> _Question:
            wanted = target, targets, compat, first_token
            tokenizer = getattr(inputs, "tokenizer", None)
            return _Question(model, given, method, options, *wanted, examination, tokenizer)

        question = ask(chosen, options)
        try:
            layouts, relevance, pixels = question.answer()
        except (MethodNotApplicableError, UnsupportedModelError) as refusal:
            known = registry.all_methods()
            raise advised(
                refusal, method, known, lambda name: ask(known[name], {}).answer()
            ) from refusal
        relevance = layouts.finished(relevance, first_token, padding=compat == "reference")
        content = layouts.content_of(relevance.shape[1], relevance.device)
        logits = given.scored(question.logits)
        scale = scale_of(model, logits, lambda: given.scores(model))

    def public(x):
        x = None if x is None else x.detach()
        return x if targets is not None or x is None else x[0]

    _warn_of(method, question.checks)
    found = question.targets
    against = found[..., 1]
    return Attribution(
        relevance=public(relevance),
        target=public(found[..., 0]),
        logits=logits.detach(),
        content=content,
        method=method,
        options=options | ({"compat": compat} if compat else {}),
        layouts=layouts,
        inputs=given.everything if given.several else given.focus.data,
        pixels=public(pixels),
        class_names=question.names or None,
        scale=scale,
        against=public(against) if (against >= 0).any() else None,
        checks=({} if examination is None else examination.numbers()) | question.checks,
    )


@torch.inference_mode(False)
def examine(
    model: nn.Module, inputs, *, position: int | None = None, output: Choice = None
) -> Examination:
    """Measure what methods take for granted of a model, on the model and on these inputs.

    Returns a table: assumption, what was measured, bound, verdict, and the methods that need it.
    `explain` asks the same at its first call; here every check is made. inputs, position,
    output: as there.
    Raises InputError and UnsupportedModelError as `explain` does.
    """
    model = unwrap(model)
    given = prepare(model, inputs, position, choice_of(output, None))
    with borrowed(model):
        return fully_examined(model, given)


def _warn_of(method: str, checks: dict[str, float]) -> None:
    """Say it where a sum that should be complete is not."""
    apart = checks.get("completeness", 0.0)
    if apart > INCOMPLETE:
        warnings.warn(
            f"The sum of {method} is {100 * apart:.0f} % off what the score gained from the "
            'baseline: too few points of the integral. steps="auto" takes as many as it needs.',
            IncompleteWarning,
            # Past this function, `explain` and torch's decorator around it.
            stacklevel=4,
        )


class _Question:
    """One call of `explain`, put to the method once for each view that the model's streams need.

    A single stream is one view; its pass chooses the targets. Of several, a first pass shows how
    they meet (`Meeting`): all together, or each on its own and the answers side by side.
    """

    def __init__(
        self,
        model,
        inputs,
        method,
        options,
        target,
        targets,
        compat,
        first_token,
        examination,
        tokenizer,
    ):
        self.examination, self.checks = examination, {}
        self.model, self.inputs, self.method, self.options = model, inputs, method, options
        self.reads = first_token != "keep"
        self.reference = compat == "reference"
        self.names = self.targets = self.logits = None
        self._wanted, self.tokenizer = (targets, target), tokenizer

    def answer(self) -> tuple[StreamsLayout, Tensor, Tensor | None]:
        """Return where the tokens lie, their relevance (targets, batch, tokens), the pixels'."""
        if not self.inputs.several:
            relevance, pixels, call = self._ask(self.inputs, self._choose)
            self.targets, self.logits = call.targets, call.run.logits
            layout = call.layout(call.run)
            return StreamsLayout.side_by_side({layout.stream: layout}), relevance, pixels
        meeting = Meeting.of(self.model, self.inputs)
        if self.examination is not None:
            self.examination.compare_scores(meeting.logits, lambda: self.inputs.scores(self.model))
        if meeting.pairwise:
            # A text is its own name; the configuration's labels are of other classes.
            texts = self.inputs.stream("text").texts or ()
            self.names = tuple(" ".join(parts) for parts in texts)
        self.logits, self.targets = meeting.logits, self._choose(meeting.logits)
        apart = meeting.kind != "joint" and self.method.streams == "apart"
        if meeting.kind in ("joint", "coupled") and not apart:
            return self._together(meeting)
        if meeting.kind == "mingled" and not apart:
            raise mingled_streams(self.method.name)
        return self._apart(meeting)

    def _together(self, meeting: Meeting) -> tuple[StreamsLayout, Tensor, Tensor | None]:
        if meeting.kind == "coupled" and self.method.streams == "one":
            raise coupled_streams(self.method.name)
        view = meeting.together()
        relevance, pixels, call = self._ask(view, lambda logits: self.targets)
        layouts = view.known
        if layouts.joint and self.reads:
            layouts = layouts.reading(read_tokens(call))
        return layouts, relevance, pixels

    def _apart(self, meeting: Meeting) -> tuple[StreamsLayout, Tensor, Tensor | None]:
        """Explain each stream on its own and put the results side by side."""
        found: dict[str, Tensor] = {}
        layouts: dict[str, Layout] = {}
        pixels = None
        for view in meeting.apart():
            if meeting.pairwise and view.focus.name == "text":
                answers = self._of_texts()
            else:
                answers = [(view.focus.name, *self._ask(view, lambda logits: self.targets))]
            for name, relevance, own_pixels, call in answers:
                found[name], layouts[name] = relevance, call.layout(call.run)
                pixels = pixels if own_pixels is None else own_pixels
        relevance = torch.cat([r.to(self.targets.device) for r in found.values()], -1)
        return StreamsLayout.side_by_side(layouts), relevance, pixels

    def _of_texts(self) -> Iterator[tuple[str, Tensor, None, Call]]:
        """Explain the texts that the targets name, each by the image it is scored against."""
        count, batch, _ = self.targets.shape
        images = torch.arange(batch, device=self.targets.device).repeat(count)
        for name, side, sign in (("text", 0, 1), (AGAINST, 1, -1)):
            rows = self.targets[..., side].flatten()
            there = rows >= 0
            if not there.any():
                continue
            # Samples of a list that are explained against nothing have zeros there.
            view = self.inputs.texts_against(rows.clamp(min=0))
            wanted = torch.stack([images, torch.full_like(images, NONE)], 1)[None]
            relevance, _, call = self._ask(view, lambda logits, wanted=wanted: wanted)
            relevance = sign * relevance[0] * there[:, None]
            yield name, relevance.unflatten(0, (count, batch)), None, call

    def _choose(self, logits: Tensor) -> Tensor:
        targets, target = self._wanted
        if self.inputs.scores_tokens:
            return self._choose_token(logits)
        if self.names is None:
            self.names = class_names(self.model, logits.shape[1])
        classes = logits.shape[1]
        if not self.names and classes == vocabulary_of(self.model):
            targets, target = spelled(
                (targets, target), lambda text: token_number(text, self.tokenizer, classes)
            )
        return resolve_all(targets, target, logits, self.names or None)

    def _choose_token(self, logits: Tensor) -> Tensor:
        """Choose where an answer begins or ends: at a token of the text, which is no padding."""
        targets, target = self._wanted
        logits = self.inputs.scored(logits)
        found = resolve_all(targets, target, logits, None)
        chosen = logits.expand(len(found), *logits.shape).gather(2, found.clamp(min=0))
        if not chosen.isfinite().all():
            raise TargetError(
                f"target is {target if targets is None else targets!r}, and a token of that number "
                "is padding, which is no answer; expected one of the text's own."
            )
        return found

    def _ask(self, view: Inputs, choose) -> tuple[Tensor, Tensor | None, Call]:
        """Put the question to the method for one view of the inputs.

        What makes one score low is, for rules of relevance, asked of the model with minus it.
        """
        if "relevance" not in self.method.needs:
            return self._asked(view, choose)
        chosen: list[Tensor] = []

        def high(logits: Tensor) -> Tensor:
            targets = choose(logits)
            chosen[:] = chosen or [targets]
            low = (targets[..., :1] == LOW) & (targets[..., 1:] >= 0)
            return torch.where(low, torch.tensor([0, NONE], device=targets.device), targets)

        relevance, pixels, call = self._asked(view, high)
        low = chosen[0][..., 0] != call.targets[..., 0]
        if low.any():
            with negated(self.model, lambda: view.scores(self.model)):
                other, other_pixels, _ = self._asked(view, high, again=True)
            relevance = torch.where(low[..., None], other, relevance)
            if pixels is not None and other_pixels is not None:
                pixels = torch.where(low[..., None, None], other_pixels, pixels)
            call.targets = chosen[0]
        return relevance, pixels, call

    def _asked(
        self, view: Inputs, choose, again: bool = False
    ) -> tuple[Tensor, Tensor | None, Call]:
        held = (None, {}) if again else (self.examination, self.checks)
        call = Call(self.model, view, choose, self.reference, *held)
        output = self.method.function(call, **call.resolved(self.options))
        relevance = output.relevance
        if relevance is None:
            relevance = call.patch_sums(output.pixels)
        layout = call.layout(call.run)
        numbers = [relevance, *([] if output.pixels is None else [output.pixels])]
        # Published code may divide by zero; docs/conventions.md says where.
        if not self.reference and not all(x.isfinite().all() for x in numbers):
            raise not_finite(self.method.name, self.inputs.dtype)
        if relevance.shape[1:] != (call.targets.shape[1], layout.tokens):
            raise merged_tokens(self.method.name, relevance.shape[-1], layout.tokens)
        return relevance, output.pixels, call


@contextmanager
def trace(model: nn.Module):
    """Record every attention site of the forward passes run inside the block.

    `with xai.trace(model) as t: logits = model(x)`; then t.sites[i].name, .probs (batch, heads,
    queries, keys), .value, .output. Nothing is hooked onto the model, and its parameters and mode
    are left alone, so gradients reach the probabilities wherever the caller's graph does.
    """
    with eager(), Trace(unwrap(model)) as active:
        yield active
