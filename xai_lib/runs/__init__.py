"""Runs: an evaluation in resumable shards, on one machine or a cluster, and the store they fill."""

from xai_lib.runs.config import RunConfig
from xai_lib.runs.evaluate import evaluate
from xai_lib.runs.results import Run

__all__ = ["Run", "RunConfig", "evaluate"]
