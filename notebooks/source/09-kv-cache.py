# %% [markdown]
# # 09 · The KV cache: read once, write on
#
# A model writes one token at a time, and each new token looks at all the tokens before it.
# Yet to write the thousandth, a good program does not read the other 999 again.
# **Why does one more token need only one query?**
#
# In this lesson you build the store that makes it so, the *KV cache*: first two lists, then a
# buffer that grows.
# You put it into a whole block, and test one sentence by hand: *cached equals whole, at every
# position, however the text is cut*.
# Then you count what it saves and what it costs, and break it in two ways.
#
# It takes about 50 minutes to read and 15 seconds to run.
# You need lessons 01 to 05 and 07: attention, heads that share keys, the causal mask, rotation,
# xPos, and the parallel block.

# %%
import inspect
import itertools
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from ipywidgets import IntSlider, interact
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from zeta_edu import load_pretrained
from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import cache_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("cache",))

# %% [markdown]
# On the map the cache stands between the rotation and the attention, on the wires of keys and
# values.
# The wire of the queries passes it by: that is the question above.

# %% [markdown]
# ## A text that grows, by hand
#
# Take one feature, and queries that are all 1.
# A score is then the key itself.
# Softmax takes e to the power of it, so let the keys be logarithms: weights in the ratio
# 1 : 2 : 1 : 4 are then easy to see.

# %%
keys = torch.tensor([1.0, 2, 1, 4]).log()
values = torch.tensor([3.0, 6, 1, 0])


def whole(n, causal=True):
    """The answers of the first n tokens, all computed at once: (n,)."""
    scores = keys[:n].expand(n, n)  # (query, key): every query is 1
    later = torch.ones(n, n).triu(1).bool()
    return scores.masked_fill(later & causal, -math.inf).softmax(dim=-1) @ values[:n]


whole(3)

# %% [markdown]
# By hand: the first token sees only itself, 3.
# The second sees two keys, and gets (1 · 3 + 2 · 6) / 3 = 5.
# The third gets (1 · 3 + 2 · 6 + 1 · 1) / 4 = 4.
#
# Now let the text grow to four tokens, and compute everything anew each time.

# %%
for n in range(1, 5):
    print(f"{n} tokens:", [round(answer, 2) for answer in whole(n).tolist()])

# %% [markdown]
# Read down a column: an answer never changes once it is there.
# It cannot, because a causal query looks at no later token, so nothing that comes later reaches it.
# Of each line only the last number is new.
#
# Without the causal mask, every query also looks at the newcomer, and every answer moves.

# %%
BLANK = plt.get_cmap(style.MAP).with_extremes(under="white")  # for what is below 0
figure, all_axes = plt.subplots(1, 2, figsize=(7, 2.7), sharey=True)
for axes, causal in zip(all_axes, (True, False), strict=True):
    table = torch.full((4, 4), -1.0)
    for n in range(1, 5):
        table[n - 1, :n] = whole(n, causal)
        for token in range(n):
            number = f"{table[n - 1, token]:.2f}"
            axes.text(token, n - 1, number, ha="center", va="center", color="black")
    axes.imshow(table, cmap=BLANK, vmin=0, vmax=14, aspect="auto")
    axes.set(title="causal" if causal else "without a mask", xlabel="token", xticks=range(4))
all_axes[0].set(yticks=range(4), yticklabels=range(1, 5), ylabel="length of the text")
style.show(
    figure,
    alt="Two triangles of answers, a row for each length of the text. Causal: every column holds "
    "one number, 3, 5, 4 and 2. Without a mask the numbers of a column differ.",
)

# %% [markdown]
# So a model that sees both ways cannot be cached like this: each new token would change the past.
# Everything below is causal.

# %% [markdown]
# ## What has to be kept
#
# To get the new answer we need the new query, all keys and all values.
# The old *queries* appear nowhere: each had its answer when it was new.
# Here is a step on two lists, which are the simplest cache there is.


# %%
def step(query, key, value, kept_keys, kept_values):
    """The answer of one new token; its key and value join the lists."""
    kept_keys.append(key)
    kept_values.append(value)
    scores = torch.stack(kept_keys) @ query / math.sqrt(len(query))  # (n,)
    return scores.softmax(dim=-1) @ torch.stack(kept_values)


# %% [markdown]
# There is no mask in it.
# The one query belongs to the last token, and from there everything kept is the past.
# Compare with the whole, for ten tokens of eight features.

# %%
q, k, v = torch.randn(3, 10, 8, dtype=torch.double)
later = torch.ones(10, 10).triu(1).bool()
at_once = (q @ k.T / math.sqrt(8)).masked_fill(later, -math.inf).softmax(dim=-1) @ v

kept_keys, kept_values = [], []
steps = torch.stack([step(*row, kept_keys, kept_values) for row in zip(q, k, v, strict=True)])
print("cached equals whole:", torch.allclose(steps, at_once))

# %% [markdown]
# That answers the question for one attention.
# A model is a stack of blocks, and in the second block a token's key is made from what the first
# block gave it.
# Might that not change?
# No: we have just seen that it does not, and norm, matrices and feed-forward work on each token
# alone.
# So what enters the second block for an old token stays, and by the same argument what leaves it,
# and so on to the top.
# Every block keeps keys and values of its own, and every block needs one query.

# %% [markdown]
# ## Where a token stands
#
# Queries and keys are turned by their positions (lesson 04), and fade with distance (lesson 05).
# A key at position *n* is turned by *n* times the angles of its pairs, whatever comes later.
# So it can be turned *before* it is kept.
# The new token must know its position, though: it is the number of tokens in the cache.
# Hence the argument `start`.


# %%
def rotate(x, start):
    """Turn x (..., n, d), whose first row stands at position `start`."""
    d = x.shape[-1]
    positions = torch.arange(start, start + x.shape[-2], dtype=torch.double)
    frequencies = 10_000.0 ** -(torch.arange(0, d, 2, dtype=torch.double) / d)  # (d/2,)
    angles = positions[:, None] * frequencies  # (n, d/2)
    first, second = x.chunk(2, dim=-1)  # (..., n, d/2) each
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


# %%
k = torch.randn(10, 8)
one_by_one = torch.cat([rotate(k[n : n + 1], start=n) for n in range(10)])
print("turned alone or together:", torch.allclose(one_by_one, rotate(k, start=0), atol=1e-6))

