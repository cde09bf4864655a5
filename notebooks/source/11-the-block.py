# %% [markdown]
# # 11 · The block
#
# Ten lessons have built the parts of a block, and proved each of them alone.
# But parts that are right can be put together wrongly, and often nothing complains.
# **Do the parts that you built, all together, make the block, whatever options are chosen?**
#
# In this lesson you gather them into one module of some sixty lines.
# You prove that it is `zeta_edu.TransformerBlock` for every combination of its switches: outputs,
# gradients, cache and LoRA.
# Then you read the package's own file, line by line, and run a trained model on your block.
#
# It takes about 50 minutes to read and 25 seconds to run.
# You need all lessons before this one; each part says which.

# %%
import inspect
import itertools
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from ipywidgets import SelectionSlider, interact
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import block_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("block",))

# %% [markdown]
# This time the frame itself is lit.
# We walk along the wires of the map, from the x at the left to the sum at the right, and note the
# shape of what flows.
#
# What flows is a line of eight tokens, each a vector of 32 numbers, drawn at random.
# There are 4 query heads of 8 numbers, which share 2 heads of keys and values.

# %%
line = "for x in range ( 3 ) :"
tokens = line.split()
dim, dim_head, heads, kv_heads, inner = 32, 8, 4, 2, 64
x = torch.randn(1, 8, dim)  # (batch, n, dim)

# %% [markdown]
# ## Norm, one product, four slices
#
# Layer norm (lesson 07) takes the mean off every vector, brings it to one size, and multiplies each
# feature by its gain γ.


# %%
def layer_norm(x, gamma, eps=1e-5):
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)  # (..., 1)
    return gamma * centred / (variance + eps).sqrt()


normed = layer_norm(x, torch.ones(dim))
print(tuple(normed.shape), "rms of the first token:", round(normed[0, 0].square().mean().item(), 3))

# %% [markdown]
# One matrix serves queries, keys, values and feed-forward (lesson 07).
# Its result is cut into four slices; the last holds a value and a gate for each inner feature.

# %%
sizes = (heads * dim_head, kv_heads * dim_head, kv_heads * dim_head, 2 * inner)
fused = torch.randn(sum(sizes), dim) / math.sqrt(dim)  # (192, 32)
q, k, v, ff = (normed @ fused.T).split(sizes, dim=-1)
print([tuple(part.shape) for part in (q, k, v, ff)])

# %% [markdown]
# By hand: 4 · 8 = 32 numbers for the queries, 2 · 8 = 16 for the keys and as many for the values,
# and 2 · 64 = 128 for the feed-forward.
#
# At three of the slices, and at the matrix out, LoRA may add an update (lesson 10): two thin
# matrices and a factor.
# It takes what the matrix beside it takes, at the slices the normed x.


# %%
class LowRank(nn.Module):
    """A thin update beside a matrix; B starts at 0, and so does the update."""

    def __init__(self, dim, dim_out, rank, alpha):
        super().__init__()
        self.A = nn.Parameter(torch.randn(dim, rank) / math.sqrt(dim))
        self.B = nn.Parameter(torch.zeros(rank, dim_out))
        self.scale = alpha / rank

    def forward(self, x):
        return (x @ self.A) @ self.B * self.scale


# %%
update = LowRank(dim, sizes[0], rank=2, alpha=4)
print(tuple(update(normed).shape), "all zero:", not update(normed).any())

# %% [markdown]
# ## Heads, length one, a place
#
# Now the slices become heads (lesson 02).


# %%
def split(x, heads):
    return rearrange(x, "b n (h d) -> b h n d", h=heads)


q, k, v = split(q, heads), split(k, kv_heads), split(v, kv_heads)
print([tuple(part.shape) for part in (q, k, v)])

# %% [markdown]
# With qk norm (lesson 06) every query and every key is brought to length 1, and each feature
# multiplied by a learned scale.
# `F.normalize` divides by the length, or by 10⁻¹² where the length is less.


# %%
def unit(x, scale):
    return F.normalize(x, dim=-1) * scale


print(f"length of a query: {unit(q, torch.ones(dim_head)).norm(dim=-1)[0, 0, 0]:.3f}")

# %% [markdown]
# Then queries and keys are turned, each pair by its angle for the position (lesson 04).
# With a cache the first new token stands behind those that came before, hence `start`.


# %%
def rotate(x, start=0):
    """Turn pair (i, i + d/2) of x (..., n, d) by position · 10000^(-2i/d)."""
    n, d = x.shape[-2:]
    speeds = 10_000.0 ** -(torch.arange(0, d, 2, dtype=torch.double) / d)  # (d/2,)
    angles = torch.arange(start, start + n)[:, None] * speeds  # (n, d/2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)  # (..., n, d/2) each
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


# %%
q, k = rotate(q), rotate(k)
print([tuple(part.shape) for part in (q, k)])

# %% [markdown]
# ## What came before
#
# Keys are kept after they are turned, and before they fade (lesson 09).
# This is the simplest cache. What it has kept is a constant for the gradient, as in the package.


# %%
class Cache:
    """Keys and values so far."""

    def __init__(self):
        self.length, self.kept = 0, None

    def extend(self, keys, values):
        new = torch.stack((keys, values))  # (2, b, kv, new, d)
        both = new if self.kept is None else torch.cat((self.kept, new), dim=-2)
        self.length, self.kept = both.shape[-2], both.detach()
        return both


# %% [markdown]
# With xPos (lesson 05) what pair *i* adds to a score fades by ζ to the power of (*m* − *n*) / *B*,
# where *m* and *n* are the positions of query and key, *B* is the scale base, and
# ζ = (2i/d + 0.4) / 1.4.
# Query and key share the factor, from an origin, here the first query.
# An infinite *B* makes every factor 1: that is how xPos is switched off.


