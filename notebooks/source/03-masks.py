# %% [markdown]
# # 03 · Masks: what a token may see
#
# A language model learns by guessing the next token of a text, and the whole text lies open
# in front of it.
# Attention looks wherever it likes, so it can simply read the answer.
# **How do you stop a token from looking ahead, and from looking at what is not text at all?**
#
# In this lesson you build the causal mask and the padding mask, and join them.
# You keep the causal mask so that it is built once, and you fit it to a text that grows.
# You also decide what a query gets when there is nothing to see.
# At the end you prove that your masks are those of `zeta_edu`.
#
# It takes about 40 minutes to read and 20 seconds to run.
# You need lesson 01, attention; the heads of lesson 02 are only a leading axis here.

# %%
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from ipywidgets import IntSlider, interact

from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import mask_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("masks",))

# %% [markdown]
# On the map a mask sits on top of the attention: it goes between the scores and the softmax.

# %% [markdown]
# ## A cheat
#
# Take a line of Python.
# Every token offers its place as its key, and what it hands over is itself.

# %%
line = "for x in range ( 3 ) :"
tokens = line.split()
n = len(tokens)
places = torch.eye(n)  # (8, 8): row i has its 1 in column i

# %% [markdown]
# Let every query ask for the place after its own, loudly, and the last one for the first.
# Which token gets most of its attention?

# %%
queries = 20 * places.roll(1, dims=1)  # row i asks for column i + 1
weights = (queries @ places.T / math.sqrt(n)).softmax(dim=-1)  # (query, key); here d is n
for token, row in zip(tokens[:-1], weights, strict=False):
    best = row.argmax()
    print(f"{token:>5} is handed {tokens[best]:5}  (weight {row[best]:.2f})")

# %% [markdown]
# Asked for the next token, this head is right each time, and it knows nothing about Python.
# No guess can be better, so training has every reason to make such a head.
# And it is worth nothing: when the model writes, the next token is not there to be looked at.
#
# So each token may see itself and what came before, and no more.
# This rule is called *causal*.

# %% [markdown]
# ## Row by row
#
# The plain way: for query number *i*, take softmax over the first *i* + 1 scores, and leave the
# other weights at 0.


# %%
def weigh_row_by_row(scores):
    weights = torch.zeros_like(scores)
    for i in range(len(scores)):
        weights[i, : i + 1] = scores[i, : i + 1].softmax(dim=-1)
    return weights


weigh_row_by_row(torch.zeros(4, 4))

# %% [markdown]
# By hand: with equal scores, a query that sees *m* keys gives 1/*m* to each.
# The first sees only itself, and has no choice.

# %% [markdown]
# ## Minus infinity
#
# The loop takes a softmax for each row. We want one for the whole table.
# A key drops out of a softmax by itself, if its *power*, e to its score, is 0.
# With $m_j = 1$ for a key that is seen and 0 for one that is not, we want
#
# $$w_j = \frac{m_j \, e^{s_j}}{\sum_k m_k \, e^{s_k}}.$$
#
# Which score has the power 0?

# %%
math.exp(-math.inf)

# %% [markdown]
# And any finite number plus −∞ is −∞.
# So a mask is a table to *add* to the scores: 0 where a query may see a key, −∞ where not.
# A query may see a key whose position is not larger than its own.
# `positions[:, None]` is a column, so each row of the table belongs to a query.

# %%
positions = torch.arange(4)
sees = positions <= positions[:, None]  # (4 queries, 4 keys)
sees.int()

# %% [markdown]
# As a table to add, where `~` turns True and False round:


# %%
def as_added(sees):
    return torch.zeros(sees.shape).masked_fill(~sees, -math.inf)


as_added(sees)

# %% [markdown]
# Now for the whole line of eight tokens, with scores drawn at random.
# The softmax over all keys gives what the loop gives.

# %%
scores = 2 * torch.randn(n, n)  # (8, 8)
positions = torch.arange(n)
causal = positions <= positions[:, None]  # (8 queries, 8 keys)
torch.allclose((scores + as_added(causal)).softmax(dim=-1), weigh_row_by_row(scores))

# %% [markdown]
# Here are the scores, the mask and the weights.
# What is hidden is hatched; among the scores, green is above 0 and brown below.
# Move over the tables: the cursor is in all three at once, and the sentence below says what
# happens in its cell.
# Switch *causal* off to see what the mask did; padding and cache have their turn soon.