# %% [markdown]
# With xPos the product of a query at *m* and a key at *n* is multiplied by $\zeta^{(m - n)/B}$ in
# each pair, where *B* is the scale base, and pair *i* has its own $\zeta_i = (2i/d + 0.4) / 1.4$.
# It is split in two, $\zeta^{(m - o)/B}$ for the query and $\zeta^{(o - n)/B}$ for the key, and any
# origin *o* will do, as long as it is *the same in both*.
# Far from the origin a half overflows (lesson 05), so the origin goes along with the queries, and a
# key's half depends on the query that reads it.
# So keys are kept turned, but *not* faded, and fade when they are read.
# That is why, on the map, rotary stands before the cache and xPos behind it.


# %%
def fade(distances, d, scale_base=512):
    """What xPos leaves of each feature after these distances: (n, d)."""
    zetas = (torch.arange(0, d, 2, dtype=torch.double) / d + 0.4) / 1.4  # (d/2,)
    return (zetas ** (distances[:, None] / scale_base)).repeat(1, 2)


fade(torch.tensor([0.0, 512]), d=4)

# %% [markdown]
# After 512 positions, one scale base, what is left is ζ itself; an infinite scale base means no
# fading.

# %% [markdown]
# ## Several tokens at a time
#
# A prompt is known from the start. It need not be read token by token: all of it goes through in
# one call, the **prefill**, which is a whole text with an empty cache.
# A **step** then adds one token.
# Between the two there is a **chunk**: some new tokens, with others in the cache.
#
# With more than one query a mask is needed again.
# Call the number of cached tokens `past`.
# The first new token then stands at position `past`, and the mask's diagonal starts there, as in
# lesson 03.


# %%
def causal_mask(past, new):
    """True where a new token may see a key: (new, past + new)."""
    return torch.arange(past + new) <= past + torch.arange(new)[:, None]


causal_mask(past=4, new=3).int()

# %% [markdown]
# By hand: the first of the three sees the four in the cache and itself, which makes five.
# With one new token every entry is True, which is why `step` needed no mask.
#
# Next come both halves of the fading.
# One origin serves all queries of a call; we take the first of them.
# (For calls of many thousand tokens lesson 05 moves it on in windows.)


# %%
def fade_both(q, k, scale_base):
    """Fade turned queries (..., new, d), of the last positions, and keys (..., total, d)."""
    total, d = k.shape[-2:]
    at = torch.arange(total, dtype=torch.double)
    asking = at[total - q.shape[-2] :]
    origin = asking[:1]
    q_faded, k_faded = (
        q * fade(asking - origin, d, scale_base),
        k * fade(origin - at, d, scale_base),
    )
    return q_faded.to(q.dtype), k_faded.to(q.dtype)


# %% [markdown]
# In a step the query is its own origin: its factor is 1, and each key gets $\zeta^{(m - n)/B}$.
#
# Then the mix.
# A row with nothing to see, as padding has, gives 0 (lesson 03).


# %%
def mix(q, k, v, visible):
    """Queries (b, h, new, d), keys and values (b, kv, total, d); visible (..., new, total)."""
    group = q.shape[1] // k.shape[1]
    k, v = (repeat(t, "b kv n d -> b (kv g) n d", g=group) for t in (k, v))
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (b, h, new, total)
    sees_some = visible.any(dim=-1, keepdim=True)
    weights = scores.masked_fill(~visible & sees_some, -math.inf).softmax(dim=-1)
    return weights.masked_fill(~sees_some, 0.0) @ v  # (b, h, new, d)


# %% [markdown]
# ## A block with a cache
#
# The cache itself. `extend` takes the new keys and values, and gives back all keys and values so
# far.
# Keys and values lie in one tensor, the keys first.


# %%
class JoinedCache:
    """Keys and values so far, joined with the new ones in every call."""

    def __init__(self):
        self.length, self.kept = 0, None

    def extend(self, keys, values):
        new = torch.stack((keys, values))  # (2, b, kv, new, d)
        self.kept = new if self.kept is None else torch.cat((self.kept, new), dim=-2)
        self.length = self.kept.shape[-2]
        return self.kept


# %% [markdown]
# The rest is the parallel block of lesson 07; first its weights.


# %%
class Weights(nn.Module):
    """The weights of a parallel block, drawn at random."""

    def __init__(self, dim, heads, kv_heads, d, inner, scale_base=512):
        super().__init__()
        self.heads, self.kv_heads, self.d, self.scale_base = heads, kv_heads, d, scale_base
        self.sizes = (heads * d, kv_heads * d, kv_heads * d, 2 * inner)
        self.gamma = nn.Parameter(torch.ones(dim))
        self.fused = nn.Parameter(torch.randn(sum(self.sizes), dim) / math.sqrt(dim))
        self.out = nn.Parameter(torch.randn(dim, heads * d) / math.sqrt(heads * d))
        self.ff_out = nn.Parameter(torch.randn(dim, inner) / math.sqrt(inner))


# %% [markdown]
# In `forward`, `past` is where the new tokens begin, and `extend` hands over the old keys and
# values; everything else is as it was.
# `place` is what happens to queries and keys before the keys are kept, `attend` what happens
# after.
# `keep` is the padding mask, (batch, total), True where a key may be seen.


# %%
class Block(Weights):
    mask = staticmethod(causal_mask)  # a name of its own, so that another can take its place

    def place(self, q, k, past):
        return rotate(q, past), rotate(k, past)

    def attend(self, q, k, v, keep):
        new, total = q.shape[-2], k.shape[-2]
        visible = self.mask(total - new, new)  # (new, total)
        if keep is not None:
            visible = visible & keep[:, None, None]  # (b, 1, new, total)
        return mix(*fade_both(q, k, self.scale_base), v, visible)

    def forward(self, x, cache=None, keep=None):
        """What the block adds to x (b, new, dim), which goes on from what the cache holds."""
        past = 0 if cache is None else cache.length
        normed = F.layer_norm(x, self.gamma.shape, self.gamma)
        q, k, v, ff = (normed @ self.fused.T).split(self.sizes, dim=-1)
        q = rearrange(q, "b n (h d) -> b h n d", h=self.heads)
        k, v = (rearrange(t, "b n (kv d) -> b kv n d", kv=self.kv_heads) for t in (k, v))
        q, k = self.place(q, k, past)
        if cache is not None:
            k, v = cache.extend(k, v)
        mixed = rearrange(self.attend(q, k, v, keep), "b h n d -> b n (h d)")
        value, gate = ff.chunk(2, dim=-1)
        return mixed @ self.out.T + (F.silu(gate) * value) @ self.ff_out.T


# %% [markdown]
# ## Test it by hand
#
# Twelve tokens go through a block in calls of your choice.
# `cuts` says where a call ends and the next begins: 5, 6, 7 and 10 make a prefill of five, two
# steps, a chunk of three, and a last one of two.


