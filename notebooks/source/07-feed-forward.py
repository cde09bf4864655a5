# %% [markdown]
# # 07 · Feed-forward, and in parallel
#
# Attention moves numbers from token to token, and mixes them.
# Most of a block's weights do something else: they work on each token by itself.
# **What does a token do with its own numbers, and must it wait for attention first?**
#
# In this lesson you build what stands around attention: layer norm, the gated feed-forward, and
# the one matrix that serves queries, keys, values and feed-forward together.
# Then attention and feed-forward run side by side, and you prove that this is the block that
# `zeta_edu` ships.
#
# It takes about 45 minutes to read and 25 seconds to run.
# You need attention, heads, the causal mask and the rotation, lessons 01 to 04.

# %%
import copy
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from ipywidgets import FloatLogSlider, interact
from torch import nn

from zeta_edu import load_pretrained
from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import block_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("norm", "projection", "feedforward"))

# %% [markdown]
# ## Numbers that grow
#
# A model is a stack of blocks, and each block's output is added to its input: `x + block(x)`.
# The added x is called the *residual*.
# So the vector of a token is a running sum, and a sum tends to grow.
# Let us watch that in the small model of lesson 00, while it reads a few lines of Python.
# The size of a vector is measured by its *rms*, the root of the mean of its squares.

# %%
model, tokenizer = load_pretrained("python-small")

# %%
code = '''def total(accounts):
    """Sum the balances."""
    result = 0
    for account in accounts:
        result += account.balance
    return result


def deposit(self, amount):
    if amount <= 0:
        raise ValueError("amount")
    self.balance += amount
'''
ids = torch.tensor([tokenizer.encode(code)])  # (1, n)


# %%
@torch.no_grad()
def stream(step):
    """The tokens' vectors before the first block and after each one: (depth + 1, n, dim)."""
    x = model.embedding(ids)  # (1, n, dim)
    states = [x[0]]
    for block in model.blocks:
        x = step(x, block)
        states.append(x[0])
    return torch.stack(states)


def rms(x):
    return x.square().mean(dim=-1).sqrt()


states = stream(lambda x, block: x + block(x))
print("mean rms:", *(f"{size:.1f}" for size in rms(states).mean(dim=-1)))

# %% [markdown]
# The first number is that of the *embedding*, the table that gives each token its first vector; the
# others are those after each block.
# If a block's matrices had to work on such numbers as they come, a deep block would see inputs
# many times as large as the first one does.
# So each block first brings every vector to one size: that is **layer norm**.

# %% [markdown]
# ## Layer norm, by hand
#
# Take one token with four numbers.
# Their mean is (1 + 2 + 3 + 6) / 4 = 3; subtract it.

# %%
token = [1.0, 2.0, 3.0, 6.0]
mean = sum(token) / len(token)
centred = [number - mean for number in token]
centred

# %% [markdown]
# The *variance* is the mean of the squares of these: (4 + 1 + 0 + 9) / 4 = 3.5.
# Dividing by its root, 1.871, makes the variance 1.

# %%
variance = sum(number**2 for number in centred) / len(centred)
[round(number / math.sqrt(variance), 3) for number in centred]

# %% [markdown]
# For many tokens, the same along the last axis.
# Two things are added.
# A small number *eps*, ε in the formula, is added to the variance, so that a token of equal
# numbers gives 0/√ε, which is 0, instead of 0/0.
# And each feature is multiplied by a learned factor, its **gain** γ (gamma), since not every
# feature should be equally large.
# For a vector x of d numbers with mean μ,
#
# $$\operatorname{LN}(x)_i = \gamma_i \, \frac{x_i - \mu}{\sqrt{\sigma^2 + \varepsilon}}, \qquad
# \sigma^2 = \frac{1}{d} \sum_{j=1}^{d} (x_j - \mu)^2.$$


# %%
def layer_norm(x, gamma, eps=1e-5):
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)  # (..., 1)
    return gamma * centred / (variance + eps).sqrt()


layer_norm(torch.tensor([[1.0, 2, 3, 6], [7, 7, 7, 7]]), torch.ones(4))

# %% [markdown]
# Usually a learned number for each feature is added at the end, the *bias*.
# PaLM, a large language model of 2022, leaves biases out of all its layers, and so do we; its
# authors report that this made the training of large models more stable.
#
# What does the norm take away?
# Adding one number to every feature changes nothing, since the mean takes it off again.
# Nor does multiplying by a positive number, as long as the variance is large beside eps.

# %%
x = torch.randn(2, 8)
ones = torch.ones(8)
torch.allclose(layer_norm(5 * x + 3, ones), layer_norm(x, ones), atol=1e-4)

# %% [markdown]
# So two things about a vector are lost, its mean and its spread; the rest goes through.
# Before the gain every normed vector has the same length, √d, as long as eps is small beside its
# variance.
#
# Multiply three tokens by a scale of your choice.
# Near 0.003 the variance is as small as eps, and below that the normed numbers shrink.
# (In a page without a running Python you see one scale only.)

# %%
three = torch.randn(3, 6) + torch.tensor([[-1.0], [0.0], [2.0]])


