"""One entry of the matrix: a model of a text and an image, or of an encoder and a decoder.

Every sample of a batch has a text and an image of its own. Texts are padded on the right where the
model is given a mask of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from support.catalogue import Asked, redraw

VOCABULARY = 40
LENGTHS = (7, 5, 4)
PAD, FIRST, LAST = 1, 2, 3
SIDE, REGIONS, FEATURES = 16, 4, 6


@dataclass(frozen=True)
class StreamEntry(Asked):
    """One model. `meet`: how its streams do, "towers", "joint", "coupled", or "refused".

    inputs: what it is given, of "text", "image", "regions" (LXMERT's), "embeds" (VisualBERT's) and
    "patches" (SigLIP 2's). adds: streams that it makes itself, such as a decoder's words; echoes:
    whether those are the text once more. masked: whether it takes a mask of the text. extra: other
    inputs, one row for all samples or no tensor. position: the row of scores that is explained.
    """

    name: str
    build: Callable[[], nn.Module]
    meet: str
    inputs: tuple[str, ...] = ("text", "image")
    adds: tuple[str, ...] = ()
    eager: Callable[[], nn.Module] | None = None
    echoes: bool = False
    masked: bool = True
    classes: int = 3
    position: int | None = None
    extra: tuple[tuple[str, object], ...] = ()
    draw: int = 2

    def model(self, eager: bool = False) -> nn.Module:
        """Return the model in float64, with the same weights for either attention."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = (self.eager if eager else self.build)()
        return redraw(model, self.draw).double().eval()

    @property
    def asked(self) -> dict:
        """What `xai.explain` is told: some of the classes."""
        row = {} if self.position is None else {"position": self.position}
        return {"targets": list(range(self.classes))} | row

    @property
    def streams(self) -> tuple[str, ...]:
        given = ("text",) if "text" in self.inputs else ()
        return given + (("image",) if self.inputs[-1] != "text" else ())

    @property
    def lengths(self) -> tuple[int, ...]:
        return LENGTHS if self.masked else (max(LENGTHS),) * len(LENGTHS)

    def batch(self) -> dict:
        """Return model inputs of all samples, padded to one length."""
        return self._inputs(range(len(LENGTHS)), max(self.lengths))

    def samples(self) -> list[dict]:
        """Return the samples one by one; towers are given all texts with each image."""
        rows = range(len(LENGTHS))
        if self.meet != "towers":
            return [self._inputs([i], self.lengths[i]) for i in rows]
        image = [k for k in self.batch() if k == "pixel_values"]
        return [self.batch() | {k: self.batch()[k][i : i + 1] for k in image} for i in rows]

    def batches(self) -> list[dict]:
        """Return the batches that have to equal the samples."""
        return [self.batch()]

    def unpadded(self, relevance: Tensor, batch: dict) -> list[Tensor]:
        """Return each sample's relevance (targets, tokens), after a look at its texts' padding."""
        longest, rows = max(self.lengths), list(relevance.unbind(1))
        if self.meet == "towers":
            for row in rows:
                for of_text, length in zip(row, self.lengths, strict=True):
                    assert not of_text[length:longest].any(), f"{self.name}: padding has relevance"
            return rows
        if "text" not in self.inputs:
            return rows
        # The text is the first stream, and what a decoder makes of it the second.
        twice = self.echoes and relevance.shape[-1] == 2 * longest
        starts = (longest, 0) if twice else (0,)
        for start in starts:
            for i, length in enumerate(self.lengths):
                kept, lost, rest = rows[i].split_with_sizes(
                    [start + length, longest - length, rows[i].shape[1] - start - longest], 1
                )
                assert not lost.any(), f"{self.name}: padding has relevance"
                rows[i] = torch.cat([kept, rest], 1)
        return rows

    def of_one_input(self, relevance: Tensor) -> Tensor:
        """Leave out the text where each target has one of its own."""
        return relevance[..., max(self.lengths) :] if self.meet == "towers" else relevance

    def check(self, att, where: str) -> None:
        """Assert that an attribution of the batch has the model's streams, and tokens for each."""
        found = set(att.streams)
        assert found in ({*self.streams}, {*self.streams, *self.adds}), f"{where}: streams {found}"
        shape = self.classes, len(LENGTHS), sum(s.shape[-1] for s in att.streams.values())
        assert att.relevance.shape == shape, f"{where}: shape {tuple(att.relevance.shape)}"
        if "text" in found:
            tokens = att.streams["text"].shape[-1]
            assert tokens == max(self.lengths), f"{where}: {tokens} tokens of text"

    def _inputs(self, rows, width: int) -> dict:
        rows, made = list(rows), {}
        generator = torch.Generator().manual_seed(1)

        def drawn(*shape) -> Tensor:
            return torch.randn(len(LENGTHS), *shape, generator=generator, dtype=torch.float64)[rows]

        words = torch.randint(LAST + 1, VOCABULARY, (len(LENGTHS), 7), generator=generator)
        if "text" in self.inputs:
            ids = torch.full((len(rows), width), PAD)
            mask = torch.zeros_like(ids)
            for place, i in enumerate(rows):
                length = self.lengths[i]
                ids[place, :length], mask[place, :length] = words[i, :length], 1
                ids[place, 0], ids[place, length - 1] = FIRST, LAST
            made |= {"input_ids": ids} | ({"attention_mask": mask} if self.masked else {})
        if "image" in self.inputs:
            made["pixel_values"] = drawn(3, SIDE, SIDE)
        if "patches" in self.inputs:
            made["pixel_values"] = drawn(4, 3 * 8 * 8)
            made["pixel_attention_mask"] = torch.ones(len(rows), 4, dtype=torch.long)
            made["spatial_shapes"] = torch.full((len(rows), 2), 2)
        if "regions" in self.inputs:
            made["visual_feats"] = drawn(REGIONS, FEATURES)
            made["visual_pos"] = drawn(REGIONS, 4).sigmoid().cumsum(-1) / 4
        if "embeds" in self.inputs:
            made["visual_embeds"] = drawn(REGIONS, FEATURES)
            made["visual_attention_mask"] = torch.ones(len(rows), REGIONS, dtype=torch.long)
            made["visual_token_type_ids"] = torch.ones(len(rows), REGIONS, dtype=torch.long)
        for name, value in self.extra:
            made[name] = value.repeat(len(rows), 1) if isinstance(value, Tensor) else value
        return made