# %%
def fade(q, k, scale_base):
    """Fade queries (..., new, d), the last positions of the keys (..., total, d)."""
    new, total, d = q.shape[-2], *k.shape[-2:]
    zetas = (torch.arange(0, d, 2, dtype=torch.double) / d + 0.4) / 1.4  # (d/2,)
    distances = torch.arange(new - total, new, dtype=torch.double)  # 0 at the first query
    factors = (zetas ** (distances[:, None] / scale_base)).repeat(1, 2)  # (total, d)
    return q * factors[-new:].to(q.dtype), k / factors.to(k.dtype)


faded = fade(q, k, scale_base=512)
print([tuple(part.shape) for part in faded])

# %% [markdown]
# ## Who sees whom
#
# A query sees a key that is not later, if the block is causal, and not padding (lesson 03).
# `tril(total - new)` keeps what lies on or below a diagonal that starts as many columns to the
# right, so the last query sees the last key.


# %%
def visible(new, total, causal, keep=None):
    """Which new token sees which key; `keep` (b, total) is True where a key is real."""
    sees = torch.ones(new, total, dtype=torch.bool)
    sees = sees.tril(total - new) if causal else sees
    return sees if keep is None else sees & keep[:, None, None]  # (b, 1, new, total)


visible(2, 5, causal=True).int()

# %% [markdown]
# The mix is softmax and a weighted sum (lesson 01); a query that sees nothing gets zeros
# (lesson 03).
# Here `q` is scaled already, and there is a head of keys for each head of queries.


# %%
def mix(q, k, v, sees):
    sees_some = sees.any(dim=-1, keepdim=True)
    scores = (q @ k.mT).masked_fill(~sees & sees_some, -math.inf)  # (b, h, new, total)
    return scores.softmax(dim=-1).masked_fill(~sees_some, 0.0) @ v  # (b, h, new, d)


# %% [markdown]
# Flash attention is the same mix, a tile of keys at a time (lesson 08).
# The running maximum starts at the lowest finite number instead of −∞, so that a row with nothing
# to see never meets −∞ − (−∞).
# Its total stays 0, and 0 is divided by 1.


# %%
def mix_in_tiles(q, k, v, sees, size=3):
    lowest = torch.finfo(q.dtype).min
    maximum, total, mixed = torch.full_like(q[..., :1].detach(), lowest), 0.0, 0.0
    for start in range(0, k.shape[-2], size):
        tile = slice(start, start + size)
        scores = (q @ k[..., tile, :].mT).masked_fill(~sees[..., tile], -math.inf)
        grown = torch.maximum(maximum, scores.detach().amax(dim=-1, keepdim=True))
        rescale, powers = (maximum - grown).exp(), (scores - grown).exp()
        total = total * rescale + powers.sum(dim=-1, keepdim=True)
        mixed = mixed * rescale + powers @ v[..., tile, :]
        maximum = grown
    return mixed / total.masked_fill(total == 0, 1.0)


# %% [markdown]
# (`detach` says that the maximum needs no gradient: whatever is subtracted, the result stays.)
#
# Both mixes on the line of tokens, where each key head serves two query heads.
# The first token is taken for padding, so the first query sees nothing.

# %%
sees = visible(8, 8, causal=True, keep=torch.arange(8)[None] > 0)
many_k, many_v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))  # (1, 4, 8, 8)
mixed, tiled = (f(q / math.sqrt(dim_head), many_k, many_v, sees) for f in (mix, mix_in_tiles))
print("the same:", torch.allclose(mixed, tiled, atol=1e-6), tuple(mixed.shape))
print("the first query gets zeros:", not mixed[:, :, 0].any())

# %% [markdown]
# Last the feed-forward half: values times the silu of their gates (lesson 07).


# %%
def swiglu(x):
    value, gate = x.chunk(2, dim=-1)  # (..., inner) each
    return value * gate / (1 + torch.exp(-gate))


swiglu(torch.tensor([2.0, 3.0, 6.0, -6.0]))  # values 2 and 3, gates 6 and -6

# %% [markdown]
# The same 11.97 and nearly 0 as in lesson 07.
# These are all the parts.

# %% [markdown]
# ## Assembled
#
# First the weights, and what the options decide.
# The options have the names and the defaults of the package's.
# (A matrix starts random, scaled to keep the numbers at about their size.)


# %%
def weight(rows, columns):
    return nn.Parameter(torch.randn(rows, columns) / math.sqrt(columns))


# %%
class Weights(nn.Module):
    def __init__(
        self,
        dim,
        dim_head=64,
        causal=True,
        heads=8,
        qk_rmsnorm=False,
        qk_scale=8,
        ff_mult=4,
        use_xpos=True,
        xpos_scale_base=512,
        flash_attn=False,
        kv_heads=1,
    ):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.causal, self.qk_rmsnorm = causal, qk_rmsnorm
        self.scale = qk_scale if qk_rmsnorm else dim_head**-0.5
        self.scale_base = xpos_scale_base if use_xpos and causal else math.inf
        self.mix = mix_in_tiles if flash_attn else mix
        inner, key_rows = dim * ff_mult, kv_heads * dim_head
        self.sizes = (heads * dim_head, key_rows, key_rows, 2 * inner)
        self.gamma = nn.Parameter(torch.ones(dim))
        self.fused, self.out = weight(sum(self.sizes), dim), weight(dim, heads * dim_head)
        self.ff_out = weight(dim, inner)
        if qk_rmsnorm:
            self.q_scale, self.k_scale = (nn.Parameter(torch.ones(dim_head)) for _ in "qk")
        self.tuned = nn.ModuleDict()  # LoRA, at "q", "k", "v" or "o"


# %% [markdown]
# Two decisions are hidden in it.
# With qk norm the factor of the scores is `qk_scale`, and 1/√d otherwise.
# And there is xPos only where the block is causal: towards later keys a score would grow.
#
# Then the steps that take more than a line.
# Each is a method, so that another can take its place when we break something.