def draw_norm(scale):
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 2.8))
    normed = layer_norm(scale * three, torch.ones(6))
    for axes, rows, title in ((left, scale * three, "before"), (right, normed, "after")):
        for number, row in enumerate(rows):
            axes.plot(torch.arange(6) + (number - 1) / 8, row, "o", label=f"token {number}")
        axes.axhline(0, color=style.MASK, lw=1, zorder=0)
        axes.set(title=f"{title} the norm", xlabel="feature", ylabel="value")
    right.set_ylim(-2.5, 2.5)
    right.legend(fontsize=9, ncols=3, loc="lower center", columnspacing=0.8, handletextpad=0.1)
    alt = f"Three tokens at scale {scale:g}. Before the norm their means differ; after it each has "
    style.show(figure, alt=alt + f"mean 0, and their rms is {rms(normed).mean():.2f}.")


# %%
slider = FloatLogSlider(10, min=-3, max=3, step=0.5, continuous_update=False)
_ = interact(draw_norm, scale=slider)

# %% [markdown]
# ## A gate
#
# Now the feed-forward. One matrix makes new numbers out of a token's, and a second makes as many
# features as there were.
# Between them something must bend, or the two matrices would be one.
#
# What bends here is a **gate**.
# The first matrix makes pairs: a *value*, not to be confused with the values of attention, and a
# *gate*, a number that says how far the value may pass.
# The gate goes through *silu*, which is z times the sigmoid of z; the sigmoid, 1 / (1 + e⁻ᶻ), is a
# soft step from 0 to 1.
# Then it multiplies the value, and each pair has become one **inner feature**.


# %%
def silu(z):
    return z / (1 + torch.exp(-z))


gates = torch.tensor([-6.0, -1.0, 0.0, 1.0, 6.0])
silu(gates)

# %% [markdown]
# By hand: e⁻¹ is 0.368, so silu(1) is 1 / 1.368 = 0.731.
# A gate far below 0 is shut, a gate far above 0 is about as open as it is large.
# Just below 0 silu is a little negative. How deep does it go, and where?

# %%
z = torch.linspace(-3, 0, 30_001, dtype=torch.double)
print(f"{silu(z).min():.3f} at {z[silu(z).argmin()]:.3f}")

# %% [markdown]
# The dashed line is max(z, 0), a hard bend that silu rounds off.

# %%
z = torch.linspace(-5, 5, 101)
figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
left.plot(z, silu(z), color=style.QUERY, label="silu")
left.plot(z, z.clamp(min=0), "--", color=style.MASK, label="max(z, 0)")
left.set(title="what the gate lets through", xlabel="gate z")
left.legend()
extent = (-5, 5, -5, 5)
surface = silu(z) * z[:, None]  # (value, gate)
image = right.imshow(
    surface, cmap=style.MAP_SIGNED, vmin=-25, vmax=25, origin="lower", extent=extent
)
right.set(title="silu(gate) · value", xlabel="gate", ylabel="value")
figure.colorbar(image, ax=right)
style.show(
    figure,
    alt="Left: silu is near 0 below -4, dips under 0, and follows z above 4; max(z, 0), dashed, "
    "has a corner at 0. Right: silu(gate) times value as colours over gate and value: nearly "
    "nothing where the gate is below 0, and above it large, with the value's sign.",
)

# %% [markdown]
# One matrix makes all pairs: the first half of its numbers are the values, the second the gates.
# This is **SwiGLU**, *swish* (another word for silu) in a *gated linear unit*.


# %%
def swiglu(x):
    value, gate = x.chunk(2, dim=-1)  # (..., inner) each
    return silu(gate) * value


swiglu(torch.tensor([2.0, 3.0, 6.0, -6.0]))  # values 2 and 3, gates 6 and -6

# %% [markdown]
# The first gate is open: 2 · 5.985 = 11.97. The second is shut, and of 3 hardly anything is left.
#
# Why a value and a gate, and not silu of a single number?
# Shazeer, who compared such gates at equal numbers of weights, found lower losses with them, and
# says plainly that he has no explanation (references below).
#
# The feed-forward is one line. Token by token, or all at once, it gives the same:


# %%
def feed_forward(x, w_in, w_out):
    return swiglu(x @ w_in.T) @ w_out.T  # (..., dim) to (..., 2 · inner), inner, dim


# %%
x = torch.randn(5, 8)  # (token, dim)
w_in, w_out = torch.randn(2 * 16, 8), torch.randn(8, 16)
looped = torch.stack([feed_forward(token, w_in, w_out) for token in x])
torch.allclose(looped, feed_forward(x, w_in, w_out), atol=1e-4)

# %% [markdown]
# The tokens do not meet here.
# Each goes its own way through the same two matrices; only attention brings news from others.

# %% [markdown]
# ## One matrix and its slices
#
# Attention begins with three matrices, for queries, keys and values.
# The feed-forward begins with one more.
# Suppose all four take the same input.
# One number of the result is the dot product of one *row* of a matrix with the token.
# It does not matter which matrix the row stands in.
# So stack the rows, take one product, and cut the result.

# %%
dim, heads, kv_heads, dim_head, inner = 8, 2, 1, 4, 16
sizes = (heads * dim_head, kv_heads * dim_head, kv_heads * dim_head, 2 * inner)
matrices = [torch.randn(size, dim) for size in sizes]  # q, k, v, feed-forward
fused = torch.cat(matrices)  # (8 + 4 + 4 + 32, 8)
fused.shape