# %%
mask_view(scores, tokens=tokens)

# %% [markdown]
# The hidden cells of a row have weight 0, exactly, and its other cells still sum to 1.

# %% [markdown]
# ## Before softmax, or after?
#
# Why not take the softmax first, and set the weights of hidden keys to 0 afterwards?

# %%
after = scores.softmax(dim=-1) * causal  # (8, 8)
sums = after.sum(dim=-1)

# %%
figure, axes = plt.subplots(figsize=(7, 2.6))
axes.bar(range(n), sums, color=style.OUTPUT)
axes.axhline(1, color="black", ls=":")
axes.set(xlabel="query", ylabel="sum of its weights", xticks=range(n))
axes.set_xticklabels(tokens)
style.show(
    figure,
    alt="Bars: the sums of the weights of eight queries when hidden weights are set to 0 after "
    "the softmax. The first four are below 0.15, the fifth is 0.44, the next two are just below "
    "1, and the last is 1.",
)

# %% [markdown]
# Only the last query, which sees all keys, keeps its 1; `3` nearly does: its hidden keys fit badly.
# What is missing has gone to hidden keys, so the sum itself tells about the future: the more a
# later token would fit, the less is left.
# We come back to this [leak](#What-goes-wrong:-a-mask-that-leaks).
#
# Dividing each row by its sum mends it, on paper: it is the formula above, with both parts of
# the fraction divided by the sum of all powers.

# %%
torch.allclose(after / sums[:, None], weigh_row_by_row(scores))

# %% [markdown]
# In a computer it breaks when a hidden score is far above the others.
# Its power outgrows the others so far that their weights are rounded to 0; then 0 is divided by 0.
# That gives NaN, which stands for *not a number*.

# %%
row = torch.tensor([1.0, 2.0, 200.0])
may = torch.tensor([True, True, False])
after = row.softmax(dim=-1) * may
print("after: ", after / after.sum())
print("before:", row.masked_fill(~may, -math.inf).softmax(dim=-1))

# %% [markdown]
# Here −∞ is filled in instead of added; for finite scores that is the same.
# With −∞ before the softmax, a hidden score has no say, however large it is.
# That is why the mask comes before the softmax.

# %% [markdown]
# ## Padding
#
# A batch is a table of tokens, and texts have different lengths.
# Short ones are filled up with a token that means nothing, the *padding*, on the right or on the
# left.

# %%
lines = ["x = 1", "y += 2 * x", "for x in range ( 3 ) :"]
texts = [line.split() for line in lines]
lengths = torch.tensor([len(text) for text in texts])  # 3, 5 and 8 tokens
right = positions < lengths[:, None]  # (3 texts, 8 keys): True for a real token
left = positions >= n - lengths[:, None]  # the same, with padding on the left
print(right.int(), left.int(), sep="\n")

# %% [markdown]
# No query should see padding, so this is a mask over *keys*.
# A query may see a key that is real *and* not later: `&` joins the two tables.
# An axis of length 1 for the heads, and one for the queries, let one row of `right` serve them
# all.

# %%
right_sees = causal & rearrange(right, "b key -> b 1 1 key")  # (3 texts, 1 head, 8, 8)
left_sees = causal & rearrange(left, "b key -> b 1 1 key")

# %% [markdown]
# The tables that are added to the scores can be added to each other as well: 0 and −∞ make −∞,
# and so do −∞ and −∞.

# %%
summed = as_added(causal) + as_added(rearrange(left, "b key -> b 1 1 key"))
torch.equal(summed, as_added(left_sees))