# %%
class Steps(Weights):
    def tune(self, name, made, given):
        """What a matrix has made of what it was given, and LoRA's update."""
        return made + self.tuned[name](given) if name in self.tuned else made

    def place(self, q, k, past):
        if self.qk_rmsnorm:
            q, k = unit(q, self.q_scale), unit(k, self.k_scale)
        return rotate(q, past), rotate(k, past)

    def attend(self, q, k, v, keep):
        sees = visible(q.shape[-2], k.shape[-2], self.causal, keep)
        q, k = fade(q, k, self.scale_base)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        return rearrange(self.mix(q * self.scale, k, v, sees), "b h n d -> b n (h d)")


# %% [markdown]
# What is left is the map, read from left to right.


# %%
class Block(Steps):
    def forward(self, x, keep=None, cache=None):
        """What the block adds to x (b, n, dim); `keep` (b, past + n) is False for padding."""
        normed = layer_norm(x, self.gamma)
        *qkv, ff = (normed @ self.fused.T).split(self.sizes, dim=-1)
        q, k, v = (self.tune(*named, normed) for named in zip("qkv", qkv, strict=True))
        q, k, v = split(q, self.heads), split(k, self.kv_heads), split(v, self.kv_heads)
        q, k = self.place(q, k, 0 if cache is None else cache.length)
        if cache is not None:
            k, v = cache.extend(k, v)
        merged = self.attend(q, k, v, keep)  # (b, n, heads · d)
        attention = self.tune("o", merged @ self.out.T, merged)
        return attention + swiglu(ff) @ self.ff_out.T


# %%
block = Block(dim, dim_head, heads=heads, kv_heads=kv_heads, ff_mult=2)
print(tuple(block(x).shape))

# %% [markdown]
# The residual is not in it: a model adds x itself, `x + block(x)`, as in lesson 07.

# %% [markdown]
# ## What each switch does
#
# Two blocks with the same weights, one with a switch turned: how much does the output change?
# The change is given as a share of the output's size, over a longer text of 200 tokens.


# %%
def twin(block, changed):
    """A block with the same weights and one option changed."""
    options = {"dim": dim, "dim_head": dim_head, "heads": heads, "kv_heads": kv_heads}
    other = Block(**options | {"ff_mult": 2} | changed)
    other.load_state_dict(block.state_dict(), strict=False)
    return other


# %%
switches = {"causal": False, "use_xpos": False, "xpos_scale_base": 64, "qk_rmsnorm": True}
switches |= {"flash_attn": True}
long = torch.randn(1, 200, dim)

# %%
changes = {}
with torch.no_grad():
    plain = block(long)
    for name, setting in switches.items():
        changed = twin(block, {name: setting})(long) - plain
        changes[f"{name}={setting}"] = (changed.norm() / plain.norm()).item()
        print(f"{name}={setting}: {changes[f'{name}={setting}']:.2f}")

# %%
figure, axes = plt.subplots(figsize=(6.6, 2.4))
axes.barh(list(changes), list(changes.values()), color=style.OUTPUT)
axes.invert_yaxis()
axes.set(xlabel="change of the output, as a share of its size")
style.show(
    figure,
    alt="Bars of how much each switch changes the output: "
    + ", ".join(f"{name} {share:.2f}" for name, share in changes.items()),
)

# %% [markdown]
# All switches but one change what is computed.
# `flash_attn` changes how it is computed, and the bar is empty.
# xPos does little here: with a scale base of 512, two hundred tokens are a short way.
# A comparison of outputs that allows a few percent would miss it; ours will allow an error of 10⁻⁹.

# %% [markdown]
# ## What it weighs, and what it does
#
# Here is a block of a common size: 512 features, 8 heads of 64, one key/value head, four times as
# many inner features.
# Where are its weights?


# %%
def count_weights(block):
    """The numbers of a block by part."""
    q, k, v, ff = (rows * len(block.gamma) for rows in block.sizes)
    parts = {"queries": q, "keys": k, "values": v, "out": block.out.numel()}
    return parts | {"ff in": ff, "ff out": block.ff_out.numel(), "gain": len(block.gamma)}


# %%
large = Block(512)
weights = count_weights(large)
for name, count in weights.items():
    print(f"{name:7} {count:9,}")
print("that is all:", sum(weights.values()) == sum(p.numel() for p in large.parameters()))

# %% [markdown]
# By hand: the feed-forward has 2 · 2048 rows of 512 on its way in, which makes 2,097,152, and half
# as many on its way out.
# All parts together, the gain of layer norm included, have 3,736,064.
#
# And the work? Each weight of a matrix meets each token once.
# A query and a key cost *d* multiplications for the score, and *d* for the mix, in every head
# (lesson 09).
# What is hidden by a mask is computed as well.


# %%
def count_work(block, n):
    """Multiplications by part for a text of n tokens."""
    work = {name: n * count for name, count in count_weights(block).items() if name != "gain"}
    pairs = n * n * block.sizes[0]  # heads · d
    return work | {"scores": pairs, "mix": pairs}


# %%
with torch.no_grad(), FlopCounterMode(display=False) as counter:
    large(torch.randn(1, 100, 512))
