"""A small image transformer that may do something to its tokens outside its attention."""

import torch
from torch import nn

PATCH, SIDE, DIM = 4, 4, 16


class Layer(nn.Module):
    """A pre-norm layer with attention by hand."""

    def __init__(self, dim=DIM, heads=2):
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x):
        b, n, d = x.shape
        parts = self.qkv(self.norm(x)).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = parts
        attention = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + self.proj((attention @ v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp(self.norm2(x))


class Vision(nn.Module):
    """A class token and 16 patches; `before`, `between`, `after` act on the tokens there.

    depth: layers. pool: "first" token or "mean" of all.
    """

    def __init__(self, before=None, between=None, after=None, pool="first", depth=3, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.cls = nn.Parameter(torch.randn(1, 1, DIM))
        self.position = nn.Parameter(torch.randn(1, SIDE * SIDE + 1, DIM) * 0.1)
        self.layers = nn.ModuleList(Layer() for _ in range(depth))
        self.head = nn.Linear(DIM, classes)
        self.before, self.between, self.after, self.pool = before, between, after, pool

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        for number, layer in enumerate(self.layers):
            act = self.between if number else self.before
            x = x if act is None else act(x)
            x = layer(x)
        x = x if self.after is None else self.after(x)
        return self.head(x[:, 0] if self.pool == "first" else x.mean(1))


def pixels(batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, PATCH * SIDE, PATCH * SIDE, generator=generator)


class Mixer(nn.Module):
    """t + W tᵀ, as in an MLP-Mixer."""

    def __init__(self, tokens=SIDE * SIDE + 1):
        super().__init__()
        torch.manual_seed(3)
        self.map = nn.Linear(tokens, tokens)

    def forward(self, t):
        return t + self.map(t.transpose(1, 2)).transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.lstm = nn.LSTM(DIM, DIM, batch_first=True)

    def forward(self, t):
        return t + self.lstm(t)[0]


PERMUTATION = torch.randperm(SIDE * SIDE + 1, generator=torch.Generator().manual_seed(5))

# What mixes or moves tokens, each in its own operations.
MIXING = {
    "linear over tokens": Mixer,
    "LSTM": Recurrent,
    "roll": lambda: lambda t: t.roll(1, 1),
    "flip": lambda: lambda t: t.flip(1),
    "index": lambda: lambda t: t[:, PERMUTATION],
    "gather": lambda: lambda t: t.gather(1, PERMUTATION.view(1, -1, 1).expand_as(t)),
    "einsum": lambda: lambda t: torch.einsum("btd,ts->bsd", t, torch.eye(17).roll(2, 0)),
    "sort by size": lambda: lambda t: t.gather(1, t.norm(dim=2).argsort(1)[..., None].expand_as(t)),
    "mean added": lambda: lambda t: t + t.mean(1, keepdim=True),
    "mean into the class token": lambda: pooled,
    "difference": lambda: lambda t: torch.cat([t[:, :1], t[:, 1:] - t[:, :-1]], 1),
    "cumulative mean": lambda: lambda t: t.cumsum(1) / 17,
    "norm over tokens": lambda: nn.GroupNorm(1, 17),
    "Fourier": lambda: lambda t: torch.fft.fft(t, dim=1).real,
    "rot90 of the grid": lambda: rotated,
}

# What acts on each token alone.
STAYING = {
    "nothing": lambda: None,
    "scale": lambda: lambda t: 1.5 * t,
    "linear over features": lambda: nn.Linear(DIM, DIM),
    "norm": lambda: nn.LayerNorm(DIM),
    "features rolled": lambda: lambda t: t.roll(1, 2),
    "there and back": lambda: lambda t: (2 * t.flip(1)).flip(1),
    "a constant added": lambda: lambda t: t + torch.linspace(0, 1, 17)[None, :, None],
}


def pooled(t):
    return torch.cat([t[:, :1] + t[:, 1:].mean(1, keepdim=True), t[:, 1:]], 1)


def rotated(t):
    grid = t[:, 1:].unflatten(1, (SIDE, SIDE))
    return torch.cat([t[:, :1], grid.rot90(1, (1, 2)).flatten(1, 2)], 1)