# %%
def draw_mask(axes, sees):
    """Hatched where a query may not see a key."""
    hidden = torch.zeros(sees.shape).masked_fill(sees, math.nan)
    axes.pcolor(hidden, cmap="Greys", vmin=-0.1, vmax=1, hatch="////", edgecolor=style.MASK, lw=0)
    axes.set(aspect="equal", xlim=(0, n), ylim=(n, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(True)


# %%
figure, axes = plt.subplots(2, 3, figsize=(7, 4.8))
for column, text in enumerate(texts):
    axes[0, column].set_title(f"{len(text)} tokens")
    axes[1, column].set_xlabel("keys", color=style.KEY)
    for row, sees in zip(axes, (right_sees, left_sees), strict=True):
        draw_mask(row[column], sees[column, 0])
axes[0, 0].set_ylabel("padded right\nqueries", color=style.QUERY)
axes[1, 0].set_ylabel("padded left\nqueries", color=style.QUERY)
style.show(
    figure,
    alt="Six masks of 8 by 8. Padded on the right, a triangle with its last columns hidden; padded "
    "on the left, a smaller triangle in the bottom-right corner, and whole rows hidden above it. "
    "The text of 8 tokens needs no padding: a full triangle both times.",
)

# %% [markdown]
# A row is a query, from top to bottom. It sees the white cells; the hatched ones are hidden.
# With padding on the right, the real tokens see what they would see without it: padding comes
# later, and is hidden from them anyway.
# The rows below are queries of the padding itself; nobody reads their answers.
#
# With padding on the left the tokens would see it, but for the mask.
# Padding is put there for writing: the next token goes to the right end, and with padding on the
# left all texts end in the same column.
# But look at the rows above the small triangles.

# %% [markdown]
# ## A query with nothing to see
#
# Some rows are all hatched.
# Padding on the left is a query too, and everything that it could see is padding.
# Its scores are all −∞, and so is their maximum, which softmax subtracts.

# %%
torch.full((3,), -math.inf).softmax(dim=-1)

# %% [markdown]
# −∞ − (−∞) is not a number, and neither is 0/0.
# What should the weights be?
# They cannot sum to 1, since no key may have any.
# The only weights that give nothing to hidden keys are zeros, and the answer is then a vector of
# zeros: this query is handed nothing.
#
# A common way out is a very low number in the place of −∞.
# Let us see what it says to a query with nothing to see.

# %%
low = torch.tensor([1.0, 2.0, 3.0]) - 1e9
low.softmax(dim=-1)

# %% [markdown]
# The scores were 1, 2 and 3, but near −10⁹ the numbers of float32 lie 64 apart: all are now equal.
# The query spreads its attention evenly over what it should *not* see.
# There is no NaN, and no sign that something is wrong.
#
# Here is a way to zeros.
# Leave an empty row unmasked, so that softmax has something to work on, and set its weights to 0
# afterwards.
# For such a row this needs no division afterwards: nothing is left that should sum to 1.


# %%
def masked_softmax(scores, sees):
    """Softmax over the keys that each query sees; zeros for a query that sees none."""
    sees_some = sees.any(dim=-1, keepdim=True)  # (..., query, 1)
    hidden = ~sees & sees_some
    weights = scores.masked_fill(hidden, -math.inf).softmax(dim=-1)
    return weights.masked_fill(~sees_some, 0.0)


# %%
three = torch.tensor([[False, False, False], [True, True, False]])
masked_softmax(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]]), three)

# %% [markdown]
# The first row is zeros. In the second, two keys have equal scores, and the third is hidden.
#
# The gradients of `masked_softmax` are finite as well: `masked_fill` hands none to what it has
# filled.
# (The sine is there because the plain sum of the second row is always 1, and has no slope.)

# %%
some_scores = torch.randn(2, 3, requires_grad=True)
masked_softmax(some_scores, three).sin().sum().backward()
some_scores.grad

# %% [markdown]
# This is the line from the beginning with its first three tokens replaced by padding.
# The rows of the padding are hatched all through, and sum to 0.
# Switch *padding on the* to right, and no query is left without a key.

# %%
mask_view(scores, tokens=tokens, padding=3)

# %% [markdown]
# ## The function
#
# Now put the masks into the attention of lesson 01.
# A mask that comes from outside, such as padding, is an argument; the causal one is made here.
# In these two functions `queries` and `keys` are numbers: how many there are.


# %%
def causal_mask(queries, keys):
    """True where a query may see a key; as many keys as queries (for now)."""
    return torch.arange(keys) <= torch.arange(queries)[:, None]  # (query, key)


def visible(queries, keys, mask=None, causal=False):
    """Which query may see which key, by both masks together."""
    sees = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        sees = causal_mask(queries, keys)
    return sees if mask is None else sees & mask


# %% [markdown]
# Weights and mix are those of lesson 01, with our softmax in place of the plain one.


# %%
def weigh(queries, keys, mask=None, causal=False):
    """How much each query gives to each key that it may see."""
    scores = einsum(queries, keys, "... query d, ... key d -> ... query key")
    sees = visible(*scores.shape[-2:], mask, causal)
    return masked_softmax(scores / math.sqrt(queries.shape[-1]), sees)


