# %% [markdown]
# # 13 · Longer than it was trained on
#
# A model is trained on pieces of text that are all of one length.
# Later somebody hands it a longer one; nothing in its code forbids that.
# **Does it go on reading where its training has stopped, and does it matter how it knows
# positions?**
#
# In this lesson you train twelve small models on pieces of 64 characters: without positions, with
# rotation, and with xPos for two scale bases, three of each.
# You read 512 characters with all of them, find out where they break and where they look, and put
# what you find next to what the paper of xPos says.
#
# It takes about 45 minutes to read and 80 seconds to run.
# You need lessons 04 and 05, rotation and xPos, the mask of lesson 03, the block of lesson 11 and
# the training of lesson 12.

# %%
import copy
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from ipywidgets import FloatLogSlider, interact
from torch import nn

from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.lm import python_source, split_documents
from zeta_edu.views import attention_view, style, xpos_view

torch.manual_seed(0)
style.use()
show_block_map(lit=("rotary", "xpos"))

# %% [markdown]
# ## A text that everybody has
#
# Python comes with its own library: several hundred files.
# Most of them are for training. A twentieth is held out, whole files, for measuring.

# %%
training_files, held_out_files = split_documents(python_source())
print("more than 200 files to train on:", len(training_files) > 200)

# %% [markdown]
# A token is one character here: the 95 that can be typed, and the end of a line.
# All others become a question mark.

# %%
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # 96 characters
NUMBERS = {ord(character): number for number, character in enumerate(ALPHABET)}


def encode(text):
    """The numbers 0 to 95 of its characters: (n,)."""
    table = torch.tensor([NUMBERS.get(code, NUMBERS[ord("?")]) for code in range(128)])
    codes = torch.frombuffer(bytearray(text, "ascii", "replace"), dtype=torch.uint8)
    return table[codes.int()]


encode("if x:\n").tolist()

# %%
training = encode("".join(file.text for file in training_files))
held_out = encode("".join(file.text for file in held_out_files))

# %% [markdown]
# Training takes pieces of 64 characters. Eight times that is 512, and so long are the 32 pieces
# that we measure on, evenly spread over the held-out text.
# Each piece has one character more, so that its 512th has a next one to foretell.

# %%
LENGTH, LONGEST = 64, 512
starts = torch.linspace(0, len(held_out) - LONGEST - 1, 32).long()  # (32,)
pieces = held_out[starts[:, None] + torch.arange(LONGEST + 1)]  # (32, 513)

# %% [markdown]
# ## Four ways to know a position
#
# The first way is none at all. The causal mask alone makes a text read from left to right: the
# third character sees three, the fourth sees four.
# That is something, and models without any positions do learn from it (Haviv et al. 2022).
#
# The second is rotation, the third and the fourth are xPos, which is rotation that fades.
# Here they are from lessons 04 and 05.


# %%
def turn(x):
    """Turn every pair of x (..., n, d) by its angle at the positions 0 to n - 1."""
    n, d = x.shape[-2:]
    frequencies = 10_000 ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)  # (d/2,)
    angles = torch.arange(n)[:, None] * frequencies  # (n, d/2)
    first, second = x.chunk(2, dim=-1)  # (..., n, d/2) each
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def fade(distances, d, scale_base, dtype):
    """What is left of each feature at these distances: (n, d)."""
    zetas = (torch.arange(0, d, 2, dtype=dtype) / d + 0.4) / 1.4  # (d/2,)
    return (zetas ** (distances[:, None].to(dtype) / scale_base)).repeat(1, 2)


# %% [markdown]
# How much is left at the end of a piece of the training, and at the end of the 512?
# The first pair fades fastest; its ζ is 0.4 / 1.4, that is 2/7.
# By hand: with a scale base of 32, the distance 64 is two scale bases, so (2/7)² = 0.082 is left.

# %%
for scale_base in (512, 32):
    left = fade(torch.tensor([64, 512]), 32, scale_base, torch.double)[:, 0]
    print(f"scale base {scale_base:3}: {left[0]:.3f} at 64, {left[1]:.1e} at 512")

# %% [markdown]
# So a scale base of 512 does little within 64 characters: that model is trained almost as if there
# were only rotation.
# But 512 is the package's, and also the one in the code of the paper's authors.
# They trained on pieces of 1024 tokens, twice that; for our 64 the like of it is 32.
# We train with both.
#
# The view shows what the smaller one does, over 512 positions.
# Move the scale base up to 512, and see the curve of xPos rise towards the one of rotation alone.

# %%
xpos_view(32, scale_base=32, length=512)

# %% [markdown]
# ## What fading does not do
#
# With the scale base of 32 little is left of the score of a key 500 places back: when all pairs are
# of one length, at most the 5 % that the view names.
# It is easy to think that such a key is forgotten.
# But softmax sees scores against each other, and e⁰ is 1, not 0.
#
# By hand, as if nothing at all were left: one key close by has a score of 5, and all others 0.
# Its weight is e⁵ / (e⁵ + number of the others), with e⁵ = 148.