# %%
def in_calls(block, x, cache, cuts, keep=None):
    """The block's output for x (b, n, dim), computed from one cut to the next."""
    outputs, past = [], cache.length
    for start, stop in itertools.pairwise([0, *cuts, x.shape[1]]):
        seen = None if keep is None else keep[:, : past + stop]
        outputs.append(block(x[:, start:stop], cache, seen))
    return torch.cat(outputs, dim=1)


# %%
small = Block(dim=16, heads=4, kv_heads=2, d=8, inner=32, scale_base=8).double()
twelve = torch.randn(1, 12, 16, dtype=torch.double)
cuts = [5, 6, 7, 10]  # change me
difference = in_calls(small, twelve, JoinedCache(), cuts) - small(twelve)
print("largest difference below 1e-12:", difference.abs().max().item() < 1e-12)

# %% [markdown]
# The scale base is 8 here, so that the fading shows within twelve tokens.
# Change the cuts, and run the cell again.
#
# A sentence that holds for every input and at every moment is called an **invariant**:
#
# *The output at every position is the one of the whole text, however the text is cut.*
#
# A text of six tokens can be cut in $2^5 = 32$ ways, since each of the five places between two
# tokens has a cut or has none.
# That is few enough to try them all.

# %%
ways = [c for count in range(6) for c in itertools.combinations(range(1, 6), count)]
six = twelve[:, :6]
at_once = small(six)
errors = [in_calls(small, six, JoinedCache(), way) - at_once for way in ways]
print(len(ways), "ways, all below 1e-12:", max(e.abs().max() for e in errors).item() < 1e-12)

# %% [markdown]
# What does each call compute?
# Below, the first slider is the length of the prompt, and the second how many tokens each later
# call takes.
# On the left is the table of all queries and keys, cut into calls of two alternating colours; what
# is hidden is white.
# On the right is how many pairs of a query and a key each call computes, the hidden ones of its
# own square included; in grey, what it would compute without a cache.
# (In a page without a running Python you see one setting only.)


# %%
def draw_calls(prompt, chunk):
    calls = list(itertools.pairwise([0, *range(prompt, 12, chunk), 12]))
    found = in_calls(small, twelve, JoinedCache(), range(prompt, 12, chunk))
    same = (found - small(twelve)).abs().max().item() < 1e-12
    table = torch.full((12, 12), -1.0)
    for number, (start, stop) in enumerate(calls):
        table[start:stop] = number % 2 + 0.5
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
    left.imshow(table.masked_fill(~causal_mask(0, 12), -1), cmap=BLANK, vmin=0, vmax=3)
    left.set(title=f"same as the whole: {same}", xlabel="key", ylabel="query")
    pairs = {"without": [stop**2 for _, stop in calls]}
    pairs["with"] = [(stop - start) * stop for start, stop in calls]
    for (name, counts), colour in zip(pairs.items(), (style.MASK, style.QUERY), strict=True):
        right.bar(range(len(calls)), counts, color=colour, label=f"{name} cache: {sum(counts)}")
    right.set(title="pairs computed", xlabel="call", ylim=(0, 210))
    right.legend(loc="upper left", fontsize=10)
    style.show(
        figure,
        alt=f"Twelve queries by twelve keys, in {len(calls)} calls of neighbouring rows. Pairs in "
        f"all: {sum(pairs['with'])} with a cache, {sum(pairs['without'])} without.",
    )


# %%
sliders = [IntSlider(value, 1, 12, continuous_update=False) for value in (5, 2)]
_ = interact(draw_calls, prompt=sliders[0], chunk=sliders[1])

# %% [markdown]
# No row is computed twice.
# Without a cache, every call would compute all the rows above once more.

# %% [markdown]
# ## Room for what comes
#
# `JoinedCache` copies all it holds in every call, to put the new token behind it.
# A thousand steps copy 0 + 1 + 2 + ... + 999 tokens, which is 499,500.
# A buffer with room to spare copies nothing, until the room is used up; then it doubles.
# If the final length is known, it can be made that long at once, and never moves.


# %%
class Buffer:
    """Keys and values in a tensor with room for `room` tokens; it doubles when that is used up."""

    def __init__(self, batch, kv_heads, d, room=0, dtype=torch.float):
        self.length, self.copied = 0, 0
        self.kept = torch.zeros(2, batch, kv_heads, room, d, dtype=dtype)

    def make_room(self, stop):
        room = self.kept.shape[-2]
        if stop > room:
            self.kept = F.pad(self.kept, (0, 0, 0, max(stop, 2 * room) - room))
            self.copied += self.length

    def extend(self, keys, values):
        past, stop = self.length, self.length + keys.shape[-2]
        self.make_room(stop)
        self.kept[..., past:stop, :] = torch.stack((keys, values)).detach()
        self.length = stop
        return self.kept[..., :stop, :]


# %% [markdown]
# It holds the same, in any calls.
# (`detach` is the matter of the next section.)

# %%
cuts = [5, 6, 7, 10]
with torch.no_grad():
    for room in (0, 12):
        cache = Buffer(1, kv_heads=2, d=8, room=room, dtype=torch.double)
        difference = in_calls(small, twelve, cache, cuts) - small(twelve)
        print("below 1e-12:", difference.abs().max().item() < 1e-12, tuple(cache.kept.shape))

# %% [markdown]
# The first cache has grown from a prefill of 5 to 10, and to 20 for the last chunk; the one that
# began with 12 stayed there.
# Here it grows from nothing, token by token.