def attention(queries, keys, values, mask=None, causal=False):
    """Mix the values by the weights of the keys that each query may see."""
    weights = weigh(queries, keys, mask, causal)
    return einsum(weights, values, "... query key, ... key v -> ... query v")


# %% [markdown]
# The test of a padding mask is simple: a text in a batch gets the answers that it gets alone.
# Three texts, two heads, vectors of four numbers; wherever there is padding, put large numbers,
# so that they would be noticed.

# %%
x = torch.randn(3, 2, n, 4)  # (text, head, token, d)
for name, keep in (("right", right), ("left", left)):
    noisy = x.masked_fill(~rearrange(keep, "b n -> b 1 n 1"), 50.0)
    mask = rearrange(keep, "b n -> b 1 1 n")
    together = attention(noisy, noisy, noisy, mask=mask, causal=True)
    for text in range(3):
        alone = x[text, :, keep[text]]  # (2, its length, 4)
        answers = attention(alone, alone, alone, causal=True)
        torch.testing.assert_close(together[text, :, keep[text]], answers)
    print(f"padded on the {name}: each text as if alone")

# %% [markdown]
# ## Built once, and grown
#
# The causal mask is the same for every layer, every head and every text of one length.
# And a mask for a shorter text is the upper left corner of a longer one.
# So build one square, and cut from it.
# When it is too small, build one at least twice as large: then it is seldom too small.


# %%
class CausalMasks:
    """Causal masks of any length, cut from one square that grows."""

    def __init__(self):
        self.square = torch.ones(0, 0, dtype=torch.bool)
        self.sizes = []

    def __call__(self, n):
        if n > len(self.square):
            positions = torch.arange(2 ** math.ceil(math.log2(n)))
            self.square = positions <= positions[:, None]
            self.sizes.append(len(positions))
        return self.square[:n, :n]


# %%
masks = CausalMasks()
for length in range(1, 1001):
    assert torch.equal(masks(length), causal_mask(length, length))
print("asked for 1000 masks, built", len(masks.sizes), "squares:", *masks.sizes)

# %% [markdown]
# What is cut out is not copied: it is the same memory, seen through a smaller window.

# %%
places = [mask.untyped_storage().data_ptr() for mask in (masks(5), masks.square)]
print("in the same place:", places[0] == places[1])

# %% [markdown]
# All the squares together are at most 4/3 of the last one: each has four times the entries of the
# one before, and 1 + 1/4 + 1/16 + … is 4/3.
# Here is the work, in entries computed, for a text that grows token by token.
# A square is built when the text outgrows the one before, which is half as long.

# %%
grown = range(1, 257)
anew = torch.tensor([length**2 for length in grown]).cumsum(dim=0)
kept = [sum(size**2 for size in masks.sizes if size < 2 * length) for length in grown]
figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(grown, anew, "--", color=style.KEY, label="a new mask for each length")
axes.plot(grown, kept, color=style.QUERY, label="one square that grows")
axes.set(xlabel="length of the text, tokens", ylabel="entries computed", yscale="log")
axes.legend()
style.show(
    figure,
    alt="Entries computed against the length of the text, on a log scale. With a new mask for each "
    "length they pass five million at 256 tokens; with a square that grows, below a hundred "
    "thousand.",
)

# %% [markdown]
# ## More keys than queries
#
# When a model writes, it adds one token at a time.
# The keys and values of all earlier tokens are still there; lesson 09 keeps them in a *cache*.
# Only the new tokens ask.
# So there are fewer queries than keys, and the queries are the *last* tokens.
#
# With 5 keys and 2 queries, the queries stand at positions 3 and 4.

# %%
keys, queries = 5, 2
positions = torch.arange(keys)
asking = positions[keys - queries :]  # 3 and 4
asking, (positions <= asking[:, None]).int()

# %% [markdown]
# The last query sees all five keys, the one before it four.
# These are the bottom rows of the mask for the whole text: the diagonal ends in the bottom-right
# corner.


# %%
def causal_mask(queries, keys):
    """True where a query may see a key: up to its own. The last query stands at the last key."""
    positions = torch.arange(keys)
    return positions <= positions[keys - queries :, None]  # (query, key)