# %%
for others in (10, 63, 511):
    scores = torch.tensor([5.0] + [0.0] * others)
    print(f"{others:3} others: {scores.softmax(dim=0)[0]:.2f}")

# %% [markdown]
# Each of the others has little, but there are more and more of them, and together they take over.
# Fading makes what is far ever more *equal*, not absent.
# A model has to get along with that; so it is not clear beforehand how it will fare.

# %% [markdown]
# ## The model
#
# First the weights. `scale_base` says how positions are known: `None` for not at all, infinity for
# rotation alone, a number for xPos.
# `near` leaves some keys out; it is for later.


# %%
def is_visible(queries_at, keys_at, near=None):
    """Whether a query sees a key, (query, key): never a later one, with `near` no far one."""
    distance = queries_at[:, None] - keys_at
    if near is None:
        return distance >= 0
    blocks_back = queries_at[:, None] // near - keys_at // near
    return (distance >= 0) & (blocks_back <= 1)


# %% [markdown]
# Lesson 05 showed that the factors of xPos overflow far from their origin.
# So the queries are taken in parts of at most 16 scale bases, and the first of a part is its
# origin.
# Without xPos one part is enough.


# %%
def weigh(queries, keys, scale_base, near=None):
    """Causal weights (..., n, n) from queries and keys (..., n, d) without positions."""
    n, d = queries.shape[-2:]
    fades = scale_base is not None and scale_base < math.inf
    if scale_base is not None:
        queries, keys = turn(queries), turn(keys)
    at, rows = torch.arange(n), []
    for part in at.split(max(1, int(16 * scale_base)) if fades else n):
        q, k = queries[..., part, :], keys
        if fades:
            q = q * fade(part - part[0], d, scale_base, q.dtype)
            # Keys of the future are hidden below; the clamp keeps them finite.
            k = k * fade((part[0] - at).clamp(min=-len(part)), d, scale_base, q.dtype)
        scores = q @ k.mT / math.sqrt(d)  # (..., part, n)
        hidden = ~is_visible(part, at, near)
        rows.append(scores.masked_fill(hidden, -math.inf).softmax(dim=-1))
    return torch.cat(rows, dim=-2)


# %% [markdown]
# Try it with one query and one key that are the same at all 512 places, and look at the weights of
# the last query.
# Without positions all that it sees weighs the same.

# %%
same = torch.ones(1, LONGEST, 32) / 2
ways = {"no position": None, "rotation": math.inf, "xPos 512": 512, "xPos 32": 32}
colours = dict(zip(ways, (style.MASK, style.KEY, style.VALUE, style.QUERY), strict=True))
lines = dict(zip(ways, (":", "-", "--", "-"), strict=True))
figure, axes = plt.subplots(figsize=(7.2, 3))
for way, scale_base in ways.items():
    row = weigh(same, same, scale_base)[0, -1].flip(0)  # by distance
    axes.semilogy(row, lines[way], color=colours[way], label=way)
axes.set(xlabel="distance, characters", ylabel="weight", title="one query and key, everywhere")
axes.legend(fontsize=10, ncols=2)
style.show(
    figure,
    alt="Weight by distance for equal queries and keys. Without positions a flat line. Rotation: "
    "a high start, then jumping up and down. xPos 512 the same but smoother far away. xPos 32 "
    "falls, smoothly from about 100 on, and is nearly flat at the end.",
)

# %% [markdown]
# Rotation gives some of the far keys as much as keys thirty places back, and jumps between them.
# With xPos 32 the far end is smooth and nearly flat: almost equal, and not gone.

# %% [markdown]
# Now the block, as in lesson 11: one projection, several heads of queries and one of keys and
# values, and the feed-forward half beside it.
# It keeps the weights that it has used, for us to look at.


# %%
class Block(nn.Module):
    def __init__(self, dim, heads, dim_head, scale_base):
        super().__init__()
        self.sizes = (heads * dim_head, dim_head, dim_head, 2 * dim)
        self.heads, self.scale_base = heads, scale_base
        self.norm = nn.LayerNorm(dim, bias=False)
        self.projection = nn.Linear(dim, sum(self.sizes), bias=False)
        self.attention_out = nn.Linear(heads * dim_head, dim, bias=False)
        self.feed_forward_out = nn.Linear(dim, dim, bias=False)

    def forward(self, x, near=None):
        q, k, v, inner = self.projection(self.norm(x)).split(self.sizes, dim=-1)
        q = rearrange(q, "b n (h d) -> b h n d", h=self.heads)
        weights = weigh(q, k[:, None], self.scale_base, near)  # (b, h, n, n)
        self.weights = weights.detach()
        mixed = rearrange(weights @ v[:, None], "b h n d -> b n (h d)")
        value, gate = inner.chunk(2, dim=-1)
        return self.attention_out(mixed) + self.feed_forward_out(F.silu(gate) * value)


