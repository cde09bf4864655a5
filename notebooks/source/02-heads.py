# %% [markdown]
# # 02 · Many heads, and what they share
#
# One attention gives each token one average of what it looks at.
# To work out `7 - 3`, the minus has to know the number on its left and the number on its right,
# and which is which.
# **What can two small attentions do that a single one cannot?**
#
# In this lesson you cut a vector into heads, let each head attend on its own, and join them again.
# Then you let several heads share their keys and values, which makes a model's memory smaller.
# Then you prove that your module is the attention inside `zeta_edu.TransformerBlock`.
#
# It takes about 40 minutes to read and 20 seconds to run.
# You need the function `attention` of lesson 01, and matrix products.
# One short argument uses a derivative; its result is measured as well.

# %%
import math

import matplotlib.pyplot as plt
import torch
from einops import einsum, rearrange
from ipywidgets import FloatSlider, interact
from torch import nn

from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import attention_view, heads_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("heads", "out"))

# %% [markdown]
# Two boxes are lit: *split heads* before the attention, and *out* behind it.
#
# This is the function of lesson 01, in two parts: the weights, and the mix.


# %%
def weigh(queries, keys):
    """How much of its attention each query gives to each key."""
    scores = einsum(queries, keys, "... query d, ... key d -> ... query key")
    return (scores / math.sqrt(queries.shape[-1])).softmax(dim=-1)


def attention(queries, keys, values):
    """Mix the values by how well each query fits each key."""
    return einsum(weigh(queries, keys), values, "... query key, ... key v -> ... query v")


# %% [markdown]
# ## One head is one average
#
# Take the line `7 - 3`.
# Every token offers its place as its key: a 1 in the column of that place.
# Its value is its number; the minus is worth nothing.

# %%
places = torch.eye(3)  # (3, 3): the keys of 7, - and 3
numbers = torch.tensor([[7.0], [0.0], [3.0]])  # (3, 1): their values

# %% [markdown]
# The minus asks for both of its neighbours, and asks loudly: 20 at either place.
# So each of them has half of its attention, and it gets (7 + 3) / 2.

# %%
both = torch.tensor([[20.0, 0.0, 20.0]])  # (1, 3): one query
print("7 - 3:", round(attention(both, places, numbers).item(), 2))
print("3 - 7:", round(attention(both, places, numbers.flip(0)).item(), 2))

# %% [markdown]
# The average of 3 and 7 is 5 as well.
# Whatever comes behind this head cannot tell the two lines apart.
#
# Two heads can. Each has a query of its own: one asks for the left neighbour, one for the right.
# They read the same keys and values.

# %%
left_and_right = torch.tensor([[[20.0, 0.0, 0.0]], [[0.0, 0.0, 20.0]]])  # (2 heads, 1, 3)
handed = attention(left_and_right, places, numbers)  # (2 heads, 1, 1)
print([round(number, 2) for number in handed.flatten().tolist()])

# %% [markdown]
# Now both numbers are there, side by side.
# A last step subtracts: it takes the first head's number times 1 and the second head's times −1.

# %%
out = torch.tensor([1.0, -1.0])  # one factor for each head
print("7 - 3:", round((out @ handed.flatten()).item(), 2))

# %% [markdown]
# ## Why one head cannot subtract
#
# Perhaps we only chose the wrong query.
# Let the one head give a share *w* of its attention to the left number *a*, and the rest,
# 1 − *w*, to the right number *b*.
# (Attention on the minus, which is worth 0, would only shrink both, and the factor *m* makes up for
# that.)
# The last step multiplies its answer by some factor *m*:
#
# $$m \, \bigl( w \, a + (1 - w) \, b \bigr).$$
#
# To be *a* − *b* for all numbers, $m w$ would have to be 1 and $m (1 - w)$ would have to be −1.
# But neither *w* nor 1 − *w* is negative, since softmax gives no negative weights.
# The first needs a positive *m*, the second a negative one.
#
# How near can it come?
# Take many pairs of random numbers, and for each share the factor with the least error.
# (Least squares: the best factor for $m x \approx y$ is $\sum x y / \sum x^2$.)

# %%
a, b = torch.randn(2, 40_000)
wanted = a - b


def best_answer(share):
    """What one head says with this share on the left, times its best factor."""
    mixed = share * a + (1 - share) * b
    return (mixed @ wanted) / (mixed @ mixed) * mixed


def squared_error(share):
    return (best_answer(share) - wanted).square().mean().item()