torch.equal(causal_mask(2, 5), causal_mask(5, 5)[-2:])

# %% [markdown]
# `visible` calls `causal_mask` by its name, so from now on it calls this one.
# The new tokens alone get the answers that they get in the whole text.

# %%
whole = attention(x, x, x, causal=True)  # (3 texts, 2 heads, 8, 4)
for new in range(1, n + 1):
    last = attention(x[:, :, -new:], x, x, causal=True)  # (3, 2, new, 4)
    torch.testing.assert_close(last, whole[:, :, -new:])
print("the last 1 to 8 tokens: as in the whole text")

# %% [markdown]
# A mask that is kept serves here too.
# Between the new tokens it is a square, and everything in the cache is before all of them: put
# True in front.
# (Our `attention` makes a new mask each time, to stay short.)

# %%
square, past = masks(2), 3
in_front = F.pad(square, (past, 0), value=True)  # (2 queries, 3 + 2 keys)
torch.equal(in_front, causal_mask(2, 5))

# %% [markdown]
# Move the last slider, *positions in the cache*, and rows disappear from the top: those queries
# have had their turn.
# What stays is as it was.
# At its right end a single token asks, and causality hides nothing from it.

# %%
mask_view(scores, tokens=tokens, past=5)

# %% [markdown]
# ## A test for looking ahead
#
# How would you find out, for any attention at all, whether it looks ahead?
# Change one token, and see which answers change.
# None before it may.


# %%
def influence(function, x):
    """How far the answer of each token (row) moves when each token (column) is changed."""
    columns = []
    for place in range(len(x)):
        changed = x.clone()
        changed[place] += 1.0
        columns.append((function(changed) - function(x)).norm(dim=-1))
    return torch.stack(columns, dim=-1)  # (answer, changed token)


def causal_self_attention(x):
    return attention(x, x, x, causal=True)


# %% [markdown]
# Choose the token to be changed. Python computes both attentions anew.
# (In a page without a running Python you see the picture for one token only.)


# %%
vectors = torch.randn(n, 4)  # (token, d)


def draw_change(place):
    figure, axes = plt.subplots(figsize=(7, 3))
    for shift, function, colour, label in (
        (-0.2, lambda x: attention(x, x, x), style.KEY, "without a mask"),
        (0.2, causal_self_attention, style.QUERY, "causal"),
    ):
        moved = influence(function, vectors)[:, place]
        axes.bar(torch.arange(n) + shift, moved, 0.4, color=colour, label=label)
    axes.set(ylabel="how far its answer moves", title=f"token {place} is changed")
    axes.set_xticks(range(n), tokens)
    axes.axvline(place - 0.5, color="black", ls=":")
    axes.legend()
    style.show(
        figure,
        alt=f"Bars for eight tokens when token {place} is changed. Without a mask all answers "
        "move; with the causal mask none before the changed token does.",
    )


_ = interact(draw_change, place=IntSlider(4, min=0, max=n - 1, continuous_update=False))

# %% [markdown]
# Left of the dotted line, in the past, the causal answers stay where they are, to the last digit.

# %%
table = influence(causal_self_attention, vectors)
print("moved in the past:", table.triu(diagonal=1).max().item())

# %% [markdown]
# `triu(diagonal=1)` keeps what lies above the diagonal, the answers before the changed token.

# %% [markdown]
# ## The proof
#
# Nothing so far has called the masks or the attention of `zeta_edu`.
# Now compare, in double precision: masks, weights, answers, and the gradients of the answers with
# respect to queries, keys and values.
# There are as many keys as queries, or more; padding on the left, on the right, or none; a mask
# with a row for each query; and queries with nothing to see.
# The package keeps its mask between calls, so the lengths go up and down.

# %% tags=["proof"]
from zeta_edu.attention import attention_weights, regular_attention
from zeta_edu.masks import causal_mask as packaged_mask
from zeta_edu.masks import visible_keys

