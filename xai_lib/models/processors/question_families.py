"""What the published evaluations of LXMERT and VisualBERT take away, and in what steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Facts about one kind of model of questions (Chefer et al., ICCV 2021).

    image_steps, text_steps: fractions of regions and tokens to take away. kept_at_end: tokens at
    the end of a question that always stay: [SEP], and before it the token that VisualBERT reads
    its answer at. head_counts: how a fraction of heads becomes a number, see `HeadScores.mask`.
    """

    image_steps: tuple[float, ...]
    text_steps: tuple[float, ...]
    kept_at_end: int
    head_counts: str

    def steps(self, stream: str) -> tuple[float, ...]:
        """Return the fractions of the stream "image" or "text"."""
        return self.image_steps if stream == "image" else self.text_steps


_STEPS = (0, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 1)
# Denser at the end, since MMF has 100 regions an image.
_STEPS_OF_100 = (0, 0.5, 0.75, 0.95, 0.96, 0.97, 0.98, 0.99, 1)
FAMILIES = {
    "lxmert": Family(_STEPS, _STEPS, kept_at_end=1, head_counts="floor_kept"),
    "visual_bert": Family(_STEPS_OF_100, _STEPS, kept_at_end=2, head_counts="floor_pruned"),
}