print("as counted:", sum(count_work(large, 100).values()) == counter.get_total_flops() // 2)

# %% [markdown]
# PyTorch's counter sees every product of matrices, and counts multiplications and additions apart;
# hence the half.
#
# Choose the number of key/value heads and the length of the text.
# (In a page without a running Python you see one key/value head and 2048 tokens only.)

# %%
COLOURS = {"queries": style.QUERY, "keys": style.KEY, "values": style.VALUE, "out": style.MASK}
COLOURS |= {"scores": "#9FC9E4", "mix": "#9CD5C3", "ff in": style.OUTPUT, "ff out": "#DDAFC9"}


def draw_shares(axes, title, counts):
    """One bar of the parts, side by side."""
    start, total = 0.0, sum(counts.values())
    for name in COLOURS:
        share = counts.get(name, 0) / total
        axes.barh(title, share, left=start, color=COLOURS[name], label=name)
        if share > 0.05:
            ink = "black" if name in ("scores", "mix", "ff out") else "white"
            axes.text(start + share / 2, title, f"{share:.0%}", ha="center", va="center", color=ink)
        start += share


# %%
def draw_cost(kv_heads, n):
    cost = Block(512, kv_heads=kv_heads)
    figure, axes = plt.subplots(figsize=(7.4, 2.7))
    for title, counts in (("work", count_work(cost, n)), ("weights", count_weights(cost))):
        draw_shares(axes, title, counts)
    handles, names = axes.get_legend_handles_labels()
    once = handles[: len(COLOURS)], names[: len(COLOURS)]
    axes.legend(*once, ncols=4, loc="lower left", bbox_to_anchor=(0, 0.98), fontsize=10)
    axes.set(xlim=(0, 1), xticks=[])
    axes.spines[:].set_visible(False)
    scores = 2 * count_work(cost, n)["scores"] / sum(count_work(cost, n).values())
    style.show(
        figure,
        alt=f"The shares of the parts for {kv_heads} key/value heads and {n} tokens: scores and "
        f"mix are {scores:.0%} of the work, and have no weights.",
    )


# %%
choices = [SelectionSlider(options=(1, 2, 4, 8), continuous_update=False)]
lengths = (128, 512, 2048, 8192, 32768)
choices += [SelectionSlider(options=lengths, value=2048, continuous_update=False)]
_ = interact(draw_cost, kv_heads=choices[0], n=choices[1])

# %% [markdown]
# Most weights belong to the feed-forward, and at 2048 tokens more than half of the work.
# Scores and mix have no weights at all, but their share grows with the length.
# They catch up with the rest when 2 · *n* · 512 is as much as the 3,735,552 weights of the
# matrices: at 3,648 tokens.
#
# Eight key/value heads instead of one add an eighth of the weights, but make the cache eight times
# as large.

# %% [markdown]
# ## The proof
#
# Every part was proved in its own lesson. Now all of them together, for *every* combination of
# these choices: causal or not, qk norm, xPos, flash, 1, 2 or 4 key/value heads, LoRA, and padding.
# Other numbers, such as the scale base, change from one combination to the next.
#
# Weights are drawn at random, gains and scales and both factors of LoRA too: what starts at 1 or at
# 0 could hide a mistake, as we shall see.
# We compare a whole text of six tokens, and the same in calls of 4 and 2 through a cache.
# Without the causal mask there is one call, since a token that sees later ones must wait for them.


# %%
def in_calls(run, x, keep, cache, cuts):
    """The output for x (b, n, dim), computed from one cut to the next."""
    ends = itertools.pairwise([0, *cuts, x.shape[1]])
    calls = ((slice(*end), keep if keep is None else keep[:, : end[1]]) for end in ends)
    return torch.cat([run(x[:, call], kept, cache) for call, kept in calls], dim=1)


def results(run, cache_of, weights, x, keep, cuts):
    """Outputs, whole and in calls, with and without gradients, and the gradients, in one row."""
    whole, parts = run(x, keep, None), in_calls(run, x, keep, cache_of(), cuts)
    # Sine and cosine give each entry of the outputs a gradient of its own.
    slopes = torch.autograd.grad((whole.sin() + parts.cos()).sum(), [x, *weights])
    with torch.no_grad():
        quick = in_calls(run, x, keep, cache_of(), cuts)
    return torch.cat([found.flatten() for found in (whole, parts, quick, *slopes)])


# %% [markdown]
# The package takes LoRA modules when the block is made, or in one call.
# We try all four of them made in, and two of them given in the call.
#
# Two of its options have no counterpart here: `attn_dropout` and `ff_dropout`, which delete numbers
# by lot in training.
# They are on, at one half, and the block is in evaluation mode, where nothing may be deleted.

# %%
combinations = [
    dict(zip(("causal", "qk_rmsnorm", "use_xpos", "flash_attn", "kv_heads"), options, strict=True))
    for options in itertools.product(*[(True, False)] * 4, (1, 2, 4))
]
loras = ("", "qkvo", "qo")  # none, all made in, two in the call
cases = list(itertools.product(combinations, loras, (False, True)))  # the last: padding?
print(len(combinations), "blocks,", len(cases), "cases")

# %% tags=["proof"]
from zeta_edu import LoRA, TransformerBlock


def pair(number, options, tuned):
    """Our block and the package's, with the same random weights, and how to run each."""
    sizes = {"dim": 8, "dim_head": 4, "heads": 4, "ff_mult": 1 + number % 2, **options}
    sizes |= {"xpos_scale_base": (0.3, 4.0, 512)[number % 3], "qk_scale": (8, 0.7)[number % 2]}
    mine = Block(**sizes).double()
    rows = dict(zip("qkvo", (*mine.sizes[:3], 8), strict=True))
    loras = {name: LoRA(16 if name == "o" else 8, rows[name], 2, 3.0).double() for name in tuned}
    given = [loras.get(name) for name in "qkvo"]
    made_in = given if len(tuned) == 4 else None
    dropping = {"attn_dropout": 0.5, "ff_dropout": 0.5}
    theirs = TransformerBlock(**sizes, **dropping, finetune_modules=made_in).double().eval()
    scales = [theirs.q_scale, theirs.k_scale] if options["qk_rmsnorm"] else []
    matrices = (theirs.fused_attn_ff_proj, theirs.attn_out, theirs.ff_out[2])
    copied = [theirs.norm.gamma, *(matrix.weight for matrix in matrices), *scales]
    for name, lora in loras.items():
        mine.tuned[name] = LowRank(*lora.A.shape[:1], *lora.B.shape[1:], 2, 3.0).double()
        copied += [lora.A, lora.B]
    for own, other in zip(mine.parameters(), copied, strict=True):
        own.data.copy_(other.data.normal_(std=0.5))
    in_call = given if len(tuned) == 2 else None

    def run(x, keep, cache):
        return theirs(x, keep, in_call, cache=cache)

    return (mine, Cache, list(mine.parameters())), (run, lambda: theirs.new_cache(2), copied)


# %% [markdown]
# One of the two texts is padded on the left, so that in a causal block its first query sees
# nothing; the other on the right.

# %% tags=["proof"]
keep = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]).bool()
largest = 0.0
for number, (options, tuned, padded) in enumerate(cases):
    drawn = torch.randn(2, 6, 8, dtype=torch.double, requires_grad=True)
    inputs = (drawn, keep if padded else None, (4,) if options["causal"] else ())
    ours, theirs = (results(*one, *inputs) for one in pair(number, options, tuned))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    whole, *calls = ours[: 3 * drawn.numel()].chunk(3)
    for parts in calls:  # with and without gradients
        torch.testing.assert_close(parts, whole, rtol=1e-9, atol=1e-9)
    largest = max(largest, (ours - theirs).abs().max().item())