# %%
slices = (x @ fused.T).split(sizes, dim=-1)
for name, part, matrix in zip(("q", "k", "v", "ff"), slices, matrices, strict=True):
    print(name, tuple(part.shape), torch.allclose(part, x @ matrix.T, atol=1e-5))

# %% [markdown]
# The same numbers in one product instead of four.
# The work is the same too: every row still meets every token once.
# But one product is started instead of four, and the tokens are read once instead of four times.
#
# In a real model the slices are far from equal. Here is the one matrix of the small model's first
# block, turned on its side, row beside row; each tile is the mean size of 8 · 4 weights.

# %%
first_block = model.blocks[0]
names, colours = ("q", "k", "v", "value", "gate"), (style.QUERY, style.KEY, style.VALUE)
cuts = (*first_block.fused_dims[:3], first_block.fused_dims[3] // 2, first_block.fused_dims[3] // 2)
shares = [cut / sum(cuts) for cut in cuts]
for name, cut, share in zip(names, cuts, shares, strict=True):
    print(f"{name:5} {cut:3} rows, {share:3.0%}")

# %%
figure, axes = plt.subplots(figsize=(7.4, 2.9))
matrix = first_block.fused_attn_ff_proj.weight.detach()  # (rows, dim)
tiles = reduce(matrix.abs(), "(r eight) (d four) -> d r", "mean", eight=8, four=4)
image = axes.imshow(tiles, vmin=0, aspect="auto", extent=(0, len(matrix), first_block.dim, 0))
figure.colorbar(image, label="size of a weight")
start = 0
for name, cut, colour in zip(names, cuts, (*colours, style.MASK, style.OUTPUT), strict=True):
    axes.add_patch(plt.Rectangle((start, -22), cut, 16, color=colour, clip_on=False))
    axes.text(start + cut / 2, -26, name, ha="center", va="bottom", color=colour, fontsize=10)
    start += cut
axes.set(xlabel="row of the matrix: a number of the result", ylabel="feature of the token")
axes.set_title("the one matrix of block 0, and its slices", pad=40)
style.show(
    figure,
    alt="The size of the fused matrix's weights as colours, a little larger in the first quarter, "
    "and a bar above for its slices: "
    + ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True)),
)

# %% [markdown]
# Three quarters of this matrix belong to the feed-forward; in this block its weights are a little
# smaller than those of attention.
# All query heads share one head of keys and values (lesson 02), so those two slices are thin.

# %% [markdown]
# ## One after the other, or side by side
#
# But *do* they take the same input? In the transformer of 2017 they do not.
# There the feed-forward waits: it takes what attention has made of the token.
# With the norm in front, as PaLM has it,
#
# $$y = x + \operatorname{Attention}(\operatorname{LN}(x)), \qquad
# x' = y + \operatorname{FF}(\operatorname{LN}(y)).$$
#
# PaLM lets both take the same normed x, and adds both to the residual:
#
# $$x' = x + \operatorname{Attention}(\operatorname{LN}(x)) +
# \operatorname{FF}(\operatorname{LN}(x)).$$
#
# To compare the two we need attention in short, as lessons 01 to 04 built it: heads, the rotation
# of queries and keys, scaled scores, the causal mask, the mix.


# %%
def rotate(x):
    """Turn pair (i, i + d/2) of a vector at position p by p · 10000^(-2i/d): (..., n, d)."""
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** -(torch.arange(half, dtype=x.dtype) / half)
    angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * frequencies  # (n, d/2)
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