# %% [markdown]
# And the model: two blocks between the characters' rows and their logits, as in lesson 12.


# %%
class Reader(nn.Module):
    def __init__(self, scale_base, num_tokens=96, dim=64, depth=2, heads=2, dim_head=32):
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, dim)
        shape = (dim, heads, dim_head, scale_base)
        self.blocks = nn.ModuleList(Block(*shape) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, bias=False)
        for weight in self.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02)
        nn.init.normal_(self.embedding.weight, std=0.2)

    def forward(self, tokens, near=None):
        x = self.embedding(tokens)  # (batch, n, dim)
        for block in self.blocks:
            x = x + block(x, near)
        return self.norm(x) @ self.embedding.weight.T  # (batch, n, num_tokens)


print(f"{sum(weight.numel() for weight in Reader(None).parameters()):,} weights")

# %% [markdown]
# ## The proof
#
# Before training anything, compare with the package: a wrong model would give wrong findings, and
# they would look like any others.
#
# Rotation and xPos: the package's language model, with its weights copied into ours, in double
# precision, on texts of 20 to 600 tokens; logits and the gradients of all weights.
# One scale base is so small that the text falls into many parts.
# No position, and `near`: the package's block always turns, so here the piece is its attention,
# `regular_attention`, on queries and keys that are not turned, under a mask.

# %% tags=["proof"]
from zeta_edu.attention import regular_attention
from zeta_edu.lm import TransformerLM


def agree(inputs, ours, theirs):
    """Outputs and gradients must be the same; the largest difference."""
    results = []
    for output in (ours, theirs):  # the sine gives each entry a gradient of its own
        results.append([output, *torch.autograd.grad(output.sin().sum(), inputs.pop(0))])
    for mine, package in zip(*results, strict=True):
        torch.testing.assert_close(mine, package, rtol=1e-10, atol=1e-10)
    return max((a - b).abs().max().item() for a, b in zip(*results, strict=True))


errors, shape = [], {"num_tokens": 96, "dim": 24, "depth": 2, "heads": 3, "dim_head": 8}
for base, n in ((math.inf, 200), (512, 200), (32, 600), (3, 130), (0.1, 20)):
    xpos = {"use_xpos": False} if base == math.inf else {"xpos_scale_base": base}
    package, ours = TransformerLM(**shape, ff_mult=1, **xpos).double(), Reader(base, **shape)
    weights = list(package.parameters()), list(ours.double().parameters())
    for given, mine in zip(*weights, strict=True):
        given.data.normal_(std=0.3 if given.ndim == 2 else 1.0)
        mine.data.copy_(given.data)
    tokens = torch.randint(96, (1, n))
    errors.append(agree([weights[1], weights[0]], ours(tokens), package(tokens)))
for near in (None, 8, 32):
    q, k, v = (torch.randn(2, h, 100, 8).double().requires_grad_() for h in (3, 1, 1))
    near_enough = None if near is None else is_visible(torch.arange(100), torch.arange(100), near)
    theirs = regular_attention(q, k, v, mask=near_enough, causal=True)
    errors.append(agree([(q, k, v), (q, k, v)], weigh(q, k, None, near) @ v, theirs))
print("largest error below 1e-10:", max(errors) < 1e-10)

# %% [markdown]
# ## Twelve trainings
#
# Each model sees 200 batches of 16 pieces, from random places of the training text.
# A *seed* fixes both the weights at the beginning and the places.
# The four ways share three seeds, so that they differ in nothing else.
# All twelve take about a minute.