print(len(cases), "cases, largest error below 1e-9:", largest < 1e-9)

# %% [markdown]
# Six tokens are few.
# The package takes the queries of a longer text in parts, and builds larger tables for it, so here
# are ten cases of 160 tokens, whole and in calls of 90, 69 and 1.

# %% tags=["proof"]
for number, options in enumerate(combinations[::5]):
    drawn = torch.randn(2, 160, 8, dtype=torch.double, requires_grad=True)
    inputs = (drawn, torch.rand(2, 160) > 0.3, (90, 159) if options["causal"] else ())
    ours, theirs = (results(*one, *inputs) for one in pair(3 * number + 1, options, "qkvo"))
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
print("long texts too")

# %% [markdown]
# So the answer is yes: what you built is the block, option by option.
# And since the calls equal the whole text in yours, they do in the package's.

# %% [markdown]
# ## The block as a diagram
#
# Here is the package's block with qk norm and LoRA, on our line of tokens, as a diagram.
# Each wire carries its shape and the range of its numbers.
# Click on a part or a wire, or walk with the arrow keys: the text tells what the part does, in
# which lesson it was built, and what numbers come out.
# Follow the wires in the order of this lesson: they have the shapes that we printed.

# %%
updates = [LoRA(dim, rows, rank=2, alpha=4) for rows in sizes[:3]]
updates += [LoRA(heads * dim_head, dim, rank=2, alpha=4)]
for lora in updates:
    nn.init.normal_(lora.B, std=0.1)
everything = {"qk_rmsnorm": True, "kv_heads": 2, "ff_mult": 2, "finetune_modules": updates}
full = TransformerBlock(dim, dim_head, heads=heads, **everything)
block_view(full, x, tokens=tokens)

# %% [markdown]
# ## The package's own file
#
# Now open `zeta_edu/block.py`.
# Python can show us the two methods that compute; comments are left out, and in front of each line
# stands the lesson that built what it does.


# %%
def code_of(function):
    """The lines of a method, without its docstring and comments."""
    body = inspect.getsource(function).split('"""')[-1]
    lines = [line[8:].split("  # ")[0] for line in body.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith("#")]


built_in = {"_check": "", "del ": "", "grad_enabled": "", "clone": ""}
built_in |= {"_project(": "07", "fused": "07", "ff_out(": "07", "tuned": "10", "finetune": "10"}
built_in |= {"qk_rmsnorm": "06", "l2_norm": "06", "attend(": "01 03 05 08"}
built_in |= {"rot": "04", "cat(": "04", "cache": "09", "return": "07"}
built_in |= {"unflatten": "02", "transpose": "02"}

# %%
for method in (TransformerBlock.forward, TransformerBlock._project):
    print(f"{'':12}{method.__name__}")
    for line in code_of(method):
        lesson = next(lesson for piece, lesson in built_in.items() if piece in line)
        print(f"{lesson:11} | {line}")

# %% [markdown]
# You have written nearly all of it.
# `self.norm` and `self.fused_attn_ff_proj` are `layer_norm` and the product with `fused`;
# `tuned.add` is `tune`, and `l2_normalise` is `unit`.
# The package's `mask` is your `keep`; its cache may be kept in another precision, hence `t.to`.
# `unflatten` cuts the features into heads and `transpose` puts heads before positions: your
# `rearrange` in two steps.
# `rotary_tables` makes cosines and sines once and keeps them (lesson 04); queries and keys are
# turned by them in one go, as `qk`.
# `self.attend` is `attend`: masks, xPos, and the mix, with or without flash.
# It takes many queries in parts, with an origin for each window (lesson 05).
# `self.ff_out` is SwiGLU, a dropout, and the last matrix.
#
# Four lines have no lesson.
# `_check` refuses what does not fit, such as a mask of the wrong shape, and names it.
# The other three are there to save memory, and so is the order: the feed-forward half stands
# *before* attention, though neither needs the other.

# %% [markdown]
# ## The same numbers in less memory
#
# Training keeps numbers of the forward pass until the backward pass has used them.
# PyTorch tells which, if asked: a *saved-tensor hook* sees each tensor that is kept.
# Tensors that are pieces of one memory are counted once, and weights not at all.


# %%
def kept_numbers(function, given, weights=()):
    """How many numbers wait for the backward pass."""
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        _output = function(given)  # as long as it is there, nothing is freed
    return sum(kept.values())


# %% [markdown]
# Start with SwiGLU, which takes 2 numbers for each inner feature and gives 1.

# %%
from zeta_edu.feedforward import SwiGLU