# %%
cache, rooms = Buffer(1, kv_heads=1, d=2), []
for _ in range(40):
    cache.extend(*torch.ones(2, 1, 1, 1, 2))
    rooms.append(cache.kept.shape[-2])

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.2))
left.step(range(1, 41), rooms, where="mid", color=style.MASK, label="room")
left.fill_between(range(1, 41), range(1, 41), color=style.KEY, lw=0, label="in use")
left.set(title="a buffer that doubles", xlabel="tokens so far", ylabel="tokens")
left.legend(loc="upper left")
copies = {"joined": [], "doubling": []}
for n in range(1, 1001):
    copies["joined"].append(n * (n - 1) // 2)
    copies["doubling"].append(2 ** math.ceil(math.log2(n)) - 1)
for (name, counted), line in zip(copies.items(), ("--", "-"), strict=True):
    right.loglog(range(2, 1001), counted[1:], line, color=style.KEY, label=name)
right.minorticks_off()
right.set(title="tokens copied in all", xlabel="tokens so far")
right.legend()
style.show(
    figure,
    alt="Left: the room doubles from 1 to 64 as forty tokens come; what is in use is a straight "
    "line below it. Right: tokens copied; joined, half a million after a thousand; doubling, about "
    "a thousand.",
)

# %% [markdown]
# When a buffer of 16 is full, 16 tokens move; before that 8 moved, and 4, 2 and 1, which makes
# 31 in all.
# So in single steps all moves together copy fewer than twice the tokens that the last one copied.
# The picture's second line is such a sum, a power of two less one; the buffer counted too.

# %%
print("by the sum:", copies["doubling"][39], "  counted:", cache.copied)

# %% [markdown]
# The price is room that may stay unused, almost half of it at worst.

# %% [markdown]
# ## What a gradient sees
#
# In training all tokens of a text are known, so they go through in one call, and a cache has
# nothing to save.
# But what if one trains through it?
#
# `JoinedCache` keeps tensors with their history.
# The gradient flows back through every call, and is that of the whole text.


# %%
def slopes(output, inputs):
    # The sine gives each entry of the output a gradient of its own.
    return torch.autograd.grad(output.sin().sum(), inputs)


x = twelve.clone().requires_grad_()
inputs = [x, *small.parameters()]
through_calls = slopes(in_calls(small, x, JoinedCache(), cuts), inputs)
at_once = slopes(small(x), inputs)
close = [torch.allclose(a, b) for a, b in zip(through_calls, at_once, strict=True)]
print("the whole text's gradients:", all(close))

# %% [markdown]
# The memory for that grows with all the calls. And PyTorch may refuse a backward pass through a
# buffer: once anything was written into it, even beside the numbers that were used, it no longer
# trusts them.
# So the package lets the gradient end at the call, which is what `detach` does.
# What was kept counts as a constant; the new tokens have their gradient.
# For that, the new ones are joined to the old, as long as gradients are wanted at all.


# %%
class CallBuffer(Buffer):
    def extend(self, keys, values):
        past = self.length
        kept = super().extend(keys, values)
        if not torch.is_grad_enabled():
            return kept
        return torch.cat((self.kept[..., :past, :], torch.stack((keys, values))), dim=-2)


# %% [markdown]
# Let only the last call's output count, from position 10 on, and look at which tokens' gradient
# is not zero.

# %%
for cache in (JoinedCache(), CallBuffer(1, 2, 8, dtype=torch.double)):
    last = in_calls(small, x, cache, cuts)[:, 10:]
    reached = slopes(last, [x])[0].norm(dim=-1)[0] > 0  # (12,)
    print(f"{type(cache).__name__:11}", reached.int().tolist())

# %% [markdown]
# Letting gradients stop at what was kept has a use of its own: it is how Transformer-XL trains on
# long texts piece by piece (references below).

# %% [markdown]
# ## Several texts at once
#
# Two prompts of different lengths make a batch when the shorter is padded.
# The padding goes on the *left*, so that both end in the same column, where the new tokens come.
# `keep` hides it, in this call and in all later ones, for its keys are in the cache too.
# The short prompt now starts at position 3; that does no harm, since only differences of positions
# count.

# %%
with torch.no_grad():
    long, short = torch.randn(1, 5, 16).double(), torch.randn(1, 2, 16).double()
    more = torch.randn(2, 4, 16).double()  # four new tokens for each
    padded = torch.cat((torch.zeros(1, 3, 16), short), dim=1)  # (1, 5, 16)
    both = torch.cat((torch.cat((long, padded)), more), dim=1)  # (2, 9, 16)
    keep = torch.arange(9) >= torch.tensor([[0], [3]])  # (2, 9)
    together = in_calls(small, both, Buffer(2, 2, 8, dtype=torch.double), [5, 6, 7, 8], keep)

# %%
with torch.no_grad():
    for row, text in enumerate((long, short)):
        alone = small(torch.cat((text, more[row : row + 1]), dim=1))
        print("as alone:", torch.allclose(together[row, -4:], alone[0, -4:]))

# %% [markdown]
# A cache can also begin anew, and texts in it can be exchanged or doubled.
# `reset` only sets the length to 0: what lies beyond the length is never read.
# `reorder` picks texts by their number; we shall use it to continue one prompt in three ways.
# Both become methods of `Buffer`.


# %%
def reset(self):
    self.length = 0


def reorder(self, index):
    self.kept = self.kept[:, index]  # (2, new batch, kv, room, d)


Buffer.reset, Buffer.reorder = reset, reorder

# %% [markdown]
# ## Work
#
# Count multiplications, each with the addition that follows it.
# In a matrix product with a weight matrix, every weight meets every token once: that makes *P* per
# token, the number of weights in the matrices.
# A query and a key cost one multiplication per feature for the score, and one more for the mix,
# in every head: that makes *A* = 2 · heads · d per pair.
# So *n* new tokens with *t* tokens in all, the new ones included, take
#
# $$n \, P + n \, t \, A.$$
#
# Norm, softmax, rotation and fading are left out, here and by the counter below.
#
# By hand, for dim = 512, 8 heads of 64, one key/value head and 2048 inner features: the fused
# matrix has 512 + 64 + 64 + 4096 = 4736 rows of 512, `out` has 512 · 512 weights, `ff_out`
# 512 · 2048.
# Together *P* = 3,735,552, and *A* = 1024.


# %%
def work(block, new, total):
    matrices = sum(weight.numel() for weight in block.parameters() if weight.ndim == 2)
    return new * matrices + new * total * 2 * block.heads * block.d


large = Block(512, heads=8, kv_heads=1, d=64, inner=2048)
print("P:", f"{work(large, 1, 0):,}", "  A:", work(large, 1, 1) - work(large, 1, 0))

# %% [markdown]
# Is that what really happens?
# PyTorch has a counter that watches every matrix product, wherever it is called.
# It counts multiplications and additions apart, hence the half.


# %%
@torch.no_grad()
def counted(function, *arguments):
    with FlopCounterMode(display=False) as counter:
        function(*arguments)
    return counter.get_total_flops() // 2


# %%
for past, new in ((0, 250), (249, 1), (100, 64)):
    cache = Buffer(1, 1, 64)
    cache.extend(*torch.randn(2, 1, 1, past, 64))
    seen = counted(large, torch.randn(1, new, 512), cache)
    print(f"{past:3} cached, {new:4} new: {seen:13,}", seen == work(large, new, past + new))

# %% [markdown]
# With a cache, the 250th token costs a 250th part of the whole text.
#
# Now write *n* tokens from nothing, one at a time.
# With a cache step *t* takes *P* + *t A*.
# Without, it computes all *t* tokens and their square of pairs, *t P* + *t*² *A*; the counter shows
# that the hidden half of the square is computed as well.
# The sums over all steps are
#
# $$n P + \frac{n (n + 1)}{2} A \qquad \text{and} \qquad
# \frac{n (n + 1)}{2} P + \frac{n (n + 1)(2n + 1)}{6} A.$$

# %%
lengths = torch.arange(1, 8193)
per_step = {
    "without a cache": work(large, lengths, lengths),
    "with one": work(large, 1, lengths),
}
totals = {name: steps.cumsum(dim=0) for name, steps in per_step.items()}
for n in (10, 100, 1000, 8000):
    without, cached = (total[n - 1].item() for total in totals.values())
    print(f"{n:4} tokens: {without / cached:7.1f} times the work without a cache")

# %%
figure, all_axes = plt.subplots(1, 2, figsize=(7.6, 3.2))
for axes, counts, title in zip(
    all_axes, (per_step, totals), ("this step", "all so far"), strict=True
):
    for (name, numbers), line in zip(counts.items(), ("--", "-"), strict=True):
        axes.loglog(lengths, numbers, line, color=style.QUERY, label=name)
    axes.minorticks_off()
    axes.set(title=f"multiplications, {title}", xlabel="tokens")
all_axes[0].legend()
style.show(
    figure,
    alt="Multiplications against the number of tokens, both on a log scale. In a step: without a "
    "cache a rising line, with one a level line that bends up after 1,000. In all: two rising "
    "lines, the one without a cache steeper.",
)

# %% [markdown]
# With a cache a step hardly grows at first: *A* is 1,024 and *P* over three and a half million.
# Only from *P* / *A* = 3,648 tokens on does attention take more than everything else.
#
# The view shows the same on a block of the small model of lesson 00, which reads a function.
# The first four tokens are its prompt.
# Step on: one row is framed in every step, and one column joins the keys.
# Its counts leave the hidden pairs out, so they are a little lower than ours.
# What it says of bytes is the matter of the next section.

# %%
model, tokenizer = load_pretrained("python-small")
ids = tokenizer.encode("def area(width, height):\n    return width * height\n")
with torch.no_grad():
    states = model.embedding(torch.tensor([ids]))  # (1, n, dim)
    for layer in model.blocks[:2]:
        states = states + layer(states)
cache_view(model.blocks[2], states, prompt=4, tokens=tokenizer.pieces(ids))

# %% [markdown]
# ## Bytes
#
# A cache saves work and costs memory.
# In every block each token leaves a key and a value of *d* numbers in each key/value head, 4 bytes
# each in single precision:
#
# $$\text{bytes per token} = 2 \cdot \text{kv heads} \cdot d \cdot 4.$$
#
# Here are multi-head attention, a key head for each of the 8 query heads; grouped, 2; and
# multi-query, 1 (lesson 02).
# The work is counted in a step of token 1000, the bytes are what the tensor says.

# %%
shapes = {"multi-head": 8, "grouped": 2, "multi-query": 1}
blocks = {name: Block(512, 8, kv_heads, 64, 2048) for name, kv_heads in shapes.items()}
for name, kv_heads in shapes.items():
    cache = Buffer(1, kv_heads, 64, room=1000)
    cache.extend(*torch.randn(2, 1, kv_heads, 999, 64))
    done = counted(blocks[name], torch.randn(1, 1, 512), cache)
    by_hand = 2 * kv_heads * 64 * 4
    print(f"{name:11} {done:9,} multiplications", end="  ")
    print(f"{cache.kept.nbytes // 1000:5,} bytes per token, by hand {by_hand:5,}")

# %% [markdown]
# The work falls by less than a tenth, and that because there are fewer rows in the fused matrix.
# Every query head still meets every token.
# The bytes fall to an eighth.
#
# Why that matters: a step has to *read* everything.
# All weights, and the whole cache, pass through the processor for one token's sake.
# How many multiplications does a step do for each byte it reads?
# When *b* texts are written side by side, the weights are read once for all of them; the caches
# are read one by one:
#
# $$\frac{b \, (P + t A)}{4 P + b \, t \cdot \text{bytes per token}}.$$


# %%
def per_byte(block, kv_heads, lengths, batch):
    weights = 4 * work(block, 1, 0)  # bytes
    done = batch * work(block, 1, lengths)
    return done / (weights + batch * lengths * 2 * kv_heads * 64 * 4)


# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
some = 2 ** torch.arange(4, 18)
for (name, kv_heads), line in zip(shapes.items(), ("-", "--", ":"), strict=True):
    ratios = per_byte(blocks[name], kv_heads, some, batch=16)
    held = some * 2 * kv_heads * 64 * 4 / 1e6
    left.loglog(some, held, line, color=style.KEY, label=name)
    right.semilogx(some, ratios, line, color=style.KEY, label=name)
left.axhline(4 * work(large, 1, 0) / 1e6, color=style.MASK, lw=1)
left.text(16, 20, "all weights", color=style.LIGHT["quiet"])
left.set(title="the cache of one text", xlabel="tokens", ylabel="MB")
right.set(title="16 texts side by side", ylabel="multiplications per byte")
right.set(xlabel="tokens", ylim=(0, 4.3))
for axes, corner in ((left, "lower right"), (right, "upper right")):
    axes.minorticks_off()
    axes.legend(fontsize=10, loc=corner)
style.show(
    figure,
    alt="Left: megabytes of the cache against tokens, three parallel lines; multi-head passes the "
    "weights' 15 MB near 4,000 tokens, multi-query near 30,000. Right: multiplications per byte "
    "fall from near 4: multi-head to a quarter, grouped to about 1, multi-query to about 2.",
)

# %% [markdown]
# With short texts the weights are most of what is read, and 16 texts use each of them 16 times,
# at 4 bytes: 4 multiplications per byte.
# With long texts most of it is the cache, and no other text can use that.
# A number in it is used by the query heads that share it: by one in multi-head attention, by all
# eight in multi-query, which is 1/4 and 2 per byte.
# A processor multiplies faster than its memory can deliver (lesson 08), so a step with few
# multiplications per byte waits for memory.
# That is Shazeer's argument for sharing keys (references below).

# %% [markdown]
# ## A real model writes
#
# The small model has six blocks.
# We give their weights to six blocks of ours, with a buffer for each.
# Embedding, last norm and logits are the model's own.


# %%
def ours(kind=Block):
    """Blocks of ours with the model's weights."""
    blocks = [kind(192, heads=6, kv_heads=1, d=32, inner=384) for _ in model.blocks]
    for block, given in zip(blocks, model.blocks, strict=True):
        for own, weight in zip(block.parameters(), given.parameters(), strict=True):
            own.data = weight.data
    return blocks


@torch.no_grad()
def logits_of(blocks, ids, caches):
    x = model.embedding(torch.as_tensor(ids))  # (b, n, dim)
    for block, cache in zip(blocks, caches, strict=True):
        x = x + block(x, cache)
    return model.norm(x) @ model.embedding.weight.T  # (b, n, 2048): one for each token there is


# %% [markdown]
# To write is then a loop: take what the cache has not seen, and append the likeliest token.
# With a cache that is the prompt first, then one token at a time.


# %%
def write(blocks, prompt, count, cached=True):
    caches = [Buffer(1, 1, 32) if cached else None for _ in blocks]
    ids = tokenizer.encode(prompt)
    for _ in range(count):
        unseen = ids[caches[0].length :] if cached else ids
        ids.append(logits_of(blocks, [unseen], caches)[0, -1].argmax().item())
    return ids


# %%
prompt = "import os\nimport sys\n\n\ndef main("
blocks = ours()
written = write(blocks, prompt, 19)
print(tokenizer.decode(written))
print("the same without a cache:", write(blocks, prompt, 19, cached=False) == written)

# %% [markdown]
# The counter slows a model down, so it watches the first six tokens only.

# %%
with_cache, without = (counted(write, blocks, prompt, 6, cached) for cached in (True, False))
print(f"multiplications: {with_cache:,} with a cache, {without:,} without")

# %% [markdown]
# By the formula: the prompt has 9 tokens; 5 steps follow, for the last token is not read again.
# *P* is now the weights of all blocks, and of the embedding, whose product gives the logits.


# %%
def in_writing(count, cached):
    P = sum(weight.numel() for weight in model.parameters() if weight.ndim == 2)
    A = 6 * 2 * 6 * 32  # layers · 2 · heads · d
    steps = [(1 if cached and t > 9 else t, t) for t in range(9, 9 + count)]
    return sum(new * P + new * total * A for new, total in steps)


print("as counted:", (in_writing(6, True), in_writing(6, False)) == (with_cache, without))
for count in (6, 19, 200):
    ratio = in_writing(count, False) / in_writing(count, True)
    print(f"{count:3} tokens: {ratio:5.1f} times the work without a cache")

# %% [markdown]
# Reading a prompt pays more than once.
# Here it is read one time; then `reorder` makes three texts of it, which go on from the three
# likeliest first tokens.

# %%
caches = [Buffer(1, 1, 32) for _ in blocks]
logits = logits_of(blocks, [tokenizer.encode(prompt)], caches)[0, -1]
texts = logits.topk(3).indices[:, None]  # (3, 1)
for cache in caches:
    cache.reorder(torch.tensor([0, 0, 0]))
for _ in range(12):
    new = logits_of(blocks, texts[:, -1:], caches)[:, -1].argmax(dim=-1)  # (3,)
    texts = torch.cat((texts, new[:, None]), dim=1)
for text in texts.tolist():
    print(repr(tokenizer.decode(text)))

# %% [markdown]
# ## The proof
#
# Now the package: its block, and the cache that the block makes.
# First our block in calls, with gradients that flow through all of them, against the package's
# block in one call without a cache.
# Then both in calls: with a gradient that ends at the call, and without gradients; in a cache that
# doubles, and in one that is long enough.
# The caches live a whole life: a text in calls, a reset, another text, a reset, and the beginning
# of a text whose rows then change places or are doubled, and go on.
# The configurations differ in heads, fading, cuts and length; in each, the second text is padded.
# (The package's block takes its arguments in another order, which `like_ours` mends.)


# %%
def like_ours(layer):
    return lambda x, cache=None, keep=None: layer(x, keep, cache=cache)


def life_of(cache, function, weights, x, cuts, keep):
    """The outputs and gradients of two texts, and of a beginning that goes on in other rows."""
    found, order, cut = [], torch.tensor([1, 1, 0]), cuts[0]

    def read(text, cuts, keep):
        found.append(in_calls(function, text, cache, cuts, keep))
        if found[-1].requires_grad:
            found.extend(slopes(found[-1], [x, *weights]))

    read(x, cuts, keep)
    cache.reset()
    read(x.flip(1), cuts[-1:], None)
    cache.reset()
    read(x[:, :cut], [], keep[:, :cut])
    cache.reorder(order)
    read(x[order, cut:], [], keep[order])
    return found


# %% tags=["proof"]
from zeta_edu import TransformerBlock

largest, double = 0.0, torch.double
cases = [(1, 1, None, [5], 9), (4, 1, 512, [1, 2, 3, 4], 6), (6, 2, 2, [60, 61, 66], 70)]
cases += [(4, 4, 4, [3, 4, 8], 10), (8, 2, 64, [65, 67], 140)]
for h, kv, base, cuts, n in cases:
    options = {"dim_head": 6, "heads": h, "kv_heads": kv, "ff_mult": 2}
    options |= {"use_xpos": base is not None, "xpos_scale_base": base or 512}
    layer = TransformerBlock(10, **options).to(double)
    layer.norm.gamma.data.normal_()
    block = Block(10, h, kv, 6, 20, base or math.inf).to(double)
    for own, weight in zip(block.parameters(), layer.parameters(), strict=True):
        own.data.copy_(weight.data)
    mine, given = list(block.parameters()), list(layer.parameters())
    x = torch.randn(2, n, 10, dtype=double, requires_grad=True)
    keep = torch.arange(n) >= torch.tensor([[0], [3]])  # the second is padded
    output, uncut = in_calls(block, x, JoinedCache(), cuts, keep), layer(x, keep)
    pairs = [([output, *slopes(output, [x, *mine])], [uncut, *slopes(uncut, [x, *given])])]
    for room, wanted in itertools.product((None, n), (True, False)):
        caches = CallBuffer(2, kv, 6, room or 0, double), layer.new_cache(2, room)
        sides = (caches[0], block, mine), (caches[1], like_ours(layer), given)
        with torch.set_grad_enabled(wanted):
            pairs.append([life_of(*side, x, cuts, keep) for side in sides])
        pairs.append((caches[0].kept[..., :n, :], (caches[1].keys, caches[1].values)))
    for own, theirs in itertools.chain(*(zip(*pair, strict=True) for pair in pairs)):
        torch.testing.assert_close(own, theirs, rtol=1e-10, atol=1e-11)
        largest = max(largest, ((own - theirs).abs() / (1 + theirs.abs())).max().item())
print("largest error below 1e-11:", largest < 1e-11)

# %% [markdown]
# What you built is what the package computes, and holds.

# %% [markdown]
# ## What goes wrong: a stale origin
#
# In a step every kept key is multiplied by its fading.
# Would it not be cheaper to fade a key once, before it is kept?
# And where there is no cache, the middle of the text is a good origin, since no factor gets as
# large as from one end.
# Here are both ideas together. Each alone is right: the first as long as all calls have one origin
# and nothing overflows, the second as long as all comes in one call.


# %%
class FadedEarly(Block):
    """Keeps keys that are faded already, from the middle of the text as it is in that call."""

    def place(self, q, k, past):
        q, k = super().place(q, k, past)
        new, d = q.shape[-2:]
        at, middle = torch.arange(past, past + new, dtype=torch.double), (past + new) / 2
        faded = q * fade(at - middle, d, self.scale_base), k * fade(middle - at, d, self.scale_base)
        return [t.to(q.dtype) for t in faded]

    def attend(self, q, k, v, keep):
        new, total = q.shape[-2], k.shape[-2]
        return mix(q, k, v, self.mask(total - new, new))


# %% [markdown]
# The whole text comes out as it should, the same text in calls does not.

# %%
early = FadedEarly(dim=16, heads=4, kv_heads=2, d=8, inner=32, scale_base=8).double()
early.load_state_dict(small.state_dict())
with torch.no_grad():
    expected = small(twelve)
    in_three = in_calls(early, twelve, JoinedCache(), [5, 6])
    print("whole text:", torch.allclose(early(twelve), expected))
    print("in 3 calls:", torch.allclose(in_three, expected))

# %% [markdown]
# On paper: let a key be kept when the text is *L* long, and read by a query when it is *M* long.
# Each took the middle of its own time for the origin, so the product is multiplied by
#
# $$\zeta^{(m - M/2)/B} \cdot \zeta^{(L/2 - n)/B} = \zeta^{(m - n)/B} \cdot \zeta^{-(M - L)/(2B)}.$$
#
# The second factor should not be there.
# It grows with *M* − *L*, by how much the text has grown in between.
# If all comes in single steps, *L* = *n* + 1 and *M* = *m* + 1, and what is left is
# $\zeta^{(m - n)/(2B)}$.
# The block fades half as fast: it has become one with twice the scale base.

# %%
twice = Block(dim=16, heads=4, kv_heads=2, d=8, inner=32, scale_base=16).double()
twice.load_state_dict(small.state_dict())
with torch.no_grad():
    in_steps = in_calls(early, twelve, JoinedCache(), range(1, 12))
    print("a block of twice the scale base:", torch.allclose(in_steps, twice(twelve)))

# %% [markdown]
# What does a reader see of it?
# Let the small model write with such blocks.

# %%
stale = ours(FadedEarly)
print("the same 19 tokens as before:", write(stale, prompt, 19) == written)

# %% [markdown]
# Nothing. The model's scale base is 512, and 28 tokens are short beside that.
# So look closer, at a longer text: the code of this lesson's own functions.
# The *loss* is minus the logarithm of the probability of the token that really comes next
# (lesson 07).

# %%
parts = (whole, step, rotate, fade, fade_both, mix, JoinedCache.extend, Block.attend, Block.forward)
parts += (in_calls, draw_calls, Buffer.make_room)
code = "\n\n".join(inspect.getsource(part) for part in parts)
ids = torch.tensor([tokenizer.encode(code)[:577]])  # (1, 577)
ids.shape


# %%
@torch.no_grad()
def losses(blocks, cuts):
    """The loss of each token but the first, read in calls: (576,)."""
    caches, found = [Buffer(1, 1, 32) for _ in blocks], []
    for start, stop in itertools.pairwise([0, *cuts, ids.shape[1]]):
        found.append(logits_of(blocks, ids[:, start:stop], caches)[0])
    return F.cross_entropy(torch.cat(found)[:-1], ids[0, 1:], reduction="none")


# %%
ways = {"at once": [], "256, then 64s": range(256, 577, 64), "in 64s": range(64, 577, 64)}
moved = {}
for name, cuts in ways.items():
    right, wrong = losses(blocks, cuts), losses(stale, cuts)
    moved[name] = rearrange(wrong - right, "(part n) -> part n", n=64).mean(dim=-1)  # (9,)
    print(f"{name:13}  loss {right.mean():.2f}, with a stale origin {wrong.mean():.2f}")

# %%
figure, axes = plt.subplots(figsize=(7, 2.9))
for (name, change), line in zip(moved.items(), (":", "--", "-"), strict=True):
    axes.plot(torch.arange(32, 576, 64), change, line, color=style.KEY, label=name)
axes.set(xlabel="position, in parts of 64 tokens", ylabel="how much the loss rises")
axes.legend(title="read", loc="upper left")
style.show(
    figure,
    alt="How much higher a stale origin makes the loss, against position. At once: zero "
    "everywhere. In calls of 64: near zero up to 300, then some tenths. After a prompt of 256: "
    "less.",
)

# %% [markdown]
# The right blocks give the same loss however the text is cut; the stale ones do not.
# In the first 250 tokens the damage is too small to see, so a short trial does not find it.
# The symptom to look for is not a bad answer. It is an answer that depends on the cuts.

# %% [markdown]
# ## What goes wrong: the mask's offset
#
# The diagonal of the mask must start at `past`.
# There are two ways to miss it.
# One is to forget the cache, and count from 0.
# The other is to ask the cache for its length *after* the new keys have gone in.


# %%
def from_zero(past, new):
    return causal_mask(0, past + new)[:new]


def too_late(past, new):
    return causal_mask(past + new, new)[:, : past + new]


offsets = {"right": causal_mask, "from zero": from_zero, "too late": too_late}

# %% [markdown]
# Twelve tokens come in calls of 4, 3, 1, 1 and 3.
# Above is the mask of the second call, 4 in the cache and 3 new; below is how far each output is
# from the one of the whole text, with a grey line at every cut.


# %%
def offset_errors(mask):
    """The error of each position, read in calls under this mask: (12,)."""
    one = Block(dim=16, heads=4, kv_heads=2, d=8, inner=32, scale_base=8).double()
    one.load_state_dict(small.state_dict())
    one.mask = mask
    with torch.no_grad():
        return (in_calls(one, twelve, JoinedCache(), [4, 7, 8, 9]) - small(twelve))[0].norm(dim=-1)


# %%
figure, all_axes = plt.subplots(2, 3, figsize=(7.6, 3.8), sharex="row", sharey="row")
for (above, below), (name, mask) in zip(all_axes.T, offsets.items(), strict=True):
    above.imshow(2.0 * mask(4, 3) - 1, cmap=BLANK, vmin=0, vmax=1.6)
    above.set(title=name, xlabel="key", yticks=range(3), yticklabels=range(4, 7))
    below.bar(range(12), offset_errors(mask), color=style.KEY)
    below.set(xlabel="position", xticks=range(0, 12, 2))
    for cut in (4, 7, 8, 9):
        below.axvline(cut - 0.5, color=style.MASK, lw=1)
all_axes[0, 0].set_ylabel("query")
all_axes[1, 0].set_ylabel("error")
style.show(
    figure,
    alt="Masks of a call with four cached keys and three new ones, and errors at twelve positions. "
    "Right: no error. From zero: the first call is right, all else wrong. Too late: the last token "
    "of every call is right, the others wrong.",
)

# %%
for name, mask in offsets.items():
    wrong = (offset_errors(mask) > 1e-6).nonzero().flatten().tolist()
    print(f"{name:9}", wrong)

# %% [markdown]
# From zero, only the first call is right.
# Whoever tests the prefill alone finds nothing.
# Too late, only the last token of each call is right, for it may see everything anyway.
# Whoever tests single steps alone finds nothing, and the prompt looks ahead.
# The test that finds one mistake misses the other; cuts of several kinds find both.
#
# Here is what the model makes of them, after the prompt from above.
# In a stack, wrong outputs become wrong keys one block up, and stay in the cache.

# %%
for name in ("from zero", "too late"):
    wrong = ours()
    for one in wrong:
        one.mask = offsets[name]
    print(f"{name:9}", repr(tokenizer.decode(write(wrong, prompt, 14)[9:])))

# %% [markdown]
# Counted from zero, a step sees the first token and nothing else, and the model runs in circles.
# Too late, it writes something that looks like Python, only from a prompt that it has misread.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. Pairs in each call
#
# Difficulty ★☆☆, 5 minutes.
# `new` (calls,) holds how many tokens come in each call, from an empty cache on: for instance
# 4, 1, 1, 3.
# Return how many pairs of a query and a key each call computes, hidden ones of its own included,
# as a tensor (calls,).


# %% tags=["exercise"]
def pairs_in_calls(new):
    return ...


check("cache.pairs", pairs_in_calls)

# %%
hint("cache.pairs")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def pairs_in_calls(new):
#     return new * new.cumsum(dim=0)
# ```
#
# </details>

# %% [markdown]
# ### 2. A step
#
# Difficulty ★★☆, 10 minutes.
# Write the attention of one step: `query` (heads, d), kept `keys` and `values` (kv, n, d), the new
# token's among them; the result is (heads, d).
# The query heads that share a key head stand in a row: with four and two, heads 0 and 1 read key
# head 0.


# %% tags=["exercise"]
def decode_step(query, keys, values):
    return ...


check("cache.step", decode_step)

# %%
hint("cache.step")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# The queries that share a key head are the rows of one product.
#
# ```python
# from einops import rearrange
#
#
# def decode_step(query, keys, values):
#     grouped = rearrange(query, "(kv g) d -> kv g d", kv=len(keys))
#     scores = grouped @ keys.mT / query.shape[-1] ** 0.5  # (kv, g, n)
#     mixed = scores.softmax(dim=-1) @ values  # (kv, g, d)
#     return rearrange(mixed, "kv g d -> (kv g) d")
# ```
#
# No key is copied for its readers: this is where sharing saves memory traffic.
#
# </details>

# %% [markdown]
# ### 3. A chunk
#
# Difficulty ★★☆, 10 minutes.
# Now several new tokens: `queries` (new, d) belong to the last positions of `keys` and `values`
# (total, d).
# Return their causal attention, (new, d).


# %% tags=["exercise"]
def attend_chunk(queries, keys, values):
    return ...


check("cache.chunk", attend_chunk)

# %%
hint("cache.chunk")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
#
# def attend_chunk(queries, keys, values):
#     at = torch.arange(len(keys))
#     asking = at[len(keys) - len(queries) :]
#     scores = queries @ keys.T / queries.shape[-1] ** 0.5
#     scores = scores.masked_fill(at > asking[:, None], float("-inf"))
#     return scores.softmax(dim=-1) @ values
# ```
#
# </details>

# %% [markdown]
# ### 4. Fading while reading
#
# Difficulty ★★★, 15 minutes.
# `query` (d,) and the kept `keys` (n, d) are turned, and not faded; the query's own key is the
# last.
# Return the scores of the step with xPos, (n,), for `zeta` (d/2,) and a scale base of 8, divided
# by √d.
# Pair *i* is the features *i* and *i* + d/2; multiply its part of the product by its ζ to the power
# of the distance over 8.


# %% tags=["exercise"]
def faded_scores(query, keys, zeta):
    return ...


check("cache.fade", faded_scores)

# %%
hint("cache.fade")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# The query is the origin, so only the keys get factors.
#
# ```python
# import torch
#
#
# def faded_scores(query, keys, zeta):
#     n, d = keys.shape
#     distances = torch.arange(n - 1, -1, -1)
#     factors = zeta ** (distances[:, None] / 8)  # (n, d/2)
#     return (keys * factors.repeat(1, 2)) @ query / d**0.5
# ```
#
# </details>

# %% [markdown]
# ## What you have now
#
# A causal answer never changes once it is given, so a step needs the new token's query only, and
# the keys and values of all.
# Keys are kept turned and not faded; a token's place is the number of tokens before it; the mask
# starts there.
# Cached equals whole at every position, however the text is cut: that is the test.
# A step's work hardly grows while the text is short. The cache grows with every token; when eight
# query heads share a key head, it has an eighth of the size.
#
# **References.**
# Decoding step by step, its memory traffic, and one key head for all: Shazeer 2019,
# [arXiv:1911.02150](https://arxiv.org/abs/1911.02150), sections 2.4 and 3.
# Grouped-query attention: Ainslie et al. 2023,
# [arXiv:2305.13245](https://arxiv.org/abs/2305.13245).
# Gradients that stop at what was kept: Dai et al. 2019, Transformer-XL,
# [arXiv:1901.02860](https://arxiv.org/abs/1901.02860), section 3.2.
# xPos: Sun et al. 2022, [arXiv:2212.10554](https://arxiv.org/abs/2212.10554), section 3.2.
#
# **Next.** The weights of a model are many, and a new task changes them all.
# [Lesson 10](10-lora.ipynb), LoRA, changes a few numbers instead.
# All lessons are on the map of [lesson 00](00-start-here.ipynb).