# %% [markdown]
# On paper: the answer misses *a* − *b* by $(m w - 1) \, a + (m (1 - w) + 1) \, b$.
# Since *a* and *b* are independent, of mean 0 and variance 1, the mean of *ab* is 0, those of *a*²
# and *b*² are 1, and the mean square is $(m w - 1)^2 + (m (1 - w) + 1)^2$.
# The derivative in *m* is 0 at $m = (2w - 1) / (w^2 + (1 - w)^2)$; there the mean square is least,
#
# $$2 - \frac{(2w - 1)^2}{w^2 + (1 - w)^2}.$$

# %%
for share in (0.0, 0.25, 0.5, 0.75, 1.0):
    formula = 2 - (2 * share - 1) ** 2 / (share**2 + (1 - share) ** 2)
    print(f"share {share:4}   error {squared_error(share):.1f}   formula {formula:.1f}")

# %% [markdown]
# The error is never below 1, and it is 1 only where one of the two numbers is forgotten.
# An even share is worst: saying 0 each time would do as well.
#
# Move the share and watch the answers, one dot for each pair of numbers.
# On the dotted lines they would be right, as those of two heads are.
# (In a page without a running Python you see the picture for one share only.)


# %%
def draw_share(share):
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
    left.plot(wanted[:400], best_answer(share)[:400], ".", color=style.OUTPUT, ms=3)
    left.axline((0, 0), slope=1, color="black", ls=":")
    left.set(xlabel="wanted: a − b", ylabel="one head's answer", xlim=(-5, 5), ylim=(-5, 5))
    shares = torch.linspace(0, 1, 41).tolist()
    right.plot(shares, [squared_error(s) for s in shares], color=style.OUTPUT, label="one head")
    right.plot(share, squared_error(share), "o", color=style.OUTPUT, label="this share")
    right.plot([0, 1], [0, 0], color="black", ls=":", label="two heads")
    right.set(xlabel="share on the left number", ylabel="mean squared error", ylim=(-0.1, 2.2))
    right.legend(loc="center")
    style.show(
        figure,
        alt=f"Left: one head's best answers with share {share:.2f} against the wanted ones, far "
        "off the line where they would be right. Right: its error over the share, a hill from 1 "
        "at both ends to 2 in the middle; two heads have none.",
    )


# %%
slider = FloatSlider(0.8, min=0, max=1, step=0.05, continuous_update=False)
_ = interact(draw_share, share=slider)

# %% [markdown]
# The argument holds where, as here, the weights do not depend on the numbers, nor the values on
# their place.
# Otherwise more is possible; but one head still hands over one average, and its weights are still
# not negative.
#
# Here are two heads on a longer line.
# Every minus asks left in head 0 and right in head 1.
# All other tokens ask for nothing, so their attention is spread evenly.

# %%
line = "7 - 3 , 3 - 7 , 9 - 2"
tokens = line.split()
minus = torch.tensor([token == "-" for token in tokens])  # (11,)
place = torch.eye(len(tokens))  # (11, 11): row i has its 1 in column i
left, right = place.roll(-1, dims=1), place.roll(1, dims=1)  # ... in column i − 1, or i + 1
queries = 30 * minus[:, None] * torch.stack([left, right])  # (2 heads, 11, 11)

# %%
weights = weigh(queries, place)  # (2 heads, 11, 11)
attention_view(weights[None], tokens, layer=0, head=0, query=1)

# %% [markdown]
# Choose head 1, and every minus looks to the other side.
# (There is one layer here, and `None` gave it its axis.)
# Mix the numbers, subtract, and all three are solved, to a tenth.

# %%
numbers = torch.tensor([[float(token) if token.isdigit() else 0.0] for token in tokens])
handed = weights @ numbers  # (2 heads, 11, 1)
answers = handed[0] - handed[1]  # (11, 1)
[round(answer, 1) for answer in answers[minus, 0].tolist()]

# %% [markdown]
# ## Split
#
# In a model the queries of all heads come out of one matrix product, side by side in one long
# vector.
# Splitting cuts this vector into pieces, one for each head.
#
# To see where each number goes, number them: tens for the token, units for the place in its
# vector.

# %%
n, heads, d = 3, 2, 4
x = 10 * torch.arange(n)[:, None] + torch.arange(heads * d)  # (3, 8)
x

# %% [markdown]
# Head 0 takes the first four numbers of every token, head 1 the last four.