def with_silu(x):
    value, gate = x.chunk(2, dim=-1)
    return F.silu(gate) * value


pairs = torch.randn(100, 2 * 64, requires_grad=True)
gates = {"as a formula": swiglu, "with torch's silu": with_silu, "zeta_edu": SwiGLU()}
for name, function in gates.items():
    print(f"{name:17} {kept_numbers(function, pairs) / (100 * 64):.0f} for each inner feature")

# %% [markdown]
# Written as a formula, every step keeps what its derivative needs.
# PyTorch's silu keeps its input alone, which is there anyway; but the product needs silu's result.
# The package keeps only value and gate, and computes silu once more in the backward pass.
# That is the trick of lesson 08.
# It costs a few operations for each inner feature, beside the 3 · dim multiplications that the
# feature's weights take in the forward pass alone.
#
# Now whole blocks, with 256 features, on 256 tokens.
# The numbers are per token, in units of 256.

# %%
wide = torch.randn(1, 256, 256, requires_grad=True)
kept = {}
for flash in (False, True):
    for name, kind in (("yours", Block), ("zeta_edu", TransformerBlock)):
        one = kind(256, heads=4, flash_attn=flash)
        count = kept_numbers(one, wide, one.parameters())
        kept[f"{name}, {'flash' if flash else 'regular'}"] = count / 256 / 256

# %%
figure, axes = plt.subplots(figsize=(6.6, 2.3))
colours = (style.QUERY, style.OUTPUT) * 2
axes.bar_label(axes.barh(list(kept), list(kept.values()), color=colours), fmt="%.0f", padding=3)
axes.invert_yaxis()
axes.margins(x=0.1)
axes.set(xlabel="numbers kept per token, in units of dim")
style.show(
    figure,
    alt="Bars of the numbers kept for the backward pass per token, in units of the number of "
    "features: " + ", ".join(f"{name} {count:.0f}" for name, count in kept.items()),
)

# %%
yours = kept["yours, regular"] + kept["yours, flash"]
theirs = kept["zeta_edu, regular"] + kept["zeta_edu, flash"]
print("the package keeps about half of yours:", 0.45 < theirs / yours < 0.55)

# %% [markdown]
# Yours computes the same numbers, and keeps about twice as many.
# SwiGLU makes 12 units of the difference: 5 − 2 numbers for each of 4 · dim inner features.
# Tiles in plain PyTorch save little in training, since autograd keeps each of them; lesson 08 wrote
# a backward pass of its own for that reason.
#
# The order of the halves matters too, because the backward pass goes from the end to the beginning.
# Let each part tell when its gradient is computed.

# %%
told, one = [], TransformerBlock(16, dim_head=8, heads=2)
for name in ("ff_out", "attend", "attn_out"):
    part = getattr(one, name)
    part.register_full_backward_hook(lambda *_, name=name: told.append(name))
one(torch.randn(1, 4, 16, requires_grad=True)).sum().backward()
print(told)

# %% [markdown]
# Attention was computed last, so its gradient comes first.
# What it has kept is freed before the feed-forward, the widest part, needs room for its own.
#
# Without gradients nothing is kept at all, and the package goes further.
# The feed-forward's slice of the projection is not needed after SwiGLU, so the result is written
# over it.

# %%
with torch.no_grad():
    given = torch.randn(100, 2 * 64)
    before = given.clone()
    result = SwiGLU(inplace=True)(given)
print("right:", torch.allclose(result, swiglu(before), atol=1e-6))
print("in the memory of what it was given:", result.data_ptr() == given.data_ptr())
print("what it was given is still there:", torch.equal(given, before))

# %% [markdown]
# This is safe only because nobody looks at that slice again; if a hook listens to the projection,
# `_overwritable` hands over a copy.
# After that only queries, keys and values are needed, the small part of the projection.
# But they are slices of it, and a slice keeps the whole memory alive.
# So `cat` and `clone` copy them, `del` gives up the names of the slices, and the projection is gone
# before anything is turned.

# %% [markdown]
# ## A model of blocks
#
# A language model is an embedding, some blocks with the residual around each, a last norm, and the
# embedding once more, which turns vectors into logits.


# %%
class Model(nn.Module):
    def __init__(self, blocks, embedding, gamma):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.embedding, self.gamma = embedding, gamma  # (num_tokens, dim), (dim,)

    def states(self, ids, caches=None):
        """The tokens' vectors before the first block and after each: depth + 1 of (b, n, dim)."""
        found = [self.embedding[ids]]
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            found.append(found[-1] + block(found[-1], cache=cache))
        return found

    def forward(self, ids, caches=None):
        return layer_norm(self.states(ids, caches)[-1], self.gamma) @ self.embedding.T


# %% [markdown]
# The model of lesson 00 has six blocks. Yours take their weights.
# Its options are the defaults, but for the sizes.

# %%
from zeta_edu import load_pretrained

model, tokenizer = load_pretrained("python-small")
model.requires_grad_(False)


def adopt(theirs):
    """Your block, with the weights of one of the package's."""
    mine = Block(theirs.dim, theirs.dim_head, heads=theirs.heads, ff_mult=2)
    matrices = (theirs.fused_attn_ff_proj, theirs.attn_out, theirs.ff_out[2])
    copied = (theirs.norm.gamma, *(matrix.weight for matrix in matrices))
    for own, given in zip(mine.parameters(), copied, strict=True):
        own.data.copy_(given)
    return mine.requires_grad_(False)


mine = Model(map(adopt, model.blocks), model.embedding.weight, model.norm.gamma)

# %%
code = "def total(accounts):\n    result = 0\n    for account in accounts:\n        result += "
ids = torch.tensor([tokenizer.encode(code)])
print("the same logits:", torch.allclose(mine(ids), model(ids), atol=1e-3))

# %% [markdown]
# And it writes, one token at a time, with a cache for each block.