# %%
def attend(q, k, v, heads, kv_heads, causal):
    q = rearrange(q, "b n (h d) -> b h n d", h=heads)
    shared = "b n (kv d) -> b (kv g) n d"  # each key/value head serves g query heads
    k, v = (repeat(t, shared, kv=kv_heads, g=heads // kv_heads) for t in (k, v))
    scores = rotate(q) @ rotate(k).mT / math.sqrt(q.shape[-1])  # (b, h, query, key)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal=1)
        scores = scores.masked_fill(later, -torch.inf)
    return rearrange(scores.softmax(dim=-1) @ v, "b h n d -> b n (h d)")


# %% [markdown]
# The parallel block is then short: norm, one product, attention on three slices, the gate on the
# fourth, and a matrix at the end of each half.
# It gives the sum of the halves; `x +` is left to the model.


# %%
class ParallelBlock(nn.Module):
    norm = staticmethod(layer_norm)  # a name of its own, so that another can take its place

    def __init__(self, dim, heads, kv_heads, dim_head, inner, causal=True):
        super().__init__()
        self.heads, self.kv_heads, self.causal = heads, kv_heads, causal
        self.sizes = (heads * dim_head, kv_heads * dim_head, kv_heads * dim_head, 2 * inner)
        self.gamma = nn.Parameter(torch.ones(dim))
        self.fused = nn.Parameter(torch.randn(sum(self.sizes), dim) / math.sqrt(dim))
        self.out = nn.Parameter(torch.randn(dim, self.sizes[0]) / math.sqrt(dim))
        self.ff_out = nn.Parameter(torch.randn(dim, inner) / math.sqrt(dim))

    def halves(self, x):
        """What attention and what the feed-forward adds: (batch, n, dim) each."""
        projected = self.norm(x, self.gamma) @ self.fused.T  # (batch, n, sum of sizes)
        q, k, v, ff = projected.split(self.sizes, dim=-1)
        mixed = attend(q, k, v, self.heads, self.kv_heads, self.causal)
        return mixed @ self.out.T, swiglu(ff) @ self.ff_out.T

    def forward(self, x):
        return sum(self.halves(x))


# %% [markdown]
# The sequential one takes the same matrices, and the same gain for both norms.
# Its feed-forward gets x and attention's half.


# %%
class SequentialBlock(ParallelBlock):
    def halves(self, x):
        rows = self.sizes[-1]  # of the feed-forward, at the end of the matrix
        q, k, v = (self.norm(x, self.gamma) @ self.fused[:-rows].T).split(self.sizes[:3], dim=-1)
        mixed = attend(q, k, v, self.heads, self.kv_heads, self.causal)
        attended = mixed @ self.out.T
        ff = self.norm(x + attended, self.gamma) @ self.fused[-rows:].T
        return attended, swiglu(ff) @ self.ff_out.T


# %% [markdown]
# How many matrix products does each take?
# Let PyTorch tell: a *function mode* sees every call on a tensor, and counts those of `@`.

# %%
from torch.overrides import TorchFunctionMode


class Products(TorchFunctionMode):
    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += "matmul" in function.__name__
        return function(*args, **(kwargs or {}))


# %%
parallel = ParallelBlock(dim, heads, kv_heads, dim_head, inner)
sequential = SequentialBlock(dim, heads, kv_heads, dim_head, inner)
sequential.load_state_dict(parallel.state_dict())
x = torch.randn(1, 6, dim)
for block in (sequential, parallel):
    with Products() as products:
        block(x)
    print(type(block).__name__, products.count)

# %% [markdown]
# One product less, since the feed-forward's first matrix rides along with the queries'.
#
# And how many must *wait* for one another?
# Write down what each product needs, and count the longest chain.

# %%
attention_part = {"q · k": ["first"], "mix": ["q · k"], "out": ["mix"]}
needs = {
    "sequential": {"first": [], **attention_part, "ff in": ["out"], "ff out": ["ff in"]},
    "parallel": {"first": [], **attention_part, "ff out": ["first"]},
}


def step_of(name, of):
    return 1 + max((step_of(other, of) for other in of[name]), default=0)


# %%
def draw_steps(axes, of, first):
    """Each product as a box at its step, the feed-forward's below attention's."""
    places = {name: (step_of(name, of), -name.startswith("ff")) for name in of}
    for name, place in places.items():
        colour = style.OUTPUT if name.startswith("ff") else style.QUERY
        box = {"boxstyle": "round,pad=0.45", "fc": colour, "ec": "none"}
        words = first if name == "first" else name
        axes.text(*place, words, ha="center", va="center", color="white", bbox=box)
        for other in of[name]:
            arrow = {"arrowstyle": "->", "shrinkA": 28, "shrinkB": 22}
            axes.annotate("", place, places[other], arrowprops=arrow)
    longest = max(step for step, _ in places.values())
    axes.set(xlim=(0.5, 6.5), ylim=(-1.5, 0.5), xticks=range(1, 7), yticks=[])
    axes.spines["left"].set_visible(False)
    return f"{len(of)} products, {longest} in sequence"


# %%
figure, all_axes = plt.subplots(2, 1, figsize=(7.4, 3.8), sharex=True)
found = {}
for axes, (kind, of), first in zip(all_axes, needs.items(), ("q k v", "q k v ff"), strict=True):
    found[kind] = draw_steps(axes, of, first)
    axes.set_title(f"{kind}: {found[kind]}")
all_axes[1].set_xlabel("step")
style.show(
    figure,
    alt="Boxes for the products, at the step in which each can run. Sequential: "
    f"{found['sequential']}. Parallel: {found['parallel']}; the feed-forward's end runs in step "
    "2, beside attention.",
)

# %% [markdown]
# Six in sequence have become four: nothing of the feed-forward waits for attention any more.
# And x is normed once instead of twice.
# A machine gains from the shorter chain only if it has room for two products at a time.
# PaLM's authors report training about 15 % faster at large sizes, and name the fused product as
# the reason; quality suffered a little at 8 billion parameters, and not at 62 billion.

# %% [markdown]
# ## What is lost
#
# The parallel feed-forward has not seen what attention brings in this block.
# To measure it, change one token of six, and see where the feed-forward's half changes.
# The third table sends x and the block's output through the same block once more.
# More colour is a larger change; each table has its own scale.


# %%
@torch.no_grad()
def reach(function, x):
    """How much changing token j changes row i of function(x): (n, n)."""
    columns = []
    for j in range(x.shape[1]):
        changed = x.clone()
        changed[0, j] += torch.randn(x.shape[-1], generator=torch.Generator().manual_seed(j))
        columns.append((function(changed) - function(x))[0].norm(dim=-1))  # (n,)
    return torch.stack(columns, dim=1)


# %%
tables = {
    "sequential": reach(lambda x: sequential.halves(x)[1], x),
    "parallel": reach(lambda x: parallel.halves(x)[1], x),
    "parallel, next block": reach(lambda x: parallel.halves(x + parallel(x))[1], x),
}
figure, all_axes = plt.subplots(1, 3, figsize=(7.4, 2.9), sharey=True)
for axes, (title, table) in zip(all_axes, tables.items(), strict=True):
    axes.imshow(table, vmin=0)
    axes.set(title=title, xlabel="changed token", xticks=range(6), yticks=range(6))
    axes.title.set(fontsize=11)
all_axes[0].set_ylabel("token of the\nfeed-forward's half")
style.show(
    figure,
    alt="Three tables of six by six. Sequential: the diagonal and everything below it. Parallel: "
    "the diagonal alone. Parallel, one block further up: the diagonal and below it again.",
)

# %%
off_diagonal = ~torch.eye(6, dtype=torch.bool)
for title, table in tables.items():
    print(f"{title}: largest change from another token {table[off_diagonal].max():.2f}")

# %% [markdown]
# In one parallel block the feed-forward knows its own token and no other.
# It learns of the others one block later, when attention's half has become part of x.
# So in a stack only the first feed-forward sees nothing of other tokens, and only what the last
# attention brings is seen by no feed-forward.

# %% [markdown]
# ## Neurons that fire
#
# The small model is made of parallel blocks, so this must show in it.
# In its first block the gated features can depend on nothing but the token itself.
#
# `ff_out` of a block is a little stack: SwiGLU, a *dropout* (it deletes some numbers in training,
# and does nothing here), and the last matrix.
# A *hook*, a function that PyTorch calls with a module's output, hands us what leaves SwiGLU: one
# number for each token and inner feature.


# %%
@torch.no_grad()
def gated_features(text):
    """The pieces of a text, and its gated features: (n, depth, inner)."""
    ids, heard = tokenizer.encode(text), []
    hooks = [
        block.ff_out[0].register_forward_hook(lambda module, given, out: heard.append(out[0]))
        for block in model.blocks
    ]
    model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return tokenizer.pieces(ids), torch.stack(heard, dim=1)


pieces, features = gated_features(code)
print(features.shape)

# %% [markdown]
# Take all tokens that occur more than once. Of the whole variance of a layer's features, how much
# is left among the copies of one token?


# %%
def within_copies(pieces, features):
    """For each layer, the share of the variance between copies of the same token: (depth,)."""
    repeated = [piece for piece in sorted(set(pieces)) if pieces.count(piece) > 1]
    groups = [features[[other == piece for other in pieces]] for piece in repeated]
    spread = sum((group - group.mean(dim=0)).square().sum(dim=(0, 2)) for group in groups)
    whole = torch.cat(groups)
    return spread / (whole - whole.mean(dim=0)).square().sum(dim=(0, 2))


# %%
shares = within_copies(pieces, features)
figure, axes = plt.subplots(figsize=(6.4, 2.8))
bars = axes.bar(range(len(shares)), 100 * shares, color=style.OUTPUT)
axes.bar_label(bars, fmt="%.0f %%")
axes.set(xlabel="layer", ylabel="% of the variance", ylim=(0, 110))
axes.set_title("how much the feed-forward's features\ndiffer between copies of one token")
listed = ", ".join(f"{share:.0%}" for share in shares)
style.show(figure, alt=f"Bars, one for each layer, of the variance between copies: {listed}.")

# %% [markdown]
# In layer 0 it is 0: a bracket is a bracket, wherever it stands.
# Further up the same token gives other features in other places, since attention has by then
# brought news from other tokens.
#
# An inner feature is also called a **neuron**, and it *fires* when its number is large.
# What do single neurons respond to?
# Describe each token by a yes or no, and look for the neuron that follows the answer most
# closely.
# The *correlation* measures that: 1 when both rise and fall in proportion, 0 when neither tells
# anything linear about the other, −1 when one falls in proportion as the other rises.


# %%
def descriptions(pieces):
    """For each description, yes or no for every token: (n,)."""
    depth, inside = 0, []
    for piece in pieces:
        inside.append(depth > 0)
        depth += sum(piece.count(sign) for sign in "([") - sum(piece.count(sign) for sign in ")]")
    return {
        "ends in an opening bracket": torch.tensor(
            [piece.endswith(("(", "[")) for piece in pieces]
        ),
        "has a line break": torch.tensor(["\n" in piece for piece in pieces]),
        "stands inside brackets": torch.tensor(inside),
    }


# %%
def correlations(features, answer):
    """The correlation of every neuron with a yes or no: (depth, inner)."""
    answer = answer.float() - answer.float().mean()
    centred = features - features.mean(dim=0)  # (n, depth, inner)
    products = (centred * answer[:, None, None]).mean(dim=0)
    return products / (centred.square().mean(dim=0) * answer.square().mean() + 1e-12).sqrt()


# %% [markdown]
# With thousands of neurons and some eighty tokens one of them may fit by luck.
# So choose on one text, and measure on another.

# %%
other_code = '''class Stack:
    """A list used at one end."""

    def __init__(self, items=()):
        self.items = list(items)

    def pop(self):
        if not self.items:
            raise IndexError("empty")
        return self.items.pop()


def load(path, default=None):
    with open(path) as source:
        data = json.load(source)
    return data
'''
other_pieces, other_features = gated_features(other_code)

# %%
chosen = {}
for name, answer in descriptions(pieces).items():
    fit = correlations(features, answer)
    layer, neuron = chosen[name] = divmod(fit.abs().argmax().item(), fit.shape[1])
    elsewhere = correlations(other_features, descriptions(other_pieces)[name])
    print(f"{name}: layer {layer}, neuron {neuron}", end="   ")
    print(f"correlation {fit[layer, neuron]:.2f}, on the other text {elsewhere[layer, neuron]:.2f}")

# %% [markdown]
# A neuron for a token, or a kind of token, is easily found and keeps its word on the other text.
# For *standing inside brackets*, which no token shows by itself, the best of them all fits less
# well, and less still elsewhere.
# Perhaps the model does not know it; perhaps many neurons share it. Looking at one cannot tell.
#
# Here they are on the other text: the more colour, the larger the number, whatever its sign.
# The first colours `("` a little as well: it opens a bracket, but does not end in it.


# %%
def draw_text(axes, pieces, amounts):
    """Write a text, each token on a ground as dark as its amount."""
    row = column = 0
    shades = plt.get_cmap(style.MAP)
    for piece, amount in zip(pieces, amounts / amounts.max(), strict=True):
        shown = piece.replace("\n", "⏎", 1).replace("\n", "") if "\n" in piece else piece
        word = shown.replace(" ", "") or " "
        column += len(shown) - len(shown.lstrip(" ")) if "\n" not in piece else 0
        ink = "white" if amount > 0.55 else "black"
        box = {"boxstyle": "square,pad=0.1", "fc": shades(float(amount)), "ec": "none"}
        axes.text(column, -row, word, family="monospace", fontsize=10, color=ink, bbox=box)
        column += len(word)
        if "\n" in piece:
            row, column = row + 1, len(piece) - len(piece.rstrip(" "))
    axes.set(xlim=(0, 44), ylim=(-row - 0.8, 0.8))
    axes.set_axis_off()


# %%
some = other_pieces.index("raise") + 8  # as many tokens as fit
figure, all_axes = plt.subplots(3, 1, figsize=(4.6, 7))
for axes, (name, (layer, neuron)) in zip(all_axes, chosen.items(), strict=True):
    amounts = other_features[:some, layer, neuron].abs()
    draw_text(axes, other_pieces[:some], amounts)
    axes.set_title(f"{name}: layer {layer}, neuron {neuron}", fontsize=11)
style.show(
    figure,
    alt="A class of Python code three times, each token on a ground whose colour is the amount of "
    "one neuron: the first on opening brackets, the second mostly on line breaks, the third in "
    "many places.",
)

# %% [markdown]
# ## The block at work
#
# This view follows the first text, `code`, through one block of the small model.
# It shows the shape and the range of the numbers on every wire.
# Click on a part, or walk with the arrow keys.
# On the first two wires you see layer norm: numbers from −34 to 15 come in, −5 to 3 go on.
# The grey part of the bar is the fourth slice; follow it past attention to SwiGLU and the sum.

# %%
x_of_block = states[2][None]  # what block 2 takes: (1, n, dim)
block_view(model.blocks[2], x_of_block, tokens=pieces)

# %% [markdown]
# ## The proof
#
# Three things are to be proved: layer norm, the gate, and the whole block.
# The package's block gets its rotation without the decay of lesson 05, and no qk norm; then its
# weights are copied into ours.
# Outputs are compared, and the gradients with respect to the input and every weight.


# %%
def results(function, weights, inputs):
    """The output of a function, and its gradients."""
    output = function(inputs)
    # The sine gives each entry of the output a gradient of its own.
    return [output, *torch.autograd.grad(output.sin().sum(), [inputs, *weights])]


def double(*shape):
    return torch.randn(shape, dtype=torch.double, requires_grad=True)


# %% tags=["proof"]
from zeta_edu import TransformerBlock
from zeta_edu.feedforward import SwiGLU
from zeta_edu.norm import LayerNorm

cases = []  # (ours, theirs, inputs), each of the two a function and its weights
for *shape, d in ((3, 4), (2, 5, 7), (1, 1, 64)):
    norm, gamma = LayerNorm(d).double(), double(d)
    norm.gamma.data.copy_(gamma.data)
    ours = (lambda x, gamma=gamma: layer_norm(x, gamma)), [gamma]
    cases.append((ours, (norm, [norm.gamma]), double(*shape, d)))
    cases.append(((swiglu, []), (SwiGLU(), []), double(*shape, 2 * d)))
for h, kv, d, mult, causal in ((1, 1, 2, 1, True), (4, 1, 8, 3, True), (6, 2, 4, 2, False)):
    options = {"causal": causal, "heads": h, "kv_heads": kv, "ff_mult": mult, "use_xpos": False}
    block = TransformerBlock(12, dim_head=d, **options).double()
    mine = ParallelBlock(12, h, kv, d, 12 * mult, causal).double()
    block.norm.gamma.data.normal_()
    linear = (block.fused_attn_ff_proj, block.attn_out, block.ff_out[2])
    theirs = [block.norm.gamma, *(layer.weight for layer in linear)]
    for own, given in zip(mine.parameters(), theirs, strict=True):
        own.data.copy_(given.data)
    cases.append(((mine, list(mine.parameters())), (block, theirs), double(2, 7, 12)))
largest = 0.0
for ours, theirs, inputs in cases:
    for own, given in zip(results(*ours, inputs), results(*theirs, inputs), strict=True):
        torch.testing.assert_close(own, given, rtol=1e-11, atol=1e-11)
        largest = max(largest, (own - given).abs().max().item())
print("largest error below 1e-11:", largest < 1e-11)

# %% [markdown]
# What you built is the package's block, as far as this lesson goes.
# The decay of lesson 05 and the norm of lesson 06 were switched off; lesson 11 proves all of them
# together.

# %% [markdown]
# ## What goes wrong: gate and value swapped
#
# Which half is the gate is a convention: in the equation of SwiGLU's paper the gate comes first.
# Weights that were trained under one convention load into the other without an error: all names
# and all shapes fit.

# %%
swapped, _ = load_pretrained("python-small")
weights = swapped.state_dict()
for name, weight in weights.items():
    if name.endswith("fused_attn_ff_proj.weight"):
        rows = first_block.fused_dims[3]
        value, gate = weight[-rows:].clone().chunk(2)
        weight[-rows:] = torch.cat((gate, value))
swapped.load_state_dict(weights)

# %% [markdown]
# The *loss* is minus the logarithm of the probability that a model gives to the token that really
# comes next, averaged over the text.
# A model that knows nothing gives each of its 2048 tokens the same, and gets ln 2048 = 7.62.


# %%
@torch.no_grad()
def loss(logits):
    return F.cross_entropy(logits[0, :-1], ids[0, 1:]).item()


with torch.no_grad():
    losses = {"right": loss(model(ids)), "swapped": loss(swapped(ids))}
losses["knows nothing"] = math.log(len(model.embedding.weight))
print(*(f"{name}: {amount:.2f}" for name, amount in losses.items()), sep="   ")

# %%
figure, axes = plt.subplots(figsize=(6.4, 2.2))
bars = axes.barh(list(losses), list(losses.values()), color=[style.QUERY, style.KEY, style.MASK])
axes.bar_label(bars, fmt="%.2f", padding=4)
axes.invert_yaxis()
axes.set(xlabel="loss on the code above", xlim=(0, 1.2 * max(losses.values())))
style.show(figure, alt="Bars of the loss: " + ", ".join(f"{n} {a:.1f}" for n, a in losses.items()))

# %% [markdown]
# Let both write on, always taking the likeliest token.

# %%
prompt = "def main("
for name, one in (("right", model), ("swapped", swapped)):
    print(name, repr(one.generate(prompt, max_new_tokens=16, temperature=0)))

# %% [markdown]
# No error, no NaN, only nonsense.
# So after loading weights from elsewhere look at the loss on a text of the kind they were trained
# on: here it more than doubles.
# The cure is exact: swap the two halves of the rows back.
# Trained from the start, either convention would do: before training all rows are drawn alike, and
# only training fits each half to its part.

# %% [markdown]
# ## What goes wrong: the norm over the wrong axis
#
# Take the mean over the tokens instead of the features, and again nothing complains.


# %%
def norm_over_tokens(x, gamma, eps=1e-5):
    centred = x - x.mean(dim=-2, keepdim=True)
    return gamma * centred / (centred.square().mean(dim=-2, keepdim=True) + eps).sqrt()


broken = copy.deepcopy(parallel)
broken.norm = norm_over_tokens
tables = {"over features": reach(parallel, x), "over tokens": reach(broken, x)}

# %%
figure, all_axes = plt.subplots(1, 2, figsize=(6.4, 3), sharey=True)
for axes, (title, table) in zip(all_axes, tables.items(), strict=True):
    axes.imshow(table, vmin=0)
    axes.set(title=title, xlabel="changed token", xticks=range(6), yticks=range(6))
all_axes[0].set_ylabel("token of the output")
style.show(
    figure,
    alt="Two tables of six by six. Normed over features, a token changes itself and later ones. "
    "Normed over tokens, every token changes every other, earlier ones too.",
)

# %%
later = torch.ones(6, 6, dtype=torch.bool).triu(diagonal=1)
for title, table in tables.items():
    print(f"{title}: largest change from a later token {table[later].max():.2f}")
print("a token alone:", norm_over_tokens(x[:, :1], torch.ones(dim)).abs().max().item())

# %% [markdown]
# The causal mask is in place, and yet earlier tokens change with later ones: mean and
# variance have carried the future past the mask.
# In training such a model could peek at the very tokens that it is to guess; and a text that is
# being written has none to peek at.
# And in a text of one token, as when writing begins, the token is its own mean: nothing of it is
# left.

# %% [markdown]
# ## What goes wrong: the residual twice
#
# The block here gives the two halves without x, and the model adds it.
# Some libraries put `x +` inside the block. Mix the two habits, and x is added twice.
# (Behind the last block the model has one more layer norm, and a product with the embedding that
# gives the logits, here a number for each token that may come next.)

# %%
twice = stream(lambda x, block: x + (x + block(x)))
print("once: ", *(f"{size:6.1f}" for size in rms(states).mean(dim=-1)))
print("twice:", *(f"{size:6.1f}" for size in rms(twice).mean(dim=-1)))

# %%
with torch.no_grad():
    for name, last in (("once ", states[-1]), ("twice", twice[-1])):
        logits = model.norm(last[None]) @ model.embedding.weight.T
        print(f"{name} loss {loss(logits):.2f}")

# %% [markdown]
# What was there is doubled by each block, so that what a block adds weighs less and less.
# Layer norm takes any size, so nothing fails; the sizes tell, and the loss.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. The norm without the mean
#
# Difficulty ★☆☆, 5 minutes.
# *RMSNorm* leaves the mean alone and divides by the rms only.
# Return $\gamma_i \, x_i / \sqrt{\tfrac{1}{d} \sum_j x_j^2 + \varepsilon}$ for x (..., d) and
# gamma (d,), with ε = 1e-5.


# %% tags=["exercise"]
def rms_norm(x, gamma):
    return ...


check("feedforward.rms", rms_norm)

# %%
hint("feedforward.rms")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def rms_norm(x, gamma):
#     return gamma * x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
# ```
#
# </details>

# %% [markdown]
# ### 2. The slope of silu
#
# Difficulty ★★☆, 10 minutes.
# Return the derivative of silu at every entry of z (...), without autograd.
# With the sigmoid $s(z) = 1 / (1 + e^{-z})$, silu is $z \, s(z)$, and the slope of the sigmoid is
# $s(z) \, (1 - s(z))$.


# %% tags=["exercise"]
def silu_slope(z):
    return ...


check("feedforward.slope", silu_slope)

# %%
hint("feedforward.slope")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# By the product rule, $\operatorname{silu}'(z) = s(z) + z \, s(z) \, (1 - s(z))$.
#
# ```python
# def silu_slope(z):
#     s = z.sigmoid()
#     return s + z * s * (1 - s)
# ```
#
# It is 0 where $1 + z \, (1 - s(z)) = 0$, at z = −1.278: the dip in the picture.
#
# </details>

# %% [markdown]
# ### 3. From the fused row to the feed-forward's half
#
# Difficulty ★★☆, 10 minutes.
# `projected` (..., q + k + v + 2 · inner) is the result of the fused product: queries, keys,
# values, then the values and the gates of the feed-forward.
# How wide queries, keys and values are you need not know.
# `ff_out` (dim, inner) is the matrix at its end.
# Return what the feed-forward adds, (..., dim). You may use `torch.nn.functional.silu`.


# %% tags=["exercise"]
def ff_half(projected, ff_out):
    return ...


check("feedforward.half", ff_half)

# %%
hint("feedforward.half")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
# def ff_half(projected, ff_out):
#     inner = ff_out.shape[-1]
#     value, gate = projected[..., -2 * inner :].chunk(2, dim=-1)
#     return (torch.nn.functional.silu(gate) * value) @ ff_out.T
# ```
#
# </details>

# %% [markdown]
# ### 4. One product less at the end too
#
# Difficulty ★★★, 15 minutes.
# The block ends with two products and a sum: `mixed @ out.T + gated @ ff_out.T`.
# Write it as *one* product of two matrices that you put together from these four.
# The shapes are mixed (..., a), gated (..., b), out (dim, a), ff_out (dim, b), result (..., dim).


# %% tags=["exercise"]
def both_halves(mixed, gated, out, ff_out):
    return ...


check("feedforward.ends", both_halves)

# %%
hint("feedforward.ends")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# A dot product of two long rows is the sum of the dot products of their parts, so put the parts
# side by side on both sides.
#
# ```python
# import torch
#
# def both_halves(mixed, gated, out, ff_out):
#     return torch.cat((mixed, gated), dim=-1) @ torch.cat((out, ff_out), dim=-1).T
# ```
#
# With this the block takes four products instead of five. But now the feed-forward's end has to
# wait for attention.
#
# </details>

# %% [markdown]
# ## What you have now
#
# Layer norm brings every token's vector to one size, and takes off its mean; the gain is learned,
# and there is no bias.
# SwiGLU multiplies values by the silu of gates; the first half is the value.
# One matrix serves queries, keys, values and feed-forward, since a row does not care where it
# stands.
# The parallel block takes five products instead of six, and four in sequence instead of six.
# What it gives up is that a feed-forward sees the attention of its own block.
#
# **References.**
# Layer norm: Ba, Kiros and Hinton 2016, [arXiv:1607.06450](https://arxiv.org/abs/1607.06450),
# equations 3 and 4.
# SwiGLU, and that there is no explanation: Shazeer 2020,
# [arXiv:2002.05202](https://arxiv.org/abs/2002.05202), equation 5 and section 4.
# Swish: Ramachandran, Zoph and Le 2017, [arXiv:1710.05941](https://arxiv.org/abs/1710.05941).
# The parallel block, no biases, and what both brought: Chowdhery et al. 2022 (PaLM),
# [arXiv:2204.02311](https://arxiv.org/abs/2204.02311), section 2; it credits the parallel form to
# Wang and Komatsuzaki 2021 (GPT-J).
# The sequential block: Vaswani et al. 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762),
# section 3; there the norm stood after the sum.
# RMSNorm: Zhang and Sennrich 2019, [arXiv:1910.07467](https://arxiv.org/abs/1910.07467).
#
# **Next.** What a block computes is now complete, but its attention writes down a table of every
# query with every key.
# [Lesson 08](08-flash-attention.ipynb), flash attention, does without the table.