cpu, largest = torch.device("cpu"), 0.0
for few, many in ((1, 1), (3, 3), (2, 5), (1, 6), (8, 8), (150, 155), (4, 4)):  # queries, keys
    assert torch.equal(causal_mask(few, many), packaged_mask(few, many, cpu))
    left = torch.arange(many) >= torch.tensor([[0], [many // 2]])  # (2 texts, keys)
    ragged = torch.rand(2, 1, few, many) > 0.4  # a row for each query
    nothing = torch.zeros(2, 1, few, many, dtype=torch.bool)
    paddings = [rearrange(keep, "b key -> b 1 1 key") for keep in (left, left.flip(1))]
    for mask in (None, *paddings, ragged, nothing):
        for causal in (False, True):
            sees = visible(few, many, mask, causal)
            theirs = visible_keys(few, many, cpu, mask, causal)
            theirs = sees if theirs is None and sees.all() else theirs  # None: all is seen
            assert torch.equal(*torch.broadcast_tensors(sees, theirs))
            sizes = [(2, 3, few, 4), (2, 3, many, 4), (2, 3, many, 4)]
            inputs = [torch.randn(size, dtype=torch.double, requires_grad=True) for size in sizes]
            results = []
            for weights, mix in ((weigh, attention), (attention_weights, regular_attention)):
                output = mix(*inputs, mask=mask, causal=causal)
                slopes = torch.autograd.grad(output.sin().sum(), inputs)
                results.append([weights(*inputs[:2], mask=mask, causal=causal), output, *slopes])
            for one, other in zip(*results, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
                largest = max(largest, (one - other).abs().max().item())
print("largest error below 1e-12:", largest < 1e-12)

# %% [markdown]
# What you built is what the package computes.

# %% [markdown]
# ## What goes wrong: top-left
#
# The first `causal_mask` of this lesson counted queries from 0.
# For a whole text that is right.
# With a cache the first query then stands at the first key, and the diagonal starts in the
# top-left corner.


# %%
def top_left_mask(queries, keys):
    return torch.arange(keys) <= torch.arange(queries)[:, None]  # (query, key)


print("top-left:    ", *top_left_mask(1, 6).int().tolist())
print("bottom-right:", *causal_mask(1, 6).int().tolist())
print("the same for a whole text:", torch.equal(top_left_mask(6, 6), causal_mask(6, 6)))

# %% [markdown]
# One new token with five before it sees the first key, and nothing else, not even itself.
# Its answer is the first token's value.
#
# PyTorch's own attention counts this way too, if you ask for `is_causal`; here with one query.

# %%
q, k, v = torch.randn(3, 1, 1, 6, 4)  # each (1 text, 1 head, 6 tokens, 4)
step = F.scaled_dot_product_attention(q[:, :, -1:], k, v, is_causal=True)
torch.allclose(step[0, 0, 0], v[0, 0, 0])

# %% [markdown]
# No error, no NaN, and a test on whole texts passes.
# The symptom comes only when the model writes: a new token does not get the answer that it gets
# in the whole text.

# %%
whole = attention(q, k, v, causal=True)[0, 0]  # (6, 4)
errors = {"top-left": [], "bottom-right": []}
for length in range(1, 7):
    new, seen, handed = q[:, :, length - 1 : length], k[:, :, :length], v[:, :, :length]
    for name, rule in (("top-left", top_left_mask), ("bottom-right", causal_mask)):
        answer = attention(new, seen, handed, mask=rule(1, length))[0, 0, 0]
        errors[name].append((answer - whole[length - 1]).norm().item())

# %%
figure, axes = plt.subplots(figsize=(7, 2.8))
axes.plot(range(6), errors["top-left"], "o--", color=style.KEY, label="top-left")
axes.plot(range(6), errors["bottom-right"], "o-", color=style.QUERY, label="bottom-right")
axes.set(xlabel="position of the new token", ylabel="error of its answer")
axes.legend()
style.show(
    figure,
    alt="Error of each answer when a text of six tokens is written step by step. Bottom-right it "
    "stays at zero; top-left it is zero for the first token only.",
)

# %% [markdown]
# ## What goes wrong: a row of NaN
#
# Forget the queries with nothing to see, and their answers are NaN.
# But no one looks at padding, so does it matter?
# Let a text with three tokens of padding on the left go through two layers of attention.


# %%
def careless_attention(x, sees):
    weights = (x @ x.T / math.sqrt(x.shape[-1]) + as_added(sees)).softmax(dim=-1)
    return weights @ x


keep = torch.arange(8) >= 3
sees = causal_mask(8, 8) & keep
padded = torch.randn(8, 4)
first = careless_attention(padded, sees)
second = careless_attention(first, sees)
print("NaN after one layer: ", f"{first.isnan().float().mean():.0%}")
print("NaN after two layers:", f"{second.isnan().float().mean():.0%}")

# %% [markdown]
# In the second layer the padding has NaN for a key and for a value.
# Its score is NaN, and NaN − ∞ is NaN: the mask cannot hide it.
# Filling in −∞ would hide the score, but not the value: weight 0 times NaN is NaN.
#
# A quick repair comes to mind: put 0 wherever there is NaN in the weights.
# The weights are then right: zeros in the empty rows, and the others as they were.
# Now look at the gradients, although the loss takes the answers of real tokens only.


# %%
def repaired_attention(x, sees):
    weights = (x @ x.T / math.sqrt(x.shape[-1]) + as_added(sees)).softmax(dim=-1)
    return weights.nan_to_num(0.0) @ x


def careful_attention(x, sees):
    return attention(x, x, x, mask=sees)


# %%
slopes = {}
for function in (careless_attention, repaired_attention, careful_attention):
    text = padded.clone().requires_grad_()
    answers = function(text, sees)
    answers[keep].sin().sum().backward()
    slopes[function.__name__] = text.grad
    shares = [f"{numbers.isnan().float().mean():4.0%}" for numbers in (answers, text.grad)]
    print(f"{function.__name__:18}  NaN in answers: {shares[0]}, in the gradient: {shares[1]}")

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(7.4, 3), sharey=True)
for axes, (name, slope) in zip(all_axes, slopes.items(), strict=True):
    axes.imshow(slope.abs(), vmin=0, vmax=2, aspect="auto")
    axes.set(title=name.removesuffix("_attention"), xlabel="entry of x", xticks=range(4))
all_axes[0].set(ylabel="token", yticks=range(8), yticklabels=["pad"] * 3 + list("abcde"))
style.show(
    figure,
    alt="Sizes of the gradient for eight tokens of four numbers, NaN in red. Careless and repaired "
    "attention are red all over; careful attention has no red, and zeros for the padding.",
)

# %% [markdown]
# Red is NaN; elsewhere darker is larger, and the padding, which no token sees, has 0.
# The gradient of softmax, from lesson 01, has the weights as factors.
# Softmax keeps its own weights for this, the ones before the repair, and NaN times 0 is NaN.
# Every key has met the empty queries, so the NaN reaches all tokens.
# In a model, the matrices that make queries and keys get gradients summed over all tokens, so one
# step of training turns them into NaN.
#
# In ours the softmax never meets an empty row.

# %% [markdown]
# ## What goes wrong: a mask that leaks
#
# Back to the mask after the softmax, without dividing.
# Every hidden weight is 0, and a picture of the weights looks as it should.
# The test for looking ahead is not deceived.


# %%
def leaking_attention(x):
    weights = (x @ x.T / math.sqrt(x.shape[-1])).softmax(dim=-1)
    return (weights * causal_mask(len(x), len(x))) @ x


tables = {
    "before softmax": influence(causal_self_attention, vectors),
    "after softmax": influence(leaking_attention, vectors),
}

# %%
figure, all_axes = plt.subplots(1, 2, figsize=(7.4, 3.8))
for axes, (name, table) in zip(all_axes, tables.items(), strict=True):
    image = axes.imshow(table.masked_fill(table == 0, math.nan), vmin=0, vmax=1, cmap=style.MAP)
    image.cmap.set_bad(style.LIGHT["blank"])
    axes.set(title=f"masked {name}", xlabel="changed token", ylabel="answer")
    axes.set_xticks(range(8), tokens, rotation=90)
    axes.set_yticks(range(8), tokens)
figure.colorbar(image, ax=all_axes, label="how far the answer moves", extend="max")
style.show(
    figure,
    alt="Two tables of 8 answers by 8 changed tokens. Masked before the softmax, all above the "
    "diagonal is grey: nothing moves. Masked after it, cells above the diagonal are coloured.",
)

# %%
for name, table in tables.items():
    ahead = table.triu(diagonal=1)
    print(f"masked {name:14}: moved in the past, at most {ahead.max():.2f}")

# %% [markdown]
# Grey is exactly zero; even the palest colour is not.
# Masked after the softmax, a later token cannot be read, but it can be felt: the better it fits,
# the smaller the answer.
# Training can use such a hint, and then the model's guesses look better than they are.
# Run this test on every attention that you write.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. From tokens to a mask
#
# Difficulty ★☆☆, 5 minutes.
# `tokens` (batch, n) holds the number that stands for each token; 0 is padding, on either side.
# Return a mask (batch, 1, n, n): True where a query may see a key, which is neither padding nor
# later than the query.


# %% tags=["exercise"]
def mask_from_tokens(tokens):
    return ...


check("masks.padding", mask_from_tokens)

# %%
hint("masks.padding")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
# def mask_from_tokens(tokens):
#     positions = torch.arange(tokens.shape[1])
#     causal = positions <= positions[:, None]
#     return causal & (tokens != 0)[:, None, None]
# ```
#
# </details>

# %% [markdown]
# ### 2. A window
#
# Difficulty ★★☆, 10 minutes.
# In some models a token sees only the nearest past, so that long texts cost less.
# Return a mask (query, key) that is True for a token itself and for the two before it.
# `queries` (m, d) stand at the last m of the n positions of `keys` (n, d).


# %% tags=["exercise"]
def window_mask(queries, keys):
    return ...


check("masks.window", window_mask)

# %%
hint("masks.window")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
# def window_mask(queries, keys):
#     positions = torch.arange(len(keys))
#     asking = positions[len(keys) - len(queries) :, None]
#     distance = asking - positions  # how far back each key lies
#     return (distance >= 0) & (distance < 3)
# ```
#
# </details>

# %% [markdown]
# ### 3. Several texts in one row
#
# Difficulty ★★☆, 5 minutes.
# Instead of padding, short texts can be put side by side in one row.
# `text` (n,) holds the number of the text that each token belongs to, in any order: for instance
# 2, 2, 0, 0, 1.
# Return a mask (n, n): a token sees itself and those before it in its own text.


# %% tags=["exercise"]
def own_text_mask(text):
    return ...


check("masks.texts", own_text_mask)

# %%
hint("masks.texts")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
# def own_text_mask(text):
#     positions = torch.arange(len(text))
#     return (text[:, None] == text) & (positions <= positions[:, None])
# ```
#
# </details>

# %% [markdown]
# ### 4. Softmax under a mask, by hand
#
# Difficulty ★★★, 15 minutes.
# Write the softmax over the keys that each query sees, out of exp, sum and division, and zeros
# for a query that sees none.
# `scores` and `sees` are (..., query, key).
# A hidden score may be 1000, and gradients must be finite.
# (Ours from above gets the tick too; try it without −∞.)


# %% tags=["exercise"]
def softmax_over_seen(scores, sees):
    return ...


check("masks.softmax", softmax_over_seen)

# %%
hint("masks.softmax")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
# def softmax_over_seen(scores, sees):
#     lowest = torch.finfo(scores.dtype).min
#     top = scores.masked_fill(~sees, lowest).amax(dim=-1, keepdim=True)  # of what is seen
#     powers = (scores.where(sees, top) - top).exp() * sees
#     return powers / powers.sum(dim=-1, keepdim=True).clamp(min=1)
# ```
#
# The maximum takes the place of every hidden score before the exponential, so that no power is
# infinite: infinity times 0 would be NaN.
# Where something is seen, the maximum has the power 1, so the sum is at least 1, and `clamp`
# changes only the empty rows: 0/1 is 0.
#
# </details>

# %% [markdown]
# ## What you have now
#
# A mask is added to the scores: 0 where a query may see a key, −∞ where not.
# Then hidden keys have weight 0, and what is left sums to 1.
# The causal mask hides what is later, the padding mask what is no text, and both together hide
# what either hides.
# The queries are the last positions, so the diagonal ends bottom-right.
# A query with nothing to see gets zeros, and its gradients stay finite.
# One square, cut and grown, serves all lengths.
#
# **References.**
# Masking later positions by −∞ before the softmax: Vaswani et al. 2017,
# [arXiv:1706.03762](https://arxiv.org/abs/1706.03762), section 3.2.3.
# A window of near tokens, there on both sides: Beltagy et al. 2020, "Longformer",
# [arXiv:2004.05150](https://arxiv.org/abs/2004.05150), section 3.1.
#
# **Next.** The causal mask is the only thing so far that tells the attention about order, and it
# says little: earlier or later, not how far.
# [Lesson 04](04-rotary.ipynb), rotary, gives every token a place.
# All lessons are on the map of [lesson 00](00-start-here.ipynb).