# %%
def write(model, prompt, count):
    ids, caches = tokenizer.encode(prompt), [Cache() for _ in model.blocks]
    new = ids
    for _ in range(count):
        logits = model(torch.tensor([new]), caches)  # (1, new, num_tokens)
        new = [logits[0, -1].argmax().item()]  # always the likeliest
        ids = ids + new
    return tokenizer.decode(ids)


# %%
prompt = "import os\nimport sys\n\n\ndef main("
text = write(mine, prompt, 60)
print(text)

# %%
print("as the package writes:", text == model.generate(prompt, max_new_tokens=60, temperature=0))

# %% [markdown]
# The first words are those of lesson 00, now from your own code.
#
# What does each block add to the answer?
# Stop after any block, apply the last norm and the embedding, and see how likely the next token of
# what was just written is by then.
# (This way of looking is known as the *logit lens*; a ⏎ stands for line breaks and blanks.)

# %%
ids = torch.tensor([tokenizer.encode(text)[:40]])
lens = torch.cat([layer_norm(x, mine.gamma) for x in mine.states(ids)]) @ mine.embedding.T
coming = ids[0, 1:]  # the token after each but the last
chances = lens.softmax(dim=-1)[:, torch.arange(39), coming]  # (depth + 1, 39)
print("mean chance of the next token:", [round(mean, 2) for mean in chances.mean(dim=1).tolist()])

# %%
figure, axes = plt.subplots(figsize=(7.6, 2.6))
image = axes.imshow(chances, vmin=0, vmax=1, aspect="auto")
axes.set(ylabel="blocks passed", yticks=range(7))
pieces = [piece.strip() or "⏎" for piece in tokenizer.pieces(coming.tolist())]
axes.set_xticks(range(len(pieces)), pieces, rotation=90, fontsize=8)
figure.colorbar(image, label="chance of this token")
style.show(
    figure,
    alt="Map of the chance of each next token after none to six blocks: nothing in the first row; "
    "a few tokens are likely after one or two blocks, many more after five or six.",
)

# %% [markdown]
# On average the chance grows with every block, though for single tokens it falls at times.
# Some tokens are likely early, such as `ager` after `man`; others only after the last block.

# %% [markdown]
# ## What goes wrong: parts in the wrong order
#
# qk norm and rotation are both right, and stand side by side.
# Does it matter which comes first?
# Rotation keeps lengths, so normalising before or after it is the same.
# But the learned scales belong to features, and rotation mixes the two features of a pair.


# %%
class ScaledAfter(Block):
    """The learned scales are multiplied in after the rotation."""

    def place(self, q, k, past):
        q, k = (rotate(F.normalize(t, dim=-1), past) for t in (q, k))
        return q * self.q_scale, k * self.k_scale


# %% [markdown]
# And here is another slip: LoRA at q, k and v is given x instead of the normed x.


# %%
class RawUpdates(Block):
    def forward(self, x, keep=None, cache=None):
        self.raw = x
        return super().forward(x, keep, cache)

    def tune(self, name, made, given):
        return super().tune(name, made, given if name == "o" else self.raw)


# %% [markdown]
# Compare each with the right block, on fresh weights, and on weights as training would leave them:
# scales away from 1, B away from 0.


# %%
def prepared(kind, trained):
    """A block with qk norm and LoRA at the queries; the same weights for every kind."""
    torch.manual_seed(2)
    made = kind(dim, dim_head, heads=heads, kv_heads=kv_heads, ff_mult=2, qk_rmsnorm=True)
    made.tuned["q"] = LowRank(dim, heads * dim_head, rank=2, alpha=4)
    for moved in (made.q_scale, made.k_scale, made.tuned["q"].B) if trained else ():
        moved.data += 0.5 * torch.randn(moved.shape)
    return made.requires_grad_(False)


differences, some = {}, 3 * torch.randn(1, 40, dim)
for kind in (ScaledAfter, RawUpdates):
    for trained in (False, True):
        wrong, right = (prepared(one, trained)(some) for one in (kind, Block))
        differences[kind.__name__, trained] = ((wrong - right).norm() / right.norm()).item()

# %%
figure, axes = plt.subplots(figsize=(6.4, 2.2))
names = [f"{name}, {'trained' if trained else 'fresh'}" for name, trained in differences]
bars = axes.barh(names, list(differences.values()), color=[style.MASK, style.KEY] * 2)
axes.bar_label(bars, fmt="%.2f", padding=3)
axes.invert_yaxis()
axes.margins(x=0.12)
axes.set(xlabel="difference from the right block")
style.show(
    figure,
    alt="Bars: both mistakes make no difference with fresh weights, and a clear one with trained "
    "weights.",
)

# %% [markdown]
# With fresh weights there is nothing to see: every scale is 1, and every B is 0.
# A test that makes a block and compares its output passes.
# That is why the proof fills all weights with random numbers.
#
# What are the symptoms, if there is no right block to compare with?
# The first mistake costs the rotation its point: scores depend on where the two tokens stand.
# Here is one query with the key three positions before it, everywhere in the text.