# %%
looped = torch.stack([x[:, head * d : (head + 1) * d] for head in range(heads)])  # (2, 3, 4)
looped

# %% [markdown]
# `rearrange` says the same in words.
# `(h d)` is an axis that holds `h` pieces of `d` numbers; behind the arrow the pieces have become
# an axis of their own.

# %%
split = rearrange(x, "n (h d) -> h n d", h=heads)  # (2, 3, 4)
torch.equal(split, looped)

# %% [markdown]
# Merging is the same sentence read backwards.

# %%
merged = rearrange(split, "h n d -> n (h d)")  # (3, 8)
torch.equal(merged, x)

# %% [markdown]
# As a picture, with a colour for each token:

# %%
SHADES = ("#CFE3F1", "#8FBFDF", "#4E97C4")  # tokens 0, 1 and 2


def draw_numbers(axes, table, title):
    """A table of numbered entries, each in the colour of the token that it came from."""
    axes.set(title=title, xlim=(0, table.shape[1]), ylim=(len(table), 0), aspect="equal")
    axes.set_axis_off()
    for row, numbers in enumerate(table.tolist()):
        for column, number in enumerate(numbers):
            shade = SHADES[number // 10]
            axes.add_patch(plt.Rectangle((column, row), 0.95, 0.95, color=shade))
            axes.text(column + 0.47, row + 0.52, str(number), ha="center", va="center")


# %%
figure, axes = plt.subplots(1, 3, figsize=(7.4, 1.6), width_ratios=(2, 1, 1))
draw_numbers(axes[0], x, "one vector for each token")
draw_numbers(axes[1], split[0], "head 0")
draw_numbers(axes[2], split[1], "head 1")
style.show(
    figure,
    alt="Three rows of eight numbers, one row for each token; beside them head 0 with the first "
    "four and head 1 with the last four numbers of every row.",
)

# %% [markdown]
# In each head, a row is still a token.

# %% [markdown]
# ## Multi-head attention
#
# Now with real vectors: 5 tokens of 8 numbers, and the matrices that make queries, keys and
# values of them.
# As in PyTorch, row *i* of a matrix makes number *i* of the result: so `x @ w.T`.

# %%
n, dim = 5, 8
x = torch.randn(n, dim, dtype=torch.double)
# (heads · d, dim) each, and w_out (dim, heads · d): both sizes are 8 here.
w_q, w_k, w_v, w_out = torch.randn(4, 8, dim, dtype=torch.double) / math.sqrt(dim)

# %% [markdown]
# First as a loop.
# Each head has four rows of `w_q`, `w_k` and `w_v` to itself, and attends as if it were alone.

# %%
mixes = []
for head in range(heads):
    rows = slice(head * d, (head + 1) * d)
    q, k, v = x @ w_q[rows].T, x @ w_k[rows].T, x @ w_v[rows].T  # (5, 4) each
    mixes.append(attention(q, k, v))
side_by_side = torch.cat(mixes, dim=-1)  # (5, 8)

# %% [markdown]
# Then all heads at once.
# The head is one more leading axis, and `attention` takes it in with its three dots.

# %%
q, k, v = (rearrange(x @ w.T, "n (h d) -> h n d", h=heads) for w in (w_q, w_k, w_v))
mixed = attention(q, k, v)  # (2, 5, 4)
merged = rearrange(mixed, "h n d -> n (h d)")  # (5, 8)
torch.allclose(merged, side_by_side)

# %% [markdown]
# The merged vector is a row of heads that have not met yet.
# A last matrix, the box *out*, lets every number of the output take from every head.
# In the subtraction it was (1, −1).

# %%
output = merged @ w_out.T  # (5, 8)

# %% [markdown]
# A product with a long vector is the sum of products with its pieces.
# So each head has columns of `w_out` of its own, and the heads simply add up.

# %%
columns = rearrange(w_out, "dim (h d) -> h dim d", h=heads)  # (2, 8, 4)
added = mixed[0] @ columns[0].T + mixed[1] @ columns[1].T  # (5, 8)
torch.allclose(added, output)

# %% [markdown]
# Remember this when you look at heads: each adds its own part to the output, and no head sees
# what the others beside it have found; only the next layer sees it.
#
# Do more heads cost more?
# One head of 512 numbers, or 8 heads of 64: the matrices have the same 512 rows.
# A score takes as many multiplications as a head is wide, and each head has a score for every
# pair of tokens.

# %%
n = 1000
for heads, d in ((1, 512), (8, 64), (64, 8)):
    print(f"{heads:2} heads of {d:3}: {heads * n * n * d:,} multiplications for the scores")

# %% [markdown]
# The vector is divided among the heads, not copied for each, so the products cost the same.
# What grows is the number of weights, with the number of heads; and each head has fewer numbers to
# tell keys apart by.
# There can be too many: in the experiments of the paper that introduced them, 8 heads of 64 did
# better than 1 of 512, and than 32 of 16 (Vaswani et al., table 3, rows A; references below).

# %% [markdown]
# ## Heads that share
#
# In the subtraction both heads had the same keys, the places, and the same values, the numbers.
# Only their queries differed.
# So keys and values need not exist once for each head.
#
# Why would one want fewer?
# A model that writes keeps the keys and values of all tokens so far, so that it need not compute
# them again for each new one.
# This store is the *KV cache*, and lesson 09 builds it.
# Each new token has to read all of it, and moving those numbers is often what makes writing slow
# (Shazeer, who introduced the sharing; references below).
#
# Let 4 query heads share 2 heads of keys and 2 of values: query heads 0 and 1 read the first of
# each, query heads 2 and 3 the second.

# %%
heads, kv_heads, d = 4, 2, 3
queries = torch.randn(heads, 5, d, dtype=torch.double)  # (4, 5, 3)
keys, values = torch.randn(2, kv_heads, 5, d, dtype=torch.double)  # (2, 5, 3) each

# %% [markdown]
# In a loop it is a division: with 2 query heads to a group, query head 3 reads head 3 // 2 = 1.

# %%
group = heads // kv_heads
looped = torch.stack(
    [attention(queries[h], keys[h // group], values[h // group]) for h in range(heads)]
)  # (4, 5, 3)

# %% [markdown]
# Without a loop, one can copy each key head for every query head that reads it.

# %%
copied = keys.repeat_interleave(group, dim=0)  # (4, 5, 3): heads 0, 0, 1, 1
copied_values = values.repeat_interleave(group, dim=0)
torch.allclose(attention(queries, copied, copied_values), looped)

# %% [markdown]
# But the copies cost the very memory that sharing should save.
# Instead, split the axis of query heads in two, (group, member), and give keys and values an axis
# of length 1 where the queries have their members.
# An axis of length 1 serves all entries of the other side, without a copy.


# %%
def shared_attention(queries, keys, values):
    """Attention in which query heads in a row read the same head of keys and values."""
    kv_heads = keys.shape[-3]
    queries = rearrange(queries, "... (kv g) n d -> ... kv g n d", kv=kv_heads)
    keys, values = (rearrange(t, "... kv m d -> ... kv 1 m d") for t in (keys, values))
    mixed = attention(queries, keys, values)  # (..., kv, g, n, d)
    return rearrange(mixed, "... kv g n d -> ... (kv g) n d")


torch.allclose(shared_attention(queries, keys, values), looped)

# %% [markdown]
# The function has no setting. How much is shared, it reads from the keys.
#
# As many key heads as query heads is **multi-head** attention.
# A single one for all is **multi-query** attention.
# Anything between is **grouped-query** attention.
# (A head of keys always comes with its head of values; the pair is called a key/value head.)
# Here is who reads whom, for 8 query heads.

# %%
figure, all_axes = plt.subplots(1, 4, figsize=(7.4, 3), width_ratios=(8, 4, 2, 2))
for axes, kv_heads in zip(all_axes, (8, 4, 2, 1), strict=True):
    reads = torch.eye(kv_heads).repeat_interleave(8 // kv_heads, dim=0)  # (8, kv_heads)
    axes.imshow(reads, vmin=0, vmax=1.5)
    axes.set(xticks=range(kv_heads), yticks=range(8), xlabel="key head", title=f"{kv_heads}")
all_axes[0].set(ylabel="query head", title="8 key heads")
style.show(
    figure,
    alt="Four tables of 8 query heads by 8, 4, 2 and 1 key heads. A dark cell shows which key "
    "head is read: the diagonal, then runs of 2, of 4, and of all 8 query heads.",
)

# %% [markdown]
# ## The module
#
# Put together: four matrices, split, attend, merge, out.
# `dim` is the length of a token's vector, `dim_head` the d of one head.


# %%
class HeadedAttention(nn.Module):
    """Multi-head, grouped-query or multi-query attention, by the number of `kv_heads`."""

    def __init__(self, dim, dim_head, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_k = nn.Linear(dim, kv_heads * dim_head, bias=False)
        self.to_v = nn.Linear(dim, kv_heads * dim_head, bias=False)
        self.out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, x):
        q = rearrange(self.to_q(x), "... n (h d) -> ... h n d", h=self.heads)
        k = rearrange(self.to_k(x), "... n (kv d) -> ... kv n d", kv=self.kv_heads)
        v = rearrange(self.to_v(x), "... n (kv d) -> ... kv n d", kv=self.kv_heads)
        mixed = shared_attention(q, k, v)  # (..., h, n, d)
        return self.out(rearrange(mixed, "... h n d -> ... n (h d)"))


# %%
x = torch.randn(2, 10, 512)  # (batch, token, dim)
for kv_heads in (8, 2, 1):
    print(kv_heads, tuple(HeadedAttention(512, 64, 8, kv_heads)(x).shape))

# %% [markdown]
# Whatever is shared, the output has the same shape.
# What differs is the number of parameters, and what each token leaves in the cache: a key and a
# value of `dim_head` numbers for each key/value head.
#
# By hand, for 8 heads of 64 and `dim` = 512: a query matrix has 512 · 512 = 262,144 parameters,
# and so has `out`.
# With 2 key/value heads, the key matrix has 2 · 64 · 512 = 65,536, a quarter.
# In each layer a token leaves 2 · (64 + 64) = 256 numbers, which is 512 bytes at 16 bits, or 2
# bytes, each.

# %%
for kv_heads in (8, 4, 2, 1):
    module = HeadedAttention(512, 64, 8, kv_heads)
    parameters = sum(weight.numel() for weight in module.parameters())
    cached = kv_heads * (64 + 64) * 2  # bytes
    print(f"{kv_heads} key/value heads: {parameters:9,} parameters, {cached:5,} bytes per token")

# %% [markdown]
# From multi-head to multi-query the parameters fall by less than half, the cache to an eighth.
# So it is the cache that sharing is for.
#
# In the view below, point at a query head to see what it reads.
# Then choose another number of key/value heads, and more tokens in the cache.

# %%
heads_view(8, 2)

# %% [markdown]
# Here are the sizes of a large model, PaLM: 118 layers, tokens of 18,432 numbers, 48 heads of 256,
# and one key/value head (references below).
# For one text of 2,048 tokens, at 2 bytes a number, its cache takes
# 118 · 2,048 · (256 + 256) · 2 bytes = 247 MB.
# Choose 48 and read what multi-head attention would have taken.

# %%
heads_view(48, 1, dim_head=256, dim=18432, layers=118, context=2048)

# %% [markdown]
# ## What sharing gives up
#
# Every shared attention *is* a multi-head attention: one in which the key/value heads of a group
# happen to be equal.
# Copy the rows of the shared matrices, and the output stays the same.
# (`state_dict` is PyTorch's dictionary of a module's weights, by name.)

# %%
shared = HeadedAttention(16, 4, heads=4, kv_heads=2)
full = HeadedAttention(16, 4, heads=4, kv_heads=4)
weights = shared.state_dict()
for name in ("to_k.weight", "to_v.weight"):
    matrices = rearrange(weights[name], "(kv d) dim -> kv d dim", kv=2)
    weights[name] = rearrange(matrices.repeat_interleave(2, dim=0), "h d dim -> (h d) dim")

# %%
full.load_state_dict(weights)
x = torch.randn(1, 6, 16)
torch.allclose(full(x), shared(x), atol=1e-6)

# %% [markdown]
# The other way round it does not work in general: heads that differ need keys of their own.
# In training, a shared key head is pulled by all its readers at once.
# Its gradient is the sum of those of the copies.

# %%
for module in (full, shared):
    module(x).square().sum().backward()
copies = rearrange(full.to_k.weight.grad, "(kv g d) dim -> kv g d dim", kv=2, g=2)
summed = rearrange(copies.sum(dim=1), "kv d dim -> (kv d) dim")
torch.allclose(summed, shared.to_k.weight.grad, atol=1e-5)

# %% [markdown]
# How much a trained model loses by sharing cannot be computed, only measured.
# With a single key/value head Shazeer reports a minor loss, and PaLM's authors none.
# With a few, Ainslie et al. report a quality close to multi-head (references below).

# %% [markdown]
# ## The proof
#
# Now compare with the package, in double precision: outputs and all gradients.
#
# First its attention function with shared keys, for several numbers of heads, and with more keys
# than queries.
# Then the whole way through `TransformerBlock`: its matrix, its split, its attention, its merge
# and its output matrix, with its weights copied into your module.
# The block holds more than attention, and the rest is kept out: `causal=False` means no mask, the
# feed-forward half gets a matrix of zeros, and the rotary step (lesson 04) is replaced by one that
# does nothing.
# Qk norm (lesson 06) is off unless asked for, and without a mask there is no xPos (lesson 05).
# The norm in front stays, so your module gets the normed input too.

# %% tags=["proof"]
from zeta_edu.attention import regular_attention


def results(output, inputs):
    """The output and its gradients; the sine gives each entry a gradient of its own."""
    return [output, *torch.autograd.grad(output.sin().sum(), inputs)]


def largest_error(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    return max((one - two).abs().max().item() for one, two in zip(ours, theirs, strict=True))


cases = [(1, 1, 1, 1, 2), (8, 8, 3, 5, 4), (8, 2, 4, 4, 6), (6, 1, 2, 7, 3)]
errors = []
for heads, kv_heads, n, m, d in cases:  # n queries, m keys
    sizes = (2, heads, n, d), (2, kv_heads, m, d), (2, kv_heads, m, d)
    inputs = [torch.randn(size, dtype=torch.double, requires_grad=True) for size in sizes]
    both = [results(f(*inputs), inputs) for f in (shared_attention, regular_attention)]
    errors.append(largest_error(*both))
print("largest error below 1e-11:", max(errors) < 1e-11)

# %% [markdown]
# Now the block.

# %% tags=["proof"]
from unittest.mock import patch

from zeta_edu import TransformerBlock

errors = []
for heads, kv_heads in ((1, 1), (6, 6), (6, 3), (6, 2), (6, 1)):
    block = TransformerBlock(16, 4, causal=False, heads=heads, kv_heads=kv_heads).double()
    block.ff_out[-1].weight.data.zero_()  # no feed-forward
    fused, block_out = block.fused_attn_ff_proj.weight, block.attn_out.weight
    module = HeadedAttention(16, 4, heads, kv_heads).double()
    matrices = [part.weight for part in (module.to_q, module.to_k, module.to_v, module.out)]
    copied = (*fused.split(block.fused_dims)[:3], block_out)  # q, k, v, out
    for ours, theirs in zip(matrices, copied, strict=True):
        ours.data.copy_(theirs)
    x = torch.randn(2, 7, 16, dtype=torch.double, requires_grad=True)
    with patch("zeta_edu.block.rotate", lambda vectors, cos, sin: vectors):  # no rotary
        output, x_grad, fused_grad, out_grad = results(block(x), [x, fused, block_out])
    theirs = [output, x_grad, *fused_grad.split(block.fused_dims)[:3], out_grad]
    ours = results(module(block.norm(x)), [x, *matrices])
    errors.append(largest_error(ours, theirs))
print("largest error below 1e-11:", max(errors) < 1e-11)

# %% [markdown]
# From the normed input to the output of attention, what you built is what the package computes.
# The package makes queries, keys and values with one matrix instead of three; lesson 07 says why.

# %% [markdown]
# ## What goes wrong: cutting without moving
#
# A tensor is a row of numbers in memory, and a shape that says how to read it.
# `view` changes the shape and moves nothing.
# So it is tempting to go from (n, h · d) to (h, n, d) in one step, as the numbers fit.

# %%
n, heads, d = 3, 2, 4
x = 10 * torch.arange(n)[:, None] + torch.arange(heads * d)  # (3, 8), numbered as before
wrong = x.view(heads, n, d)  # (2, 3, 4), and no error

# %%
figure, axes = plt.subplots(1, 5, figsize=(7.4, 1.7), width_ratios=(4, 4, 1, 4, 4))
draw_numbers(axes[0], split[0], "head 0, right")
draw_numbers(axes[1], split[1], "head 1, right")
axes[2].set_axis_off()
draw_numbers(axes[3], wrong[0], "head 0, wrong")
draw_numbers(axes[4], wrong[1], "head 1, wrong")
style.show(
    figure,
    alt="Right: in both heads row 0 comes from token 0, row 1 from token 1, row 2 from token 2. "
    "Wrong: head 0 has token 0 in its rows 0 and 1, and half of token 1 in its row 2.",
)

# %% [markdown]
# The row that should be token 1 of head 0 is the other half of token 0.
# Head 0 is made of the first token and a half, head 1 of the rest.
#
# The shape is right, there is no error, and a test of "split, then merge" passes too:
# the wrong merge undoes the wrong split.

# %%
torch.equal(wrong.view(n, heads * d), x)

# %% [markdown]
# Here is a test that does see it.
# Attention without a mask knows no order: shuffled keys and values change nothing (lesson 01), and
# shuffled queries only shuffle the outputs.
# So shuffle the tokens, and the outputs are shuffled with them, and otherwise the same.


# %%
def shuffling_error(split, merge, n=6):
    """How far the output for shuffled tokens is from the shuffled output."""
    torch.manual_seed(1)
    x, order = torch.randn(n, 32), torch.randperm(n)
    matrices = torch.randn(3, 32, 32) / math.sqrt(32)

    def attend(x):
        return merge(attention(*(split(x @ matrix) for matrix in matrices)))

    return (attend(x[order]) - attend(x)[order]).abs().max().item()


right_error = shuffling_error(
    lambda x: rearrange(x, "n (h d) -> h n d", h=4), lambda x: rearrange(x, "h n d -> n (h d)")
)
wrong_error = shuffling_error(lambda x: x.view(4, 6, 8), lambda x: x.reshape(6, 32))
print(f"right: below 1e-5: {right_error < 1e-5}   wrong: {wrong_error:.1f}")

# %% [markdown]
# To do it by hand, cut the last axis first, which leaves every number in its token, and then swap
# the axes of tokens and heads.

# %%
by_hand = x.view(n, heads, d).transpose(0, 1)  # (3, 2, 4), then (2, 3, 4)
torch.equal(by_hand, split)

# %% [markdown]
# ## What goes wrong: heads in the wrong order
#
# `repeat_interleave` copies each entry in place: heads 0, 0, 1, 1.
# `repeat` copies the whole row of heads: 0, 1, 0, 1.
# The shapes are the same, and each key head serves as many query heads as before.


# %%
def wrongly_shared(queries, keys, values):
    group = queries.shape[-3] // keys.shape[-3]
    return attention(queries, keys.repeat(group, 1, 1), values.repeat(group, 1, 1))


# %%
queries, wrong_errors = torch.randn(8, 5, 4), {}
for kv_heads in (8, 4, 2, 1):
    keys, values = torch.randn(2, kv_heads, 5, 4)
    right = shared_attention(queries, keys, values)
    error = (wrongly_shared(queries, keys, values) - right).abs().amax(dim=(1, 2))  # (8,)
    wrong_errors[kv_heads] = error
    wrong_heads = (error > 1e-4).nonzero().flatten().tolist()
    print(f"{kv_heads} key heads: wrong are the query heads {wrong_heads}")

# %% [markdown]
# With as many key heads as query heads nothing is copied, and with a single one there is nothing
# to mix up.
# So a test of these two cases sees nothing.
# With 2 or 4 key heads, half of these query heads or more read the keys and values of another
# group.

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(7.4, 3), width_ratios=(2, 2, 5))
for axes, row, title in ((left, [0, 0, 0, 0, 1, 1, 1, 1], "right"), (middle, [0, 1] * 4, "wrong")):
    axes.imshow(torch.eye(2)[row], vmin=0, vmax=1.5)
    axes.set(xticks=range(2), yticks=range(8), title=title, xlabel="key head", ylabel="query head")
right.bar(range(8), wrong_errors[2], color=style.OUTPUT)
right.set(xlabel="query head", ylabel="largest error", xticks=range(8), title="2 key heads")
style.show(
    figure,
    alt="Left: query heads 0 to 3 read key head 0 and 4 to 7 key head 1. Middle: they read 0 and 1 "
    "in turn. Right: bars of the error, none for query heads 0, 2, 5 and 7, tall for the others.",
)

# %% [markdown]
# Is the wrong order worse? Put the query heads in the order 0, 4, 1, 5, 2, 6, 3, 7, and reading in
# turn is right again.

# %%
order = rearrange(torch.arange(8), "(kv g) -> (g kv)", kv=2)
keys, values = torch.randn(2, 2, 5, 4)
mended = wrongly_shared(queries[order], keys, values)
torch.allclose(mended, shared_attention(queries, keys, values)[order], atol=1e-6)

# %% [markdown]
# So it is the same attention with its query heads renamed.
# A model trained that way starts from random heads, which have no order, and is none the worse.
# The mistake shows when weights come from elsewhere: they were trained to be read in runs.
# That is why an order has to be agreed on, and why the proof tests numbers of key/value heads
# between one and all.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. Split into heads
#
# Difficulty ★☆☆, 5 minutes.
# Split `x` (..., n, 3 · d) into 3 heads: (..., 3, n, d).
# Head 0 has the first d numbers of every token.
# There may be leading axes, such as one for several texts.


# %% tags=["exercise"]
def split_heads(x):
    return ...


check("heads.split", split_heads)

# %%
hint("heads.split")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# from einops import rearrange
#
#
# def split_heads(x):
#     return rearrange(x, "... n (h d) -> ... h n d", h=3)
# ```
#
# </details>

# %% [markdown]
# ### 2. Out of the heads
#
# Difficulty ★★☆, 10 minutes.
# `mixed` (..., h, n, d) is what each head found, and `weight` (dim, h · d) the matrix *out*.
# Merge the heads and multiply; the result is (..., n, dim).


# %% tags=["exercise"]
def join_heads(mixed, weight):
    return ...


check("heads.join", join_heads)

# %%
hint("heads.join")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# from einops import rearrange
#
#
# def join_heads(mixed, weight):
#     return rearrange(mixed, "... h n d -> ... n (h d)") @ weight.T
# ```
#
# </details>

# %% [markdown]
# ### 3. Shared keys and values
#
# Difficulty ★★☆, 15 minutes.
# Write attention for queries (..., heads, n, d), keys and values (..., kv_heads, m, d), where
# query heads in a row share a key/value head; kv_heads divides heads.
# The result is (..., heads, n, d).
# Use what you like, but not `shared_attention` itself.
# The scores are divided by √d, as ever.


# %% tags=["exercise"]
def grouped_attention(queries, keys, values):
    return ...


check("heads.shared", grouped_attention)

# %%
hint("heads.shared")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def grouped_attention(queries, keys, values):
#     group = queries.shape[-3] // keys.shape[-3]
#     keys = keys.repeat_interleave(group, dim=-3)  # (..., heads, m, d)
#     values = values.repeat_interleave(group, dim=-3)
#     scores = queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
#     return scores.softmax(dim=-1) @ values
# ```
#
# </details>

# %% [markdown]
# ### 4. From many to few
#
# Difficulty ★★★, 15 minutes.
# A trained multi-head model can be turned into a grouped one: the key matrices of the heads of a
# group are averaged, so are their value matrices, and then it is trained a little more.
# `weight` (h · 4, dim) is the key matrix of h heads of 4 numbers, h even.
# Return the key matrix of 2 heads, (2 · 4, dim): the first is the average of the first h / 2
# heads, the second that of the others.


# %% tags=["exercise"]
def average_heads(weight):
    return ...


check("heads.average", average_heads)

# %%
hint("heads.average")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# from einops import reduce
#
#
# def average_heads(weight):
#     return reduce(weight, "(kv g d) dim -> (kv d) dim", "mean", kv=2, d=4)
# ```
#
# `reduce` averages over every name that is missing behind the arrow: here `g`, the heads of a
# group.
#
# </details>

# %% [markdown]
# ## What you have now
#
# One head hands over one average; two heads hand over two, side by side, and the matrix *out*
# decides what to make of them.
# Splitting cuts the vector of each token into heads and makes the head a leading axis.
# Merging undoes it, and in *out* the heads add up.
# Query heads in a row may share their keys and values: multi-head, grouped-query and multi-query
# attention are one function.
# Sharing saves some parameters and, with few key/value heads, most of the cache.
#
# **References.**
# Multi-head attention: Vaswani et al. 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762),
# section 3.2.2, which gives the averaging of a single head as the reason for several; table 3,
# rows A, for how many.
# Multi-query attention: Shazeer 2019, [arXiv:1911.02150](https://arxiv.org/abs/1911.02150),
# section 3; its abstract for what slows writing down.
# Averaging the heads of a trained model, and grouped-query attention: Ainslie et al. 2023,
# [arXiv:2305.13245](https://arxiv.org/abs/2305.13245), sections 2.1 and 2.2.
# PaLM and its sizes: Chowdhery et al. 2022, [arXiv:2204.02311](https://arxiv.org/abs/2204.02311),
# section 2 and table 1.
#
# **Next.** Until now every token sees every other, the later ones too.
# [Lesson 03](03-masks.ipynb), masks, says who may see whom.
# All lessons are on the map of [lesson 00](00-start-here.ipynb).
