"""Interception of a model's forward pass (see `Trace`)."""

from xai_lib.tracing.chains import Chains
from xai_lib.tracing.embeddings import Embeddings
from xai_lib.tracing.guards import Guards
from xai_lib.tracing.marks import Chain
from xai_lib.tracing.masks import HeadMask
from xai_lib.tracing.sites import Site
from xai_lib.tracing.tape import Tape
from xai_lib.tracing.trace import Trace

__all__ = ["Chain", "Chains", "Embeddings", "Guards", "HeadMask", "Site", "Tape", "Trace"]
