"""Forward and backward passes over a borrowed model."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from xai_lib.borrowing import HALF, in_float32
from xai_lib.errors import InputError, MethodNotApplicableError, UnsupportedModelError, XAIError
from xai_lib.inputs import Prepared, logits_of
from xai_lib.layout import TokenLayout
from xai_lib.tracing import Guards, Site, Trace

# Half-precision relevance is seeded with this and divided by it at the end, since the shares of a
# token lie below the smallest fp16 number.
HALF_SCALE = 2.0**12


@dataclass
class Run:
    """One traced forward pass: its logits and sites, and backward passes over its graph."""

    trace: Trace
    logits: Tensor
    pixels: Tensor

    @property
    def sites(self) -> list[Site]:
        return self.trace.sites

    def gradients(self, tensors: Sequence[Tensor], seed: Tensor) -> list[Tensor]:
        """Return ∂⟨logits, seed⟩/∂t for each tensor, zero where t has no influence."""
        return self._backward(tensors, seed, relevance=False)

    def relevances(self, tensors: Sequence[Tensor], seed: Tensor) -> list[Tensor]:
        """Return the relevance that the rules bring from the seeded logits to each tensor."""
        return self._backward(tensors, seed, relevance=True)

    def _backward(self, tensors: Sequence[Tensor], seed: Tensor, relevance: bool) -> list[Tensor]:
        half = self.logits.dtype in HALF
        scale = HALF_SCALE if self.logits.dtype == torch.float16 else 1.0
        reached = [t for t in tensors if t.requires_grad]
        if not self.logits.requires_grad or not reached:
            return [torch.zeros_like(t) for t in tensors]
        try:
            with self.trace.switch.mode(relevance):
                found = torch.autograd.grad(
                    self.logits,
                    reached,
                    seed.to(self.logits.dtype) * scale,
                    True,
                    allow_unused=True,
                )
        except RuntimeError as error:
            if not _is_about_writing(error):
                raise
            raise _writes_in_place() from error
        by_id = {id(t): g for t, g in zip(reached, found, strict=True)}
        result = [by_id.get(id(t)) for t in tensors]
        return [
            torch.zeros_like(t) if g is None else g.float() / scale if half else g
            for t, g in zip(tensors, result, strict=True)
        ]


@dataclass
class Call:
    """What an explainer is given: the borrowed model, its inputs and the targets to explain.

    Explainers run forward passes through it; `each_target` shares one of them among all targets.
    """

    model: nn.Module
    inputs: Prepared
    choose_targets: Callable[[Tensor], Tensor]
    reference: bool = False
    targets: Tensor | None = field(default=None, init=False)
    run: Run | None = field(default=None, init=False)

    def forward(
        self,
        pixels: Tensor | None = None,
        *,
        on_site: Callable[[Site], None] | None = None,
        **options,
    ) -> Run:
        """Run the model once under a trace (options: `Trace`). The first run sets the targets."""
        pixels = self.inputs.pixels if pixels is None else pixels
        model = self.model
        rules = options.get("rules")
        if pixels.dtype in HALF and getattr(rules, "needs_float32", False):
            model, pixels = in_float32(model), pixels.float()

        def visit(site: Site) -> None:
            # Refused here already: what a visitor does with a window's map would fail obscurely.
            if site.probs.shape[0] != pixels.shape[0]:
                raise _no_shared_tokens()
            _object_to(guards)
            on_site(site)

        trace = Trace(self.model, on_site=visit if on_site else None, **options)
        guards = trace.guards
        try:
            with trace:
                logits = logits_of(self.inputs.call(model, pixels))
            trace.settle(logits)
        except RuntimeError as error:
            if isinstance(error, XAIError) or not _is_about_writing(error):
                raise
            raise _writes_in_place() from error
        except (AssertionError, ValueError) as error:
            if isinstance(error, XAIError) or _is_ours(error):
                raise
            raise InputError(
                f"The model refused inputs of shape {tuple(pixels.shape)}: {error} "
                "processor(image) makes inputs of the size it was built for."
            ) from error
        if not trace.shapes:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} makes no attention call that can be seen. Explained "
                "are transformers whose attention is softmax(QKᵀ)V in torch operations; a "
                "convolutional network, or a fused kernel outside torch, is not."
            )
        if getattr(rules, "per_sample", False) and any(s.sequence_first for s in trace.sites):
            raise MethodNotApplicableError(
                "This model keeps tokens in the first dimension and samples in the second "
                "(batch_first=False), which the per-sample sum rule cannot tell apart; build it "
                "with batch_first=True, or use 'attnlrp', 'generic_attention' or a gradient method."
            )
        run = Run(trace, logits, pixels)
        if trace.graph == "as_is" and pixels.requires_grad and not logits.requires_grad:
            raise MethodNotApplicableError(
                "The model computes its logits from the input without a gradient (torch.no_grad, "
                "detach or integer arithmetic in its forward pass), so nothing can be propagated "
                "to the pixels; 'rollout' and 'raw_attention' need no gradient there."
            )
        if self.run is None:
            self.run = run
            if not torch.isfinite(logits).all():
                raise InputError(
                    "The model's logits hold NaN or Inf: check its weights and inputs."
                )
            self.targets = self.choose_targets(logits.detach())
        return run

    def seed(self, target: Tensor, like: Tensor) -> Tensor:
        """Return one-hot rows at `target` (batch,), shaped as `like` (k·batch, classes)."""
        repeats = like.shape[0] // target.shape[0]
        columns = target.repeat(repeats).unsqueeze(1)
        return torch.zeros_like(like).scatter_(1, columns, 1.0)

    def each_target(self, run: Run, explain: Callable[[Tensor], Tensor]) -> Tensor:
        """Stack explain(seed) over the targets: (targets, batch, ...)."""
        return torch.stack([explain(self.seed(t, run.logits)) for t in self.targets])

    def chunks(self, count: int, images: int) -> Iterator[slice]:
        """Cut `count` copies of the batch into passes of about `images` images each."""
        size = max(1, images // self.inputs.pixels.shape[0])
        return (slice(i, i + size) for i in range(0, count, size))

    def layout(self, run: Run) -> TokenLayout:
        """Return where the tokens of this call lie."""
        return TokenLayout.of(run.trace, self.inputs.pixels)

    def require_token_sites(self, run: Run) -> None:
        """Refuse models whose sites do not see all tokens of a sample at once."""
        if not TokenLayout.is_shared(run.trace, self.inputs.pixels.shape[0]):
            raise _no_shared_tokens()
        _object_to(run.trace.guards)

    def require_distributions(self, run: Run) -> None:
        """Refuse models whose attention maps are no distributions over tokens."""
        if run.trace.mixes_heads:
            raise MethodNotApplicableError(
                "This model mixes its attention heads after the softmax (talking heads), so its "
                "attention maps can be negative and are no distributions over tokens; methods that "
                "weight the maps by their gradient or relevance remain, such as "
                "'generic_attention', 'transformer_attribution' and 'attn_gradcam'."
            )


PIXEL_METHODS = (
    "methods that reach the pixels remain: 'integrated_gradients', 'gradient_x_input', "
    "'smoothgrad', 'lrp' and 'attnlrp'"
)


def _no_shared_tokens() -> MethodNotApplicableError:
    return MethodNotApplicableError(
        "This model attends within windows or merges its patches, so no attention map spans its "
        f"tokens; {PIXEL_METHODS}."
    )


def _object_to(guards: Guards) -> None:
    if guards.objection:
        raise MethodNotApplicableError(f"{guards.objection}; {PIXEL_METHODS}.")


def _is_about_writing(error: RuntimeError) -> bool:
    """Whether autograd complains of a tensor that was written to."""
    return "in-place" in str(error) or "inplace" in str(error)


def _writes_in_place() -> UnsupportedModelError:
    return UnsupportedModelError(
        "The model writes into tensors that its own gradient needs, so nothing can be propagated "
        "back through it. Write x = x + y instead of x += y or x[...] = y in its forward pass."
    )


def _is_ours(error: Exception) -> bool:
    """Whether the error was raised by this package's code, not by the model's."""
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(Path(__file__).parent)