# %%
def score_by_position(block, length=60, distance=3):
    """The score of one query with one key, at every position: (length - distance,)."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, dim_head, generator=generator).expand(-1, -1, -1, length, -1)
    q, k = block.place(q, k, 0)  # (1, 1, length, d) each
    return block.scale * (q[0, 0, distance:] * k[0, 0, :-distance]).sum(dim=-1)


figure, axes = plt.subplots(figsize=(6.6, 2.6))
for kind, colour in ((Block, style.QUERY), (ScaledAfter, style.KEY)):
    line = score_by_position(prepared(kind, trained=True))
    axes.plot(range(3, 60), line, color=colour, label=kind.__name__)
    print(f"{kind.__name__}: from its lowest to its highest {line.max() - line.min():.1f}")
axes.set(xlabel="position of the query", ylabel="score")
axes.legend()
style.show(
    figure,
    alt="The score of a query with the key three positions before it. In the right block it is a "
    "level line; with the scales after the rotation it swings up and down with the position.",
)

# %% [markdown]
# The cache does not reveal it: the keys are as wrong when they are kept.

# %%
wrong = prepared(ScaledAfter, trained=True)
calls = in_calls(wrong, some, None, Cache(), (30, 31))
print("cached equals whole:", torch.allclose(calls, wrong(some), atol=1e-5))

# %% [markdown]
# The second mistake shows when the update is merged.
# The fused matrix gets the normed x, so a merged update gets it too, whatever it was trained on.


# %%
def merged(block):
    """The block with its update for the queries added to the matrix."""
    update, rows = block.tuned.pop("q"), block.sizes[0]
    block.fused.data[:rows] += (update.A @ update.B).T * update.scale
    return block


for kind in (Block, RawUpdates):
    before, after = prepared(kind, trained=True)(some), merged(prepared(kind, trained=True))(some)
    print(f"{kind.__name__}: merged equals unmerged: {torch.allclose(before, after, atol=1e-4)}")

# %% [markdown]
# Both tests need no reference: shift the positions, and merge.
# Properties like these find mistakes of assembly, which no test of a single part can find.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. How many weights?
#
# Difficulty ★☆☆, 5 minutes.
# Return the number of weights of a block, the gain of its norm included.
# It has no qk norm and no LoRA.
# The five arguments are tensors that hold one whole number each; so does the result.


# %% tags=["exercise"]
def count(dim, dim_head, heads, kv_heads, ff_mult):
    return ...


check("block.count", count)

# %%
hint("block.count")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def count(dim, dim_head, heads, kv_heads, ff_mult):
#     inner = dim * ff_mult
#     rows = heads * dim_head + 2 * kv_heads * dim_head + 2 * inner
#     return dim + rows * dim + dim * heads * dim_head + dim * inner
# ```
#
# </details>

# %% [markdown]
# ### 2. The keys that a head reads
#
# Difficulty ★★☆, 10 minutes.
# `fused` (rows, dim) is the matrix of a block with 4 query heads, 2 key/value heads and
# `dim_head` = 3: queries, keys, values, feed-forward.
# Return the rows that make the keys of query head `head`, (3, dim).
# `head` is a tensor that holds one whole number from 0 to 3.


# %% tags=["exercise"]
def key_rows(fused, head):
    return ...


check("block.keys", key_rows)

# %%
hint("block.keys")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def key_rows(fused, head):
#     start = 4 * 3 + (head // 2) * 3  # behind all queries; two query heads share a key head
#     return fused[start : start + 3]
# ```
#
# </details>

# %% [markdown]
# ### 3. The gain, folded away
#
# Difficulty ★★☆, 10 minutes.
# A block multiplies the normed x by its gain, and then by the fused matrix.
# Return a fused matrix (rows, dim) with which a gain of ones gives the same, for `fused`
# (rows, dim) and `gamma` (dim,).


# %% tags=["exercise"]
def folded(fused, gamma):
    return ...


check("block.fold", folded)

# %%
hint("block.fold")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def folded(fused, gamma):
#     return fused * gamma
# ```
#
# A feature of the normed x meets one column of the matrix, so its gain can be moved into that
# column.
# LoRA at q, k and v takes the normed x too: there row j of A is multiplied by `gamma[j]`.
#
# </details>

# %% [markdown]
# ### 4. Length one, scaled, turned
#
# Difficulty ★★★, 15 minutes.
# Give queries their direction and their place, in the right order: length one, the learned scale,
# the rotation.
# `q` is (n, d), `scale` (d,), and `cos` and `sin` are (n, d/2); pairs are half-split.


# %% tags=["exercise"]
def placed(q, scale, cos, sin):
    return ...


check("block.place", placed)

# %%
hint("block.place")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
# import torch.nn.functional as F
#
#
# def placed(q, scale, cos, sin):
#     first, second = (F.normalize(q, dim=-1) * scale).chunk(2, dim=-1)
#     return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
# ```
#
# </details>

# %% [markdown]
# ## What you have now
#
# This transformer block is norm, one product, heads, a direction, a place, a memory, a mask, a mix,
# a gate, and a sum.
# Yours equals the package's for every combination of its switches, in outputs and gradients, whole
# and in calls, with LoRA and without.
# The package adds checks, tables that are kept, and less memory for the same numbers.
# Mistakes of assembly hide in fresh weights; random weights, shifts and merging bring them out.
#
# **References.**
# The parallel block with one fused product: Chowdhery et al. 2022 (PaLM),
# [arXiv:2204.02311](https://arxiv.org/abs/2204.02311), section 2.
# Shared keys and values: Shazeer 2019, [arXiv:1911.02150](https://arxiv.org/abs/1911.02150).
# Rotary: Su et al. 2021, [arXiv:2104.09864](https://arxiv.org/abs/2104.09864). xPos: Sun et al.
# 2022, [arXiv:2212.10554](https://arxiv.org/abs/2212.10554).
# qk norm: Henry et al. 2020, [arXiv:2010.04245](https://arxiv.org/abs/2010.04245).
# SwiGLU: Shazeer 2020, [arXiv:2002.05202](https://arxiv.org/abs/2002.05202).
# LoRA: Hu et al. 2021, [arXiv:2106.09685](https://arxiv.org/abs/2106.09685).
# FlashAttention: Dao et al. 2022, [arXiv:2205.14135](https://arxiv.org/abs/2205.14135).
# The logit lens: nostalgebraist 2020,
# [interpreting GPT](https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens).
#
# **Next.** You have a block that can be trained.
# [Lesson 12](12-learns-to-copy.ipynb) trains two of them to copy, and watches how.
# All lessons are on the map of [lesson 00](00-start-here.ipynb).