# %%
def train(scale_base, seed, steps=200):
    torch.manual_seed(seed)
    model, generator = Reader(scale_base), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0, fused=True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 0.01 * min((step + 1) / 30, 1 - step / steps)
        starts = torch.randint(len(training) - LENGTH, (16, 1), generator=generator)
        batch = training[starts + torch.arange(LENGTH + 1)]  # (16, 65)
        loss = F.cross_entropy(model(batch[:, :-1]).mT, batch[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return model


# %%
def train_three(way):
    return [train(ways[way], seed) for seed in (0, 1, 2)]


models = {"no position": train_three("no position")}

# %%
models["rotation"] = train_three("rotation")

# %%
models["xPos 512"] = train_three("xPos 512")

# %%
models["xPos 32"] = train_three("xPos 32")

# %% [markdown]
# A training ends a little differently on every processor, and the library differs a little between
# Pythons.
# So the cells print what has held on all trainings that we tried, with six seeds; the figures show
# those that have just run here.

# %% [markdown]
# ## Loss by position
#
# Read the 512 characters of each piece, and note the loss at every position.


# %%
@torch.no_grad()
def losses(model, pieces, near=None):
    """The loss of every character but the first of each piece: (count, n)."""
    found = []
    for some in pieces.split(8):
        logits = model(some[:, :-1], near)
        found.append(F.cross_entropy(logits.mT, some[:, 1:], reduction="none"))
    return torch.cat(found)


read = {way: torch.stack([losses(m, pieces) for m in models[way]]) for way in ways}

# %% [markdown]
# A single position is noisy. Take the mean of every 32 positions, over all 32 pieces: 1024
# characters together.


# %%
def by_position(losses, size=32):
    """Means over the pieces and over stretches of positions: (..., n / size)."""
    return rearrange(losses, "... b (stretch n) -> ... stretch b n", n=size).mean(dim=(-2, -1))


# %% [markdown]
# The first stretch has little to go by, in every model; the figure leaves it out.
# A line is the mean of three seeds, and its band reaches from the lowest to the highest.


# %%
def draw_by_position(read, title):
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    at = torch.arange(48, LONGEST, 32)  # the middle of every stretch but the first
    for way, found in read.items():
        stretches = by_position(found)[:, 1:]  # (3 seeds, 15)
        low, high = stretches.amin(dim=0), stretches.amax(dim=0)
        axes.fill_between(at, low, high, color=colours[way], alpha=0.18, lw=0)
        axes.plot(at, stretches.mean(dim=0), lines[way], color=colours[way], label=way)
    axes.axvline(LENGTH, color="black", lw=1, ls=":")
    axes.set(xlabel="position", ylabel="loss", title=title, xticks=range(0, 513, 64))
    axes.set_ylim(1.9, 3.3)
    axes.legend(fontsize=10, ncols=4, loc="upper right")
    return figure


style.show(
    draw_by_position(read, "training ended at the dotted line"),
    alt="Loss by position to 512, with bands over three seeds. Before 64 rotation and both xPos "
    "lie together, no position above them. Beyond, rotation and xPos 512 climb, with wide bands; "
    "no position and xPos 32 go on as before.",
)

# %% [markdown]
# Ups and downs that all lines share belong to the text: some stretches of it are harder.
# So compare the lines with each other, not one stretch with the next.

# %% [markdown]
# ## The same letters, with more before them
#
# To compare lengths, the letters have to be the same.
# So hold the *last* 32 letters of each piece fixed, and give the model the last 64 characters up to
# there, then 128, then 256; all 512 have been read above.
# If it can use what is further back, the loss falls; if that confuses it, the loss rises.

# %%
TIMES = (1, 2, 4, 8)


def last_losses(model, times):
    """The loss of the last 32 characters for each of these lengths: (len(times),)."""
    ends = [pieces[:, -time * LENGTH - 1 :] for time in times]
    return torch.stack([losses(model, end)[:, -32:].mean() for end in ends])


last = {}
for way in ways:
    shorter = torch.stack([last_losses(model, TIMES[:-1]) for model in models[way]])  # (3, 3)
    longest = read[way][..., -32:].mean(dim=(1, 2))  # (3,)
    last[way] = torch.cat((shorter, longest[:, None]), dim=1)  # (3 seeds, 4 lengths)


# %%
def draw_last(last, title):
    figure, axes = plt.subplots(figsize=(7.2, 3.4))
    for shift, (way, found) in enumerate(last.items()):
        at = torch.arange(4) + 0.09 * (shift - 1.5)
        mean = found.mean(dim=0)  # (4 lengths,)
        spread = torch.stack((mean - found.amin(dim=0), found.amax(dim=0) - mean))
        axes.errorbar(
            at, mean, spread, color=colours[way], ls=lines[way], marker="o", capsize=3, label=way
        )
    axes.set_xticks(range(4), [f"{times}× ({times * LENGTH})" for times in TIMES])
    axes.set(xlabel="characters that are read", ylabel="loss of the last 32", title=title)
    axes.set_ylim(2.1, 3.1)
    axes.legend(fontsize=10, loc="upper left")
    return figure


style.show(
    draw_last(last, "the same letters, more text before them"),
    alt="Loss of the same letters when 64, 128, 256 and 512 characters are read, with bars from "
    "the lowest to the highest of three seeds. Rotation rises most, then xPos 512; no position "
    "begins highest and stays level, xPos 32 stays level at the bottom.",
)

# %% [markdown]
# Now in words that a cell can check.
# At home, that is at 64, and then by how much the loss changes up to 512:

# %%
at_home = {way: last[way][:, 0] for way in ways}  # (3 seeds,) each
change = {way: last[way][:, -1] - last[way][:, 0] for way in ways}
best_none = at_home["no position"].min()
others = torch.stack([at_home[way] for way in ways if way != "no position"])  # (3 ways, 3 seeds)
apart = others.amax(dim=0) - others.amin(dim=0)  # (3 seeds,)
print("the other three are within 0.05:     ", bool((apart < 0.05).all()))
print("no position is worst at home:        ", bool((others < best_none).all()))
print("rotation rises by more than 0.1:     ", bool((change["rotation"] > 0.1).all()))
print("xPos 512 rises, on average:          ", bool(change["xPos 512"].mean() > 0.03))
print("no position changes by less than 0.1:", bool((change["no position"].abs() < 0.1).all()))
print("xPos 32 changes by less than 0.05:   ", bool((change["xPos 32"].abs() < 0.05).all()))
print("none falls by more than 0.03:        ", all((c > -0.03).all() for c in change.values()))
at_512 = {way: last[way][:, -1].mean() for way in ways}
print("no position ends below rotation:     ", bool(at_512["no position"] < at_512["rotation"]))

# %% [markdown]
# The line of xPos 512 and the last one are about the mean of three seeds, the others about each.
#
# So at home there is nothing to choose between rotation and xPos, and without positions a model is
# worse.
# Beyond, rotation breaks; without positions little changes, so that the worst model at home ends
# up better than rotation.
# xPos rises as well, on average, when its scale base is so large that it hardly fades, and holds
# with the small one.
# But nothing falls: what these models get out of the additional text, if anything, is below 0.03.

# %% [markdown]
# ## Why does rotation break?
#
# Here is a likely reason.
# A pair that turns slowly has not come round once within 64 positions.
# Of its angles the training has shown only a part; beyond 64 come angles that no weight was ever
# fitted to.
# How many of the 16 pairs of a head are that slow?

# %%
frequencies = 10_000 ** (-torch.arange(0, 32, 2.0) / 32)  # (16,)
turns = LENGTH * frequencies / (2 * math.pi)
print(f"{(turns < 1).sum()} of 16 pairs turn less than once; pair 4 turns {turns[4]:.2f} times")

# %% [markdown]
# What does that do to attention?
# For the queries from 384 to 511, sum up the weight on all keys that are 64 or more places back:
# distances of which the training had not one.
# Is it spread, or does one key have most of it?


# %%
@torch.no_grad()
def far_shares(model):
    """The weight on keys 64 or more back, and the largest key's part of it, by block: (2, 2)."""
    model(pieces[:8, :-1])
    at = torch.arange(LONGEST)
    far = at[384:, None] - at >= LENGTH  # (query, key)
    weights = torch.stack([block.weights[..., 384:, :] for block in model.blocks]) * far
    share = weights.sum(dim=-1).mean(dim=(1, 2, 3))  # (2 blocks,)
    return torch.stack((share, weights.amax(dim=-1).mean(dim=(1, 2, 3)) / share))


found = {way: torch.stack([far_shares(model) for model in models[way]]) for way in ways}
far = {way: both[:, 0] for way, both in found.items()}  # (3 seeds, 2 blocks) each
largest = {way: both[:, 1] for way, both in found.items()}

# %%
figure, axes = plt.subplots(figsize=(7.2, 3.2))
for shift, (way, shares) in enumerate(far.items()):
    for block in (0, 1):
        at = block + 0.2 * (shift - 1.5)
        axes.bar(at, shares[:, block].mean(), 0.17, color=colours[way], alpha=0.5)
        label = way if block == 0 else None
        axes.plot([at] * 3, shares[:, block], "o", color=colours[way], label=label)
axes.set_xticks((0, 1), ("block 0", "block 1"))
axes.set(ylabel="weight beyond 64", ylim=(0, 1), title="dots are the seeds")
axes.legend(fontsize=10, loc="upper left", bbox_to_anchor=(1, 1))
style.show(
    figure,
    alt="Weight on keys 64 or more back, by block. No position about 0.86 in both. In block 0 all "
    "have much. In block 1 rotation has much, xPos 512 less, xPos 32 almost none.",
)

# %%
in_block_1 = {way: shares[:, 1] for way, shares in far.items()}
print("block 1, xPos 32 is below 0.1:            ", bool((in_block_1["xPos 32"] < 0.1).all()))
above = in_block_1["rotation"].min() > in_block_1["xPos 32"].max()
print("block 1, rotation is always above xPos 32:", bool(above))
print("block 1, rotation: one key has most of it:", bool((largest["rotation"][:, 1] > 0.5).all()))
print("block 0, xPos 32: no key has a tenth:     ", bool((largest["xPos 32"][:, 0] < 0.1).all()))

# %% [markdown]
# In block 0 even xPos 32 gives much of its weight to what is far.
# But it spreads it: what it mixes in is an average over many characters, and the loss shows that
# this does little harm.
# In block 1 it stays with what is near.
# Rotation does not, and there, on average, one key has most of what goes far: single letters from
# far away come into the mix.
# It is not the weight alone: without positions it is largest, and the loss holds.
#
# Look for yourself at rotation, in the seed that broke most at twice its length, over 128
# characters.
# It opens at head 0 of block 1 (the view says layer), at the query that gives most to keys 64 or
# more back.
# A query of the first 64 mostly finds what is close; among the late ones are some that go far back,
# to letters of the first lines.

# %% tags=["nbval-ignore-output"]
# No test compares this output: the weights depend on the processor, the text on the Python.
worst = (last["rotation"][:, 1] - last["rotation"][:, 0]).argmax()
breaking, tokens = models["rotation"][worst], pieces[3, :128]
with torch.no_grad():
    breaking(tokens[None])
weights = torch.cat([block.weights for block in breaking.blocks])  # (2 blocks, 2 heads, 128, 128)
furthest = weights[1, 0].tril(diagonal=-LENGTH).sum(dim=-1).argmax().item()
shown = [ALPHABET[number] for number in tokens]
attention_view(weights, shown, layer=1, head=0, query=furthest)

# %% [markdown]
# ## Fading afterwards
#
# If it is far keys and their angles that do the harm, it should help to fade them even when the
# model was *trained* with rotation alone.
# Nothing has to be trained for that: give the blocks another scale base when they read.


# %%
def faded(model, scale_base):
    """A copy of the model that reads with another scale base."""
    other = copy.deepcopy(model)
    for block in other.blocks:
        block.scale_base = scale_base
    return other


# %% [markdown]
# Move the slider: the scale base at which the three models with rotation read.
# To be quick, they read every second piece.
# (In a page without a running Python you see one picture only.)


# %%
def draw_faded(scale_base):
    few = pieces[::2]
    found = {"rotation": read["rotation"][:, ::2]}
    fading = [losses(faded(model, scale_base), few) for model in models["rotation"]]
    found["xPos 32"] = torch.stack(fading)  # drawn in its colour
    title = f"trained with rotation, read with scale base {scale_base:.0f}"
    figure = draw_by_position(found, title)
    axes = figure.axes[0]
    names = ("read as trained", "faded")
    axes.legend(axes.get_lines()[:2], names, fontsize=10, ncols=2, loc="upper center")
    alt = "Loss by position of models trained with rotation, read as trained and read with a scale "
    style.show(figure, alt=alt + f"base of {scale_base:.0f}.")


slider = FloatLogSlider(32, base=2, min=2, max=10, step=1, continuous_update=False)
_ = interact(draw_faded, scale_base=slider)

# %%
mended = torch.stack([last_losses(faded(model, 32), (1, 8)) for model in models["rotation"]])
rise = mended[:, -1] - at_home["rotation"]
print("at most half of the rise is left:", bool((rise < change["rotation"] / 2).all()))
moved = (mended[:, 0] - at_home["rotation"]).abs()
print("at home it changes by less than 0.02:", bool((moved < 0.02).all()))

# %% [markdown]
# What the models learned with rotation survives the fading, and at least half of what broke them is
# gone with what was far.

# %% [markdown]
# ## Leaving far keys out
#
# There is a blunter way, and the paper takes it along with xPos: when reading, hide what is far.
# Cut the text into blocks of half the training length. A query sees its own block up to itself, and
# the one before: *blockwise causal attention*.
# That is what `near` does.
# By hand, for 8 places and blocks of 2: the query at 5 is in block 2, and sees 2, 3, 4 and 5.

# %%
eight = torch.arange(8)
is_visible(eight, eight, near=2).int()

# %% [markdown]
# With blocks of 32 no query sees further back than 63 places, and all those distances were there in
# the training.

# %%
close = {way: torch.stack([losses(m, pieces, LENGTH // 2) for m in models[way]]) for way in ways}
style.show(
    draw_by_position(close, "the same models, read with blocks of 32"),
    alt="Loss by position when all models are read blockwise: the lines go up and down "
    "together, and none climbs away. No position lies above the other three, which coincide.",
)

# %% [markdown]
# The last letters, at 512 against home:

# %%
for way in ways:
    blockwise = close[way][..., -32:].mean(dim=(1, 2))  # (3 seeds,)
    level = bool(((blockwise - at_home[way]).abs() < 0.05).all())
    print(f"{way:12} changes by less than 0.05 in every seed: {level}")

# %% [markdown]
# Read blockwise, nothing breaks: rotation holds as well as xPos with either scale base.
# Nor does anything improve; what is hidden cannot help.

# %% [markdown]
# ## Could more text have helped?
#
# Perhaps there was nothing to be had.
# Read with ever smaller pieces of text in sight, and see from where on it hurts.
# With `near` at 8, say, a query sees at most 15 places back. The second block of the model reads
# what the first has gathered, so both together reach back 30.

# %%
NEAR = (1, 2, 4, 8, 16, 32)
few = pieces[::4]


def by_near(model):
    """The loss beyond position 64 for each size of the blocks: (6,)."""
    return torch.stack([losses(model, few, near)[:, LENGTH:].mean() for near in NEAR])


in_sight = {way: torch.stack([by_near(m) for m in models[way]]) for way in ("rotation", "xPos 32")}

# %%
figure, axes = plt.subplots(figsize=(7.2, 2.8))
for way, found in in_sight.items():  # (3 seeds, 6)
    axes.semilogx(NEAR, found.T, "o-", color=colours[way], label=[way, None, None])
axes.set_xticks(NEAR, NEAR)
axes.minorticks_off()
axes.set(xlabel="near, the size of the blocks", ylabel="loss", title="each line is a training")
axes.legend(fontsize=10)
style.show(
    figure,
    alt="Loss against near, the size of the blocks, for three seeds of rotation and of xPos 32: it "
    "falls from 1 to 8, and is flat from there to 32.",
)
every = torch.cat(list(in_sight.values()))  # (6 trainings, 6)
falls = every[:, 3] - every[:, 5]  # from blocks of 8 to blocks of 32
print("from 8 to 32 it falls by less than 0.02:", bool((falls < 0.02).all()))

# %% [markdown]
# From 8 on it makes next to no difference: these models hardly use what stands further back than
# about 30.
# They were trained for seconds, and have not learned to use it, not even within the 64.
# So their loss *could* not fall beyond; that says something about our models, and nothing about
# positions.

# %% [markdown]
# ## Next to the paper
#
# Sun et al. 2022 trained models of 24 blocks, 16 heads and width 1024 on pieces of 1024 tokens, and
# read the first 4k tokens of scientific articles, cut at several lengths (section 4.2 and table 2).
# They report that rotation does not carry over to lengths beyond the training, and that xPos, read
# with blockwise causal attention, does.
#
# Rotation breaks here as well, in every seed.
# That xPos holds is found here as well, with the scale base that is in proportion to the length of
# the training.
# Two things are to be kept in mind.
#
# First, nothing falls here.
# A large model that was trained for long may well have use for what stands a thousand tokens back.
# Ours has next to none for what stands forty back, as we have just seen; to hold is the best it can
# do.
#
# Second, their model has two things together, the fading and the blocks.
# Here each alone is enough: the blocks mend rotation without any fading, and a model that was
# trained with fading needs no blocks.
# From this lesson you cannot say which of the two does how much in a large model, where far keys
# may have something to give, and hiding them may cost something.
# (Their section 4.4.2 reads with the blocks and without.)
#
# Besides, our tokens are characters, our heads two, and our training a few seconds; of the two
# scale bases that we tried one is that of their code, and one has its proportion to their length.
# What three seeds of such models show is shown for such models.

# %% [markdown]
# ## What goes wrong: one number for the whole text
#
# The usual report is a single mean: cut a text into windows of some length, read them, and average
# over all letters.
# Do that at 64 and at twice 64, for rotation.


# %%
def whole_mean(model, n):
    """The mean loss of all letters, when the pieces are cut into windows of n."""
    cut = torch.cat([pieces[:, at : at + n + 1] for at in range(0, LONGEST, n)])
    return losses(model, cut).mean()


whole = torch.stack([whole_mean(m, 128) - whole_mean(m, 64) for m in models["rotation"]])
at_end = last["rotation"][:, 1] - last["rotation"][:, 0]  # (3 seeds,)
print("the mean rises less than half as much as the end:", bool(whole.mean() < at_end.mean() / 2))

# %% [markdown]
# Half of each window is home ground, and in the longer windows fewer letters stand near a
# beginning, with little before them.
# Both pull the mean down, and hide most of what happens at the end.
# Nor does a mean that *falls* with the length prove that far text is used: the second reason alone
# can make it fall, also when the same texts are cut at each length, as here and in the paper.
# Look at the loss by position, or hold the letters fixed.

# %% [markdown]
# ## What goes wrong: one seed
#
# Here is every training with rotation and with xPos 512 by itself.

# %%
figure, all_axes = plt.subplots(1, 2, figsize=(7.6, 3.2), sharey=True)
at = torch.arange(48, LONGEST, 32)
for axes, way in zip(all_axes, ("rotation", "xPos 512"), strict=True):
    for seed, marker in zip(range(3), ("-", "--", ":"), strict=True):
        stretches = by_position(read[way][seed])[1:]  # (15,)
        axes.plot(at, stretches, marker, color=colours[way], label=f"seed {seed}")
    axes.axvline(LENGTH, color="black", lw=1, ls=":")
    axes.set(title=way, xlabel="position", xticks=range(0, 513, 128))
    axes.legend(fontsize=10, loc="lower right")
all_axes[0].set(ylabel="loss", ylim=(1.9, 3.2))
style.show(
    figure,
    alt="Loss by position for three seeds of rotation and of xPos 512. Up to 64 the seeds lie "
    "together; beyond they part, by several tenths.",
)

# %%
home_spread = at_home["rotation"].max() - at_home["rotation"].min()
away_spread = last["rotation"][:, -1].max() - last["rotation"][:, -1].min()
print("at 512 the seeds lie more than twice as far apart:", bool(away_spread > 2 * home_spread))

# %% [markdown]
# At home the seeds agree, since the training has seen to it.
# Beyond nothing was trained, and much of what a model does there is chance.
# With a single seed of each you may find that rotation holds to twice its length, or that xPos 512
# is much better than rotation, or that there is no difference.
# Which of these two lies above the other says nothing here; that rotation rises in every seed does.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. Stretches of positions
#
# Difficulty ★☆☆, 5 minutes.
# `losses` (pieces, n) are the losses of several pieces at n positions, and n is a multiple of four.
# Return the mean loss of every stretch of four neighbouring positions, over all pieces: (n / 4,).


# %% tags=["exercise"]
def mean_of_stretches(losses):
    return ...


check("length.stretches", mean_of_stretches)

# %%
hint("length.stretches")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def mean_of_stretches(losses):
#     by_place = losses.mean(dim=0)  # (n,)
#     return by_place.unflatten(0, (-1, 4)).mean(dim=-1)
# ```
#
# </details>

# %% [markdown]
# ### 2. Distances that were never seen
#
# Difficulty ★★☆, 10 minutes.
# A model was trained on pieces of four characters, and reads n.
# `weights` (head, n, n) are its causal weights, (query, key) in each head.
# For every head, return what a query gives to all keys four or more places back together.
# Take the mean over the queries that have such keys: (head,).


# %% tags=["exercise"]
def on_far_keys(weights):
    return ...


check("length.far", on_far_keys)

# %%
hint("length.far")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def on_far_keys(weights):
#     far = weights.tril(diagonal=-4).sum(dim=-1)  # (head, n)
#     return far[:, 4:].mean(dim=-1)
# ```
#
# The query at position 4 is the first that has such a key: the one at 0.
#
# </details>

# %% [markdown]
# ### 3. Blocks
#
# Difficulty ★★☆, 10 minutes.
# `at` (n,) are the places 0, 1, 2, and so on.
# Return the table (n, n) of blockwise causal attention for blocks of four places: true where a
# query sees a key.
# It sees its own block up to itself, and the whole block before.


# %% tags=["exercise"]
def blockwise(at):
    return ...


check("length.blocks", blockwise)

# %%
hint("length.blocks")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def blockwise(at):
#     blocks_back = at[:, None] // 4 - at // 4
#     return (at[:, None] >= at) & (blocks_back <= 1)
# ```
#
# A window that slides would let every query see equally far.
# With blocks, what is needed changes only once in four places, so a cache can be filled and dropped
# in whole blocks.
#
# </details>

# %% [markdown]
# ### 4. A crowd of keys
#
# Difficulty ★★☆, 10 minutes.
# One key fits with score *s*; all the others have faded to a score of 0.
# How many others are there when the one that fits is left with the weight `share`?
# Return that number for all `scores` (k,), without rounding it: (k,).


# %% tags=["exercise"]
def size_of_crowd(scores, share):
    return ...


check("length.crowd", size_of_crowd)

# %%
hint("length.crowd")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# With *m* others the weight is $e^s / (e^s + m)$. Set it equal to the share and solve for *m*:
# $m = e^s \, (1 - \text{share}) / \text{share}$.
#
# ```python
# def size_of_crowd(scores, share):
#     return scores.exp() * (1 - share) / share
# ```
#
# For a score of 5 and one half that is 148; a score that is larger by 1 stands up to e times as
# many.
#
# </details>

# %% [markdown]
# ## What you have now
#
# A model can be read at any length; whether it still makes sense there has to be measured, by
# position or on the same letters, with several seeds.
# In our small models rotation alone breaks beyond the length of the training, where most of its
# pairs come to angles that were never seen, and single far keys get large weights.
# xPos holds with a scale base in proportion to that length, and so does rotation when it is read in
# blocks; fading it afterwards takes away at least half of the rise.
# To hold is not to gain: a longer text helps only a model that has learned to use what is far.
#
# **References.**
# xPos, blockwise causal attention and reading beyond the training length: Sun et al. 2022,
# [arXiv:2212.10554](https://arxiv.org/abs/2212.10554), sections 3.2, 3.3 and 4.2; the scale base
# of 512 is in their code, [torchscale](https://github.com/microsoft/torchscale).
# Models without positions: Haviv et al. 2022,
# [arXiv:2203.16634](https://arxiv.org/abs/2203.16634); at lengths beyond the training: Kazemnejad
# et al. 2023, [arXiv:2305.19466](https://arxiv.org/abs/2305.19466).
# To train short and test long, and to measure it: Press et al. 2021,
# [arXiv:2108.12409](https://arxiv.org/abs/2108.12409).
#
# **Next.** These models were made for an experiment, and know nothing but their last few letters.
# [Lesson 14](14-reading.ipynb), reading a real model, looks into one that was trained for longer.
