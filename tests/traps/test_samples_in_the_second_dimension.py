"""As many tokens as samples, and tokens first: sizes do not tell the two apart, the graph does."""

import pytest
import torch
from torch import nn

import xai_lib as xai
from xai_lib.errors import MethodNotApplicableError

TOKENS = 5


class TokensFirst(nn.Module):
    """Four patches and a class token in nn.TransformerEncoderLayers with batch_first=False."""

    def __init__(self, layers=2):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.start = nn.Conv2d(1, 8, 2, 2), nn.Parameter(torch.randn(1, 1, 8))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, norm_first=True) for _ in range(layers)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).permute(2, 0, 1)
        x = torch.cat([self.start.expand(1, x.shape[1], 8), x])
        for layer in self.layers:
            x = layer(x)
        return self.head(x[0])


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    "method", ["attnlrp", "bi_token", "bi_head", "generic_attention", "gradient_x_input", "rollout"]
)
def test_a_batch_of_as_many_samples_is_its_samples(method, layers):
    model = TokensFirst(layers).eval()
    pixels = torch.rand(TOKENS, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    whole = xai.explain(model, pixels, method, target=1).relevance
    parts = [xai.explain(model, x, method, target=1).relevance for x in pixels.split([2, 3])]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["lrp", "transformer_attribution"])
@pytest.mark.parametrize("samples", [2, TOKENS])
def test_rules_of_a_sample_are_refused(method, samples):
    with pytest.raises(MethodNotApplicableError, match="batch_first"):
        xai.explain(TokensFirst().eval(), torch.rand(samples, 1, 4, 4), method)
