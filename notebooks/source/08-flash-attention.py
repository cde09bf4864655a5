# %% [markdown]
# # 08 · Flash attention
#
# Attention writes down a table with a score for every query and every key, and most of its
# memory goes there.
# Softmax seems to need the table: it divides by the sum of a whole row.
# **Can you take the softmax of a row that you only ever see in pieces?**
#
# In this lesson you build attention that never works on more than one small tile of the table at a
# time, forwards and backwards, and gives the same numbers.
# You prove that it is the tiled attention of `zeta_edu`; then you measure what it saves.
#
# It takes about 50 minutes to read and 25 seconds to run.
# You need attention, shared keys and the causal mask, lessons 01 to 03, and the chain rule for
# derivatives.

# %%
import math
import os
from importlib.util import find_spec

os.environ["KINETO_LOG_LEVEL"] = "99"  # or the profiler, used further on, writes to the screen

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import repeat
from ipywidgets import SelectionSlider, interact
from torch.profiler import ProfilerActivity, profile

from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import flash_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("flash",))

# %% [markdown]
# On the map, *flash* is another way through the same attention: nothing before or behind it
# changes.

# %% [markdown]
# ## A table that grows with the square
#
# Take one head with vectors of 64 numbers, four bytes each.
# Queries, keys, values and the output are four lists of *n* vectors.
# The table of scores has *n* · *n* numbers.

# %%
for n in (1024, 8192, 131_072):
    vectors, table = 4 * n * 64 * 4, n * n * 4  # bytes
    print(f"n = {n:7,}: vectors {vectors / 2**20:4.0f} MB, table {table / 2**20:6,.0f} MB")

# %% [markdown]
# At 131,072 tokens, the table of this one head takes 64 GB.
# There is one for every head and every layer, and training keeps them all for the backward pass.
#
# Most of the table could be thrown away at once.
# A score is computed, becomes a weight, meets one value, and is done.
# What stands in the way is the sum of the row.

# %% [markdown]
# ## Softmax, one score at a time
#
# Here are four scores of one query.
# Let them come one after the other; none may be looked at twice.

# %%
scores = [0.0, 2.0, 1.0, 3.0]

# %% [markdown]
# A sum can be taken as the numbers come. So `total += exp(score)`?
# That is right on paper, and fails in a computer as soon as a score is large.

# %%
try:
    math.exp(1000.0)
except OverflowError as error:
    print("OverflowError:", error)

# %% [markdown]
# The cure is that of lesson 01, exercise 2: subtract the row's maximum from every score.
# Then no power is above 1, and softmax stays as it was.
# But the maximum is known only at the end.
#
# So subtract the largest score *so far*.
# When a larger one comes, every power in the sum was measured from the wrong place: from the old
# maximum *m* instead of the new one *m*′.
# All of them are wrong by the same factor:
#
# $$e^{s - m'} = e^{s - m} \cdot e^{m - m'}.$$
#
# One multiplication mends the whole sum, and the scores in it are not needed again.
# Call the factor $e^{m - m'}$ **rescale**.
# When the maximum has not grown, it is 1.

# %%
maximum, total = -math.inf, 0.0
for score in scores:
    grown = max(maximum, score)
    rescale = math.exp(maximum - grown)  # exp(-inf) is 0: before the first score there is no sum
    total = total * rescale + math.exp(score - grown)
    maximum = grown
    print(f"score {score:.0f}: maximum {maximum:.0f}, rescale {rescale:.3f}, total {total:.3f}")

# %% [markdown]
# By hand: e⁻² is 0.135 and e⁻¹ is 0.368.
# The second line is 1 · 0.135 + 1 = 1.135.
# The third adds e⁻¹, and gives 1.503.
# The fourth is 1.503 · 0.368 + 1 = 1.553.
#
# And all at once, measured from 3: e⁻³ + e⁻¹ + e⁻² + 1 = 0.050 + 0.368 + 0.135 + 1 = 1.553.

# %% [markdown]
# ## The mix, in the same pass
#
# The output is a sum too: each value times its power, divided by the total at the end.
# The powers in it are measured from the same maximum, so the same factor mends it.

# %%
values = [10.0, 20.0, 30.0, 40.0]
maximum, total, mixed = -math.inf, 0.0, 0.0
for score, value in zip(scores, values, strict=True):
    grown = max(maximum, score)
    rescale, power = math.exp(maximum - grown), math.exp(score - grown)
    total = total * rescale + power
    mixed = mixed * rescale + power * value
    maximum = grown
    print(f"mixed {mixed:6.3f} / total {total:.3f} = {mixed / total:6.3f}")

# %% [markdown]
# The last line is softmax over the whole row.
# The lines before are right as well: each is softmax over the keys that have come so far.

# %%
for seen in (1, 2, 3, 4):
    weights = torch.tensor(scores[:seen]).softmax(dim=0)
    print(f"the first {seen}: {weights @ torch.tensor(values[:seen]):.3f}")

# %% [markdown]
# Why is that so for any scores $s_1, s_2, \ldots$ and values $v_1, v_2, \ldots$?
# After *j* keys, let $m_j$ be the largest score, and let
#
# $$\ell_j = \sum_{i \le j} e^{s_i - m_j}, \qquad o_j = \sum_{i \le j} e^{s_i - m_j} \, v_i.$$
#
# Take the last term out of each sum, and write
# $e^{s_i - m_j} = e^{s_i - m_{j-1}} \, e^{m_{j-1} - m_j}$ in the others:
#
# $$\ell_j = \ell_{j-1} \, e^{m_{j-1} - m_j} + e^{s_j - m_j}, \qquad
# o_j = o_{j-1} \, e^{m_{j-1} - m_j} + e^{s_j - m_j} \, v_j.$$
#
# That is the loop.
# In $o_j / \ell_j$ the factor $e^{-m_j}$ cancels, and what stays is
# $\sum_{i \le j} e^{s_i} v_i / \sum_{i \le j} e^{s_i}$: softmax over the first *j* keys.
# This is called **online softmax**.
#
# Here it runs over 60 random scores, the dots; the dashed line is softmax over all 60.
# When the maximum grows by much, the total falls; the answer settles.

# %%
many_scores, many_values = 2 * torch.randn(60), torch.rand(60)
steps, (maximum, total, mixed) = [], (-math.inf, 0.0, 0.0)
for score, value in zip(many_scores.tolist(), many_values.tolist(), strict=True):
    grown = max(maximum, score)
    rescale, power = math.exp(maximum - grown), math.exp(score - grown)
    maximum, total, mixed = grown, total * rescale + power, mixed * rescale + power * value
    steps.append((maximum, total, mixed / total))

# %%
figure, all_axes = plt.subplots(3, 1, figsize=(7, 5), sharex=True)
series = ("maximum so far", "total", "mixed / total")
for axes, name, line, colour in zip(
    all_axes, series, zip(*steps, strict=True), (style.KEY, style.MASK, style.OUTPUT), strict=True
):
    axes.step(range(1, 61), line, where="post", color=colour)
    axes.set_title(name)
all_axes[0].plot(range(1, 61), many_scores, "o", ms=4, color=style.QUERY)
all_axes[2].axhline(many_scores.softmax(dim=0) @ many_values, color=style.VALUE, ls="--", lw=1)
all_axes[2].set(xlabel="keys seen", ylim=(0, 1))
style.show(
    figure,
    alt="Three curves against the number of keys seen. The maximum climbs in a few steps over dots "
    "of scores; the total grows, and falls where the maximum steps up by much; the answer jumps at "
    "first, then settles on a dashed line, the softmax of the whole row.",
)

# %% [markdown]
# ## A tile at a time
#
# One score at a time would be slow. Many keys can come together, for many queries at once: a
# **tile** of the table.
# The maximum, the total and the mix then have one row for each query.
# (In shapes, `v` is the length of a value.)
# Before the first tile the maximum is −∞, and both sums are 0.

# %%
NOTHING = (torch.tensor(-torch.inf), 0.0, 0.0)  # maximum, total, mixed


def add_tile(state, scores, values):
    """Take one more tile of keys in: scores (..., query, key), values (..., key, v)."""
    maximum, total, mixed = state  # (..., query, 1), (..., query, 1), (..., query, v)
    grown = torch.maximum(maximum, scores.amax(dim=-1, keepdim=True))
    rescale, powers = (maximum - grown).exp(), (scores - grown).exp()
    total = total * rescale + powers.sum(dim=-1, keepdim=True)
    mixed = mixed * rescale + powers @ values
    return grown, total, mixed


# %% [markdown]
# The four scores again, in two tiles of two.
# The rescaled mix is the 51.9 of before, and the total 1.55.

# %%
row, column = torch.tensor([scores]), torch.tensor(values)[:, None]  # (1, 4), (4, 1)
state = add_tile(NOTHING, row[:, :2], column[:2])
maximum, total, mixed = add_tile(state, row[:, 2:], column[2:])
print(f"maximum {maximum.item():.0f}, total {total.item():.3f}, mixed {mixed.item():.3f}")

# %% [markdown]
# Now cut any number of keys into tiles. The last tile may be shorter.


# %%
def spans(length, size):
    """Cut positions into slices of one size; of 5 positions, by 2: 0 to 2, 2 to 4, 4 to 5."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


# %% [markdown]
# Attention is then a loop over the tiles, and one division at the end.
# (The argument `step` is for the end of the lesson, where another step goes wrong.)


# %%
def in_tiles(q, k, v, size, step=add_tile):
    """Softmax attention over the keys, taken in tiles; q is scaled already."""
    state = NOTHING
    for columns in spans(len(k), size):
        state = step(state, q @ k[columns].T, v[columns])
    _, total, mixed = state
    return mixed / total  # (query, v)


# %% [markdown]
# Beside it stands the attention of lessons 01 and 03, which writes the table down.


# %%
def regular(q, k, v, causal=False):
    """Attention over whole rows: q (..., query, d), k and v (..., key, d)."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])  # (..., query, key)
    if causal:
        queries, keys = scores.shape[-2:]
        later = torch.ones(queries, keys, dtype=torch.bool).triu(keys - queries + 1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(dim=-1) @ v


# %%
q, k, v = torch.randn(3, 100, 64, dtype=torch.double)
for size in (1, 7, 32, 100, 1000):
    error = (in_tiles(q / 8, k, v, size) - regular(q, k, v)).abs().max()  # 8 is √64
    print(f"tiles of {size:4} keys: largest difference below 1e-12: {bool(error < 1e-12)}")

# %% [markdown]
# Nothing is approximated.
# Whatever the tile, the sums have the same terms; only the rounding in the last digits differs.
# In `float32`, which has seven digits, measure both against the answer in double precision.

# %%
exact, singles = regular(q, k, v), (q.float(), k.float(), v.float())
errors = {"whole rows": (regular(*singles) - exact).abs().max()}
errors["tiles of 7"] = (in_tiles(singles[0] / 8, *singles[1:], 7) - exact).abs().max()
for name, error in errors.items():
    print(f"{name}: largest error below 1e-6: {bool(error < 1e-6)}")

# %% [markdown]
# ## Watch the tiles
#
# The view below works through the causal attention of a line of Python, with random queries and
# keys.
# Four queries are taken, then their tiles of keys one by one; hatched tiles are skipped, and the
# next section says which.
# Press *play*, or step with the arrow keys.
#
# In the small table, *largest score* is the maximum and *sum of powers* the total.
# Look at *earlier sums ×*: that is the rescale factor.
# It is below 1 where the tile in work has brought a larger score.
# And look at the output: it is there from the first tile on, and keeps changing until its row of
# tiles is done.

# %%
line = "for x in range ( 3 ) : print ( x + 1 )"
tokens = line.split()
few_q, few_k, few_v = 1.5 * torch.randn(3, len(tokens), 8)
flash_view(few_q, few_k, few_v, query_tile=4, key_tile=4, causal=True, tokens=tokens)

# %% [markdown]
# ## Tiles that causality hides
#
# With the causal mask, some tiles hold nothing but hidden scores.
# They need not be masked: they need not be computed.
# A tile of keys is needed when its *first* key is no later than the *last* query of the tile of
# queries.
#
# As in lesson 03 the queries are the last positions, so query *i* stands at position
# *i* + *past*, with `past = keys - queries`.
# Without causality let *past* be the number of keys: then no key is later than any query, and one
# rule serves both.


# %%
def plan(queries, keys, sizes, past):
    """For each tile of queries, the tiles of keys that it needs; sizes are (query, key)."""
    for rows in spans(queries, sizes[0]):
        last = rows.stop - 1 + past  # the last position among these queries
        yield rows, [columns for columns in spans(keys, sizes[1]) if columns.start <= last]


# %%
for rows, tiles in plan(queries=6, keys=6, sizes=(2, 2), past=0):
    print((rows.start, rows.stop), "needs", [(tile.start, tile.stop) for tile in tiles])

# %% [markdown]
# By hand: queries 0 and 1 need the keys 0 and 1; queries 4 and 5 need all six.
#
# Move the slider to change the tiles of a table of 64 by 64.
# Blue scores are needed; green ones are computed in vain, and then masked; pale ones are skipped.
# The large dot is the size that you chose.
# (In a page without a running Python you see one size only.)


# %%
def work(size, n=64):
    """0 where a score is skipped, 1 where it is computed in vain, 2 where it is needed."""
    computed = torch.zeros(n, n)
    for rows, tiles in plan(n, n, (size, size), past=0):
        for columns in tiles:
            computed[rows, columns] = 1
    return computed + torch.ones(n, n).tril()


def draw_plan(size):
    table, sizes = work(size), (1, 2, 4, 8, 16, 32, 64)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.3), width_ratios=(1, 1.2))
    left.imshow(table, vmin=0, vmax=3, extent=(0, 64, 64, 0))
    left.set(title=f"tiles of {size}", xlabel="key", ylabel="query")
    left.set(xticks=range(0, 65, 16), yticks=range(0, 65, 16))
    shares = [(work(one) > 0).float().mean() for one in sizes]
    right.semilogx(sizes, shares, "o-", color=style.MASK)
    share = (table > 0).float().mean().item()
    right.plot(size, share, "o", ms=11, color=style.OUTPUT)
    right.set(title="share of the table computed", xlabel="size of a tile", ylim=(0, 1.05))
    right.set_xticks(sizes, sizes)
    right.minorticks_off()
    alt = f"Left: a triangle of needed scores in stairs of tiles of {size}. Right: the share of "
    style.show(
        figure, alt=alt + f"the table that is computed, here {share:.0%}, by size of a tile."
    )


# %%
slider = SelectionSlider(options=[1, 2, 4, 8, 16, 32, 64], value=16, continuous_update=False)
_ = interact(draw_plan, size=slider)

# %% [markdown]
# Small tiles skip nearly half of the table.
# A tile of the whole length skips nothing.
#
# The tiles that the diagonal cuts still need the mask.
# Note that key 0 is in the first tile, and every query sees it.
# So the maximum is finite from the first tile on, and −∞ − (−∞), which is NaN, never comes up.


# %%
def tile_scores(q, k, rows, columns, past):
    """The scores of one tile, with −∞ where the key is later than the query."""
    scores = q @ k.mT  # (..., rows, columns)
    positions = torch.arange(rows.start, rows.stop)[:, None] + past
    later = torch.arange(columns.start, columns.stop) > positions  # (rows, columns)
    return scores.masked_fill(later.to(scores.device), -torch.inf)


# %% [markdown]
# ## One number for each query
#
# When a query has seen all its tiles, its maximum *m* and its total ℓ are left.
# They make one number,
#
# $$L = m + \log \ell = \log \sum_j e^{s_j},$$
#
# the **log-sum-exp** of the row.
# (Since $\ell = \sum_j e^{s_j - m}$, its logarithm is $\log \sum_j e^{s_j} - m$.)
#
# Whoever keeps *L* can have any weight back, without the row:
#
# $$p_j = \frac{e^{s_j}}{\sum_i e^{s_i}} = e^{s_j - L}.$$
#
# Here is the whole forward pass.
# It reads tiles of q, k and v, and writes into `out` and `log_sum_exp`, which the caller
# provides.
# The queries are scaled before.


# %%
def flash_forward(q, k, v, out, log_sum_exp, sizes, past):
    """Attention tile by tile, into out (..., query, v) and log_sum_exp (..., query)."""
    for rows, tiles in plan(q.shape[-2], k.shape[-2], sizes, past):
        q_tile, state = q[..., rows, :], NOTHING
        for columns in tiles:
            scores = tile_scores(q_tile, k[..., columns, :], rows, columns, past)
            state = add_tile(state, scores, v[..., columns, :])
        maximum, total, mixed = state
        out[..., rows, :] = mixed / total
        log_sum_exp[..., rows] = (maximum + total.log()).squeeze(-1)


# %%
out, log_sum_exp = torch.empty_like(q), q.new_empty(100)
flash_forward(q / 8, k, v, out, log_sum_exp, sizes=(16, 32), past=0)
print("causal, equal:", torch.allclose(out, regular(q, k, v, causal=True), atol=1e-12))

# %% [markdown]
# Recover two rows of weights from their log-sum-exp, as bars, and lay the softmax of the whole row
# over them, as dots.

# %%
figure, all_axes = plt.subplots(1, 2, figsize=(7.4, 2.8))
for axes, query in zip(all_axes, (19, 39), strict=True):
    scores = q[query] @ k[: query + 1].T / 8  # of the keys that it may see
    axes.bar(range(query + 1), (scores - log_sum_exp[query]).exp(), color=style.MASK)
    axes.plot(scores.softmax(dim=0), "o", ms=3, color=style.QUERY)
    axes.set(title=f"query {query}", xlabel="key", ylabel="weight", ylim=(0, None))
style.show(
    figure,
    alt="The weights of two queries on the keys up to their own. On each bar, recovered from the "
    "log-sum-exp, sits a dot, the softmax of the row.",
)

# %%
all_scores = tile_scores(q / 8, k, slice(0, 100), slice(0, 100), past=0)
recovered = (all_scores - log_sum_exp[:, None]).exp()
print("all rows:", torch.allclose(recovered, all_scores.softmax(dim=-1), atol=1e-12))

# %% [markdown]
# ## Backwards without the table
#
# Training needs gradients, and those of softmax use the weights.
# Regular attention keeps its table of weights for that.
# We keep *L*, and compute the weights again, tile by tile.
#
# First for one query with scores $s_j$, weights $p_j$, values $v_j$ and output
# $o = \sum_j p_j v_j$.
# The later layers send back *g*, the gradient of the loss with respect to *o*.
# How does the loss change with the score $s_k$?
# By the chain rule, as $g \cdot o$ does, with *g* held fixed.
#
# The derivative of $L = \log \sum_j e^{s_j}$ with respect to $s_k$ is
# $e^{s_k} / \sum_j e^{s_j} = p_k$.
# Since $p_j = e^{s_j - L}$, the derivative of $p_j$ is $p_j \, ([j = k] - p_k)$, where $[j = k]$ is
# 1 for $j = k$ and 0 otherwise.
# So
#
# $$\frac{\partial (g \cdot o)}{\partial s_k} = \sum_j (g \cdot v_j) \, p_j \, ([j = k] - p_k)
# = p_k \Big( g \cdot v_k - \sum_j p_j \, (g \cdot v_j) \Big).$$
#
# The last sum runs over the whole row, which we do not have.
# But it is $g \cdot \sum_j p_j v_j = g \cdot o$, and the output we do have:
#
# $$\frac{\partial (g \cdot o)}{\partial s_k} = p_k \, (g \cdot v_k - g \cdot o).$$
#
# Every score's gradient can be had by itself, from its own weight and value
# and one number of the row, $g \cdot o$.
# With the four scores of the beginning and *g* = 1:

# %%
weights = row[0].softmax(dim=0)  # (4,)
answer = weights @ column[:, 0]
print([round(gradient, 3) for gradient in (weights * (column[:, 0] - answer)).tolist()])

# %% [markdown]
# By hand: the answer is 33.43 and the last weight 1 / 1.553 = 0.644, so the last number is
# 0.644 · (40 − 33.43) = 4.23.
# Its value is above the answer, so raising its score pulls the answer up.
# Autograd, which keeps the row, says the same:

# %%
tracked = row[0].clone().requires_grad_()
(tracked.softmax(dim=0) @ column[:, 0]).backward()
print([round(gradient, 3) for gradient in tracked.grad.tolist()])

# %% [markdown]
# The rest are the gradients of matrix products.
# Let Q be the scaled queries, S the table of scores, P that of weights and G the rows *g*; *dQ* is
# the gradient of the loss with respect to Q, and so on.
# Q is (query, d), S and P are (query, key), G and the output O are (query, v); the entries of *dS*
# are the $p_k \, (g \cdot v_k - g \cdot o)$ just found.
# From S = QKᵀ and O = PV follow
#
# $$dQ = dS \, K, \qquad dK = dS^\top Q, \qquad dV = P^\top G.$$
#
# All three are sums over tiles.
# So each tile of scores is computed a second time, turned into weights by *L*, used, and forgotten.


# %%
def flash_backward(q, k, v, out, log_sum_exp, grad, grad_q, grad_k, grad_v, sizes, past):
    """Add the gradients of q, k and v to grad_q, grad_k and grad_v, tile by tile."""
    for rows, tiles in plan(q.shape[-2], k.shape[-2], sizes, past):
        q_tile, above = q[..., rows, :], grad[..., rows, :]
        shift = (above * out[..., rows, :]).sum(dim=-1, keepdim=True)  # g · o
        for columns in tiles:
            k_tile, v_tile = k[..., columns, :], v[..., columns, :]
            scores = tile_scores(q_tile, k_tile, rows, columns, past)
            weights = (scores - log_sum_exp[..., rows, None]).exp()  # (..., rows, columns)
            grad_scores = weights * (above @ v_tile.mT - shift)
            grad_q[..., rows, :] += grad_scores @ k_tile
            grad_k[..., columns, :] += grad_scores.mT @ q_tile
            grad_v[..., columns, :] += weights.mT @ above


# %% [markdown]
# What does the second time cost?
# Count the products in the loop, the signs `@` with the one in `tile_scores`: there are five.
# Regular attention needs four for its gradients, since it has kept the weights.
# With the two of the forward pass, that is seven products instead of six.
#
# That is flash attention: `add_tile`, `flash_forward`, `flash_backward` and their three helpers,
# about fifty lines.

# %% [markdown]
# ## Put into autograd
#
# PyTorch has a place for a function that brings its own backward pass: `torch.autograd.Function`.
# `ctx` carries from forward to backward what is saved there.
# Note what is: no table.


# %%
class Flash(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, sizes, past):
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        log_sum_exp = q.new_empty(q.shape[:-1])
        flash_forward(q, k, v, out, log_sum_exp, sizes, past)
        ctx.save_for_backward(q, k, v, out, log_sum_exp)
        ctx.rest = sizes, past
        ctx.mark_non_differentiable(log_sum_exp)  # gradients flow through the output only
        return out, log_sum_exp

    @staticmethod
    def backward(ctx, grad, _):
        saved = ctx.saved_tensors
        grads = [torch.zeros_like(tensor) for tensor in saved[:3]]
        flash_backward(*saved, grad, *grads, *ctx.rest)
        return *grads, None, None  # sizes and past have no gradient


# %% [markdown]
# What is left is the surroundings.
# The queries are scaled; shared keys and values are repeated for their group of query heads
# (lesson 02), and autograd adds up what the group sends back.
# The sums run in `float32` at least, because they are long.


# %%
def flash(q, k, v, causal=False, query_tile=128, key_tile=128):
    """Output and log-sum-exp of q (b, heads, query, d), k and v (b, kv_heads, key, d)."""
    wide, past = torch.promote_types(q.dtype, torch.float32), k.shape[2]
    if causal:
        past = k.shape[2] - q.shape[2]
    group = q.shape[1] // k.shape[1]
    shared = [repeat(t.to(wide), "b kv n d -> b (kv g) n d", g=group) for t in (k, v)]
    scaled = q.to(wide) / math.sqrt(q.shape[-1])
    out, log_sum_exp = Flash.apply(scaled, *shared, (query_tile, key_tile), past)
    return out.to(q.dtype), log_sum_exp


# %% [markdown]
# A test before the proof: `gradcheck` moves every number of the inputs a little, looks how the
# output changes, and compares that with our backward pass.

# %%
inputs = [torch.randn(1, 2, 5, 3, dtype=torch.double, requires_grad=True) for _ in range(3)]
print(torch.autograd.gradcheck(lambda *qkv: flash(*qkv, True, 2, 3)[0], inputs))

# %% [markdown]
# ## The proof
#
# The package has `tiled_attention`, and the regular attention that you proved in lessons 01 to 03.
# Ours is compared with both: outputs, log-sum-exps, and gradients of q, k and v.
# Causal and not, tiles that fit the length and tiles that do not, shared keys, fewer queries than
# keys.
# The tiles that are visited must be the same ones, too, and the outputs also agree in `bfloat16`.


# %%
def results(out, inputs):
    """An output and its gradients; the sine gives each entry a gradient of its own."""
    return [out, *torch.autograd.grad(out.sin().sum(), inputs)]


def difference(ours, theirs):
    for mine, given in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, given, rtol=1e-12, atol=1e-12)
    return max((mine - given).abs().max() for mine, given in zip(ours, theirs, strict=True))


# %% tags=["proof"]
from zeta_edu.attention import regular_attention
from zeta_edu.tiled import online_softmax, tiled_attention

largest = 0.0
for queries, keys, *sizes in ((1, 1, 1, 1), (12, 12, 4, 3), (50, 50, 16, 16), (7, 40, 3, 8)):
    for heads, kv_heads, causal in ((2, 2, False), (4, 2, True), (3, 1, True)):
        options = {"causal": causal, "query_tile": sizes[0], "key_tile": sizes[1]}
        shapes = ((heads, queries, 6), (kv_heads, keys, 6), (kv_heads, keys, 5))
        qkv = [torch.randn(2, *shape, dtype=torch.double, requires_grad=True) for shape in shapes]
        out, logs = flash(*qkv, **options)
        package_out, package_logs = tiled_attention(*qkv, **options)
        ours, package = results(out, qkv), results(package_out, qkv)
        whole = results(regular_attention(*qkv, causal=causal), qkv)
        pairs = ((ours, package), (ours, whole), ([logs], [package_logs]))
        largest = max(largest, *(difference(*pair).item() for pair in pairs))

        past = keys - queries if causal else keys
        visited = [
            (rows, tile) for rows, tiles in plan(queries, keys, sizes, past) for tile in tiles
        ]
        steps = online_softmax(*(tensor[0, 0] for tensor in qkv), *sizes, causal)
        assert visited == [(step.rows, step.columns) for step in steps]

        rounded = [tensor.detach().bfloat16() for tensor in qkv]  # the sums are in float32
        both = zip(flash(*rounded, **options), tiled_attention(*rounded, **options), strict=True)
        for mine, given in both:
            torch.testing.assert_close(mine, given)
print("largest error below 1e-12:", largest < 1e-12)

# %% [markdown]
# What you built is the package's tiled attention, and both are attention.

# %% [markdown]
# ## Measured: memory
#
# PyTorch's profiler notes every piece of memory that is taken and given back, here on the CPU, also
# inside the operations.
# Add them up in order of time, and the highest sum is the **peak**.
# The inputs were there before, and are not in it.


# %%
def peak(function, n):
    """The most bytes in use at once, in forward and backward, for one head of n tokens."""
    qkv = [torch.randn(1, 1, n, 64, requires_grad=True) for _ in range(3)]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        function(*qkv).sum().backward()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return torch.tensor(sizes).cumsum(dim=0).max().item()  # what is given back is negative


# %% [markdown]
# Three ways, from 256 to 4096 tokens: regular; ours, in tiles of 256; and
# `scaled_dot_product_attention`, PyTorch's own, which runs compiled code of the same kind.

# %%
ways = {
    "regular": regular,
    "ours": lambda *qkv: flash(*qkv, query_tile=256, key_tile=256)[0],
    "PyTorch's": F.scaled_dot_product_attention,
}

# %%
lengths = (256, 512, 1024, 2048, 4096)
peaks = {name: [peak(function, n) for n in lengths] for name, function in ways.items()}

# %% [markdown]
# How often would the table itself fit into the peak? And what does twice the length cost?

# %%
for name, bytes_used in peaks.items():
    tables, growth = bytes_used[-1] / (4 * 4096**2), bytes_used[-1] / bytes_used[-2]
    print(f"{name:9}: {tables:.1f} tables at 4096 tokens, {growth:.1f} times that at 2048")

# %%
figure, axes = plt.subplots(figsize=(7, 3.4))
looks = ((style.KEY, "o-"), (style.QUERY, "o-"), (style.OUTPUT, "s--"))
for (name, bytes_used), (colour, look) in zip(peaks.items(), looks, strict=True):
    megabytes = [size / 2**20 for size in bytes_used]
    axes.loglog(lengths, megabytes, look, color=colour, label=name)
axes.loglog(lengths, [4 * n * n / 2**20 for n in lengths], ":", color=style.MASK, label="one table")
axes.set_xticks(lengths, lengths)
axes.set_yticks((1, 10, 100), (1, 10, 100))
axes.minorticks_off()
axes.set(xlabel="tokens", ylabel="peak, MB", title="forward and backward, one head")
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
style.show(
    figure,
    alt="Peak memory against length, both axes logarithmic. Regular attention runs parallel to the "
    "line of one table, above it, to nearly 200 MB at 4096 tokens; ours and PyTorch's are "
    "flatter, and climb from about 1 and 0.4 MB to about 6 MB.",
)

# %% [markdown]
# Regular attention holds three tables at once: the weights, and on the way back the gradients of
# the weights and of the scores.
# Twice the length, four times the memory.
# The other two grow with the length itself: the output, the gradients, one number for each query,
# and work space of fixed size.
# The work space does not double, so twice the length costs 1.7 times the memory, not yet 2.
# For short texts it is most of the memory: at 256 tokens our one tile *is* the table, a few arrays
# of its size are needed, and ours takes more than regular attention.
#
# Ours is not fast: for every tile Python starts some twenty small operations, one by one.
# PyTorch's does all of them in one piece of compiled code.

# %% [markdown]
# ## Counted: reads and writes
#
# On a GPU there is a second gain, and it is why such code is *faster* as well.
# A GPU has a large memory, and beside its arithmetic units a small, much faster one.
# The paper of flash attention gives the figures of an A100: 40 to 80 GB that deliver 1.5 to 2 TB a
# second, and 192 KB for each of 108 units, together about 19 TB a second.
# In attention, it says, the time goes into fetching and putting away, not into multiplying.
#
# So count the numbers that travel between the two.
# This stands for a tensor in the large memory.
# To take a part of it is a read, and to put a part into it is a write.


# %%
class Slow:
    """A tensor in slow memory, that counts what is read from it and written to it."""

    moved = 0

    def __init__(self, numbers):
        self.numbers, self.shape = numbers, numbers.shape

    def __getitem__(self, where):
        Slow.moved += self.numbers[where].numel()
        return self.numbers[where]

    def __setitem__(self, where, part):
        Slow.moved += self.numbers[where].numel()
        self.numbers[where] = part


# %%
def moved(function, shapes, *rest):
    """How many numbers a function moves, given tensors of these shapes in slow memory."""
    Slow.moved = 0
    function(*(Slow(torch.randn(shape)) for shape in shapes), *rest)
    return Slow.moved


# %% [markdown]
# Our forward pass runs on it as it stands, because all it does is to take parts and to put parts.
# Regular attention is three steps, and each reads its input and writes its result.


# %%
def regular_steps(q, k, v, out, scores, weights):
    scores[:] = q[:] @ k[:].mT
    weights[:] = scores[:].softmax(dim=-1)
    out[:] = weights[:] @ v[:]


# %%
n, d = 1024, 32
vectors, tables = [(n, d)] * 4, [(n, n)] * 2
by_regular = moved(regular_steps, vectors + tables)
print(by_regular, by_regular == 4 * n * n + 4 * n * d)

# %% [markdown]
# Two tables, of scores and of weights, are written and read, and every list of vectors moves once.
#
# Now ours.
# In fast memory there must be room at once for four tiles of *b* vectors (q, k, v and the mix), a
# tile of *b* · *b* scores, and two numbers for each query.
# (The powers can overwrite the scores.)
# With room for *M* numbers, $b^2 + (4d + 2) \, b \le M$; completing the square, the largest *b* is
# $\sqrt{(2d + 1)^2 + M} - (2d + 1)$, rounded down.


# %%
def largest_tile(room, d):
    """The most rows and columns of a tile for which everything fits into fast memory."""
    return math.isqrt((2 * d + 1) ** 2 + room) - (2 * d + 1)


# %%
counted = {}
for room in (2048, 4096, 8192, 16_384):
    b = largest_tile(room, d)
    counted[room] = moved(flash_forward, [*vectors, (n,)], (b, b), n)
    print(f"room {room:6,}: tiles of {b}, moved {counted[room]:9,}")

# %% [markdown]
# By hand: q is read once, output and log-sum-exp are written once, and for each of the ⌈n/b⌉ tiles
# of queries, all keys and values are read. Together that is
# $2nd + n + \lceil n/b \rceil \cdot 2nd$, where the brackets round up.


# %%
def formula(n, d, room):
    return 2 * n * d + n + math.ceil(n / largest_tile(room, d)) * 2 * n * d


print(all(formula(n, d, room) == numbers for room, numbers in counted.items()))

# %% [markdown]
# What does the paper promise?
# Its theorem 2, for *M* between *d* and *nd*: regular attention moves numbers in proportion to
# $nd + n^2$, flash attention in proportion to $n^2 d^2 / M$.
# Its proposition 3: no exact attention beats that proportion throughout the range.
#
# Where does $n^2 d^2 / M$ come from?
# Small tiles, with *b* far below 4*d*, spend little on scores, so *b* is about $M / 4d$.
# Then $\tfrac{n}{b} \cdot 2nd$, by far the largest term, is $8 \, n^2 d^2 / M$.
# At $b = 4d$ the scores take as much room as the vectors, and the 8 has become 16.
# So up to that size our count, divided by $n^2 d^2 / M$, should lie between about 8 and 16, and not
# grow with *n*.

# %%
for n_real, d_real, room in ((4096, 64, 8192), (65_536, 64, 8192), (65_536, 64, 98_304)):
    bound = n_real**2 * d_real**2 / room
    ratio = formula(n_real, d_real, room) / bound
    print(f"n {n_real:6,}, d {d_real:3}, room {room:6,}: {ratio:.2f} times n²d²/M")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
rooms, bounds = list(counted), torch.tensor([(n * d) ** 2 / room for room in counted])
left.fill_between(rooms, 8e-6 * bounds, 16e-6 * bounds, color=style.LIGHT["line"])
left.text(2050, 0.8, "8 to 16 n²d²/M", color=style.LIGHT["quiet"])
left.text(16_384, 4.6, "regular", color=style.LIGHT["key_text"], ha="right")
left.loglog(rooms, [numbers / 1e6 for numbers in counted.values()], "o", color=style.QUERY)
left.axhline(by_regular / 1e6, color=style.KEY, ls="--")
left.set(title="counted, n = 1024, d = 32", xlabel="room M", ylabel="numbers moved, millions")
left.set_xticks(rooms, rooms)
left.set_yticks((0.5, 1, 2, 4, 8), (0.5, 1, 2, 4, 8))
many = [2**power for power in range(10, 18)]
right.loglog(many, [4 * m * m + 4 * m * 64 for m in many], "--", color=style.KEY, label="regular")
right.loglog(many, [formula(m, 64, 98_304) for m in many], "o-", color=style.QUERY, label="ours")
right.set(title="formula, d = 64, M = 98,304", xlabel="tokens", ylabel="numbers moved")
for axes in (left, right):
    axes.minorticks_off()
right.legend()
style.show(
    figure,
    alt="Left: numbers moved against the room in fast memory. The dots for ours fall inside a band "
    "from 8 to 16 n²d²/M, from above the dashed level of regular attention to far below it. Right: "
    "numbers moved against the number of tokens; both lines are equally steep, ours lies below.",
)

# %% [markdown]
# Without enough fast memory there is no gain: at M = 2048 our count is above that of regular
# attention.
# And in the right picture both lines are equally steep: the traffic still grows with the square of
# the length.
# Memory became linear; traffic became smaller by a factor.
# With the 192 KB of an A100's unit, in numbers of two bytes, M is 98,304:

# %%
factor = (4 * 8192**2 + 4 * 8192 * 64) / formula(8192, 64, 98_304)
print(f"{factor:.1f} times fewer numbers moved, at 8192 tokens and d = 64")

# %% [markdown]
# This is the forward pass; the paper's theorem 5 says the same of the backward pass.

# %% [markdown]
# ## The same on a GPU
#
# To run like this, the loop over the tiles must stand in *one* piece of code for the GPU, a
# **kernel**, so that tiles and sums stay in fast memory.
# Triton is a language for such code, inside Python.
# Below is our forward pass in it, folded up: unfold the cells if you are curious, or go on.
# They run where Triton is installed (`pip install triton`, on Linux): on a GPU if there is one,
# otherwise in Triton's interpreter, slowly.
#
# Step by step it does what `flash_forward` does.
# One copy of the kernel runs for each tile of queries and each head, many at the same time.

# %% tags=["solution"]
if find_spec("triton"):
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # before the kernel is defined
    import triton
    import triton.language as tl

    @triton.jit
    def flash_kernel(q, k, v, out, log_sum_exp, n, keys, past, d: tl.constexpr, size: tl.constexpr):
        head, features = tl.program_id(1), tl.arange(0, d)
        i = tl.program_id(0) * size + tl.arange(0, size)
        at = (head * n + i[:, None]) * d + features
        q_tile = tl.load(q + at, mask=i[:, None] < n, other=0.0)
        maximum = tl.full([size], float("-inf"), tl.float32)
        total, mixed = tl.zeros([size], tl.float32), tl.zeros([size, d], tl.float32)
        for start in range(0, tl.minimum(keys, (tl.program_id(0) + 1) * size + past), size):
            j = start + tl.arange(0, size)
            place = (head * keys + j[:, None]) * d + features
            k_tile = tl.load(k + place, mask=j[:, None] < keys, other=0.0)
            v_tile = tl.load(v + place, mask=j[:, None] < keys, other=0.0)
            scores = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee")
            sees = (j < keys)[None, :] & (j[None, :] <= i[:, None] + past)
            scores = tl.where(sees, scores, float("-inf"))
            grown = tl.maximum(maximum, tl.max(scores, 1))
            rescale, powers = tl.exp(maximum - grown), tl.exp(scores - grown[:, None])
            total = total * rescale + tl.sum(powers, 1)
            mixed = mixed * rescale[:, None] + tl.dot(powers, v_tile, input_precision="ieee")
            maximum = grown
        tl.store(out + at, mixed / total[:, None], mask=i[:, None] < n)
        tl.store(log_sum_exp + head * n + i, maximum + tl.log(total), mask=i < n)


# %% tags=["solution", "nbval-ignore-output"]
# What this prints depends on whether Triton is installed.
def flash_triton(q, k, v, past, size=32):
    """The forward pass by the kernel; q, k and v (b, h, n, d), where d is 16, 32, 64 or 128."""
    (b, h, n, d), keys = q.shape, k.shape[2]
    out, log_sum_exp = torch.empty_like(q), q.new_empty(b, h, n)
    grid = (math.ceil(n / size), b * h)
    flash_kernel[grid](q / math.sqrt(d), k, v, out, log_sum_exp, n, keys, past, d, size)
    return out, log_sum_exp


if find_spec("triton"):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for queries, keys, causal in ((70, 70, True), (70, 70, False), (5, 70, True)):
        qkv = [torch.randn(2, 3, length, 64, device=device) for length in (queries, keys, keys)]
        by_kernel = flash_triton(*qkv, keys - queries if causal else keys)
        for mine, given in zip(by_kernel, flash(*qkv, causal=causal), strict=True):
            torch.testing.assert_close(mine, given, rtol=1e-4, atol=1e-4)
    where = "on the GPU" if device == "cuda" else "in Triton's interpreter"
    print(f"The kernel ran {where} and gives what flash gives.")
else:
    print("Triton is not installed here; the kernel was not run.")

# %% [markdown]
# ## What goes wrong: rescaling forgotten
#
# Leave out the factor, and see what an error looks like that hides well.
# It can be forgotten in the total, in the mix, or in both.


# %%
def forgetting(*forgotten):
    """As `add_tile`, without the rescaling of "total", of "mixed", or of both."""

    def step(state, scores, values):
        maximum, total, mixed = state
        grown = torch.maximum(maximum, scores.amax(dim=-1, keepdim=True))
        rescale, powers = (maximum - grown).exp(), (scores - grown).exp()
        total = total * (1 if "total" in forgotten else rescale)
        mixed = mixed * (1 if "mixed" in forgotten else rescale)
        return grown, total + powers.sum(dim=-1, keepdim=True), mixed + powers @ values

    return step


# %% [markdown]
# First the sum of the weights: it is the answer when every value is 1.
# There are 256 keys, in tiles of 64, and 200 queries; printed are the smallest and the largest sum.

# %%
torch.manual_seed(1)  # the same numbers, whether Triton ran or not
q, k, v = torch.randn(200, 64) / 4, torch.randn(256, 64), torch.randn(256, 64)  # q is scaled
steps = {"nothing": (), "total": ("total",), "mixed": ("mixed",), "both": ("total", "mixed")}
for name, forgotten in steps.items():
    sums = in_tiles(q, k, torch.ones(256, 1), 64, forgetting(*forgotten))
    print(f"forgotten in {name:7}: sums from {sums.min():.2f} to {sums.max():.2f}")

# %% [markdown]
# Forgotten in one of the two, it shows: the weights no longer sum to 1.
# Forgotten in both, they do.
# There is no NaN, every shape is right, every answer is an average of the values.
# It is the wrong average.
# And in a short text, where all keys fit into one tile, it is right:

# %%
lengths = range(16, 257, 16)
both = forgetting("total", "mixed")
errors = {
    name: [
        (in_tiles(q, k[:n], v[:n], 64, step) - (q @ k[:n].T).softmax(dim=-1) @ v[:n]).abs().max()
        for n in lengths
    ]
    for name, step in (("rescaled", add_tile), ("forgotten in both", both))
}

# %%
figure, axes = plt.subplots(figsize=(7, 2.8))
for (name, error), colour in zip(errors.items(), (style.QUERY, style.KEY), strict=True):
    axes.plot(lengths, error, "o-", ms=4, color=colour, label=name)
axes.axvline(64, color=style.MASK, lw=1)
axes.text(62, 1.0, "one tile", color=style.LIGHT["quiet"], ha="right")
axes.set(xlabel="keys", ylabel="largest error", xticks=range(0, 257, 64))
axes.legend(loc="center right")
style.show(
    figure,
    alt="The largest error against the number of keys. With rescaling it is 0 throughout. Without, "
    "it is 0 up to 64 keys, one tile, and lies between 1.4 and 2 beyond.",
)

# %% [markdown]
# A test with short texts would pass.
# That is why the proof above has lengths of several tiles, and tiles of several sizes.
#
# What is it that the wrong average gets wrong?
# With the identity matrix for values, the answers are the weights themselves.
# Divide the wrong ones by the right ones, for the query with the largest error.

# %%
right, wrong = (in_tiles(q, k, torch.eye(256), 64, step) for step in (add_tile, both))
worst = (wrong - right).abs().amax(dim=-1).argmax()
figure, axes = plt.subplots(figsize=(7, 2.6))
axes.plot((wrong / right)[worst], color=style.KEY)
axes.axhline(1, color=style.MASK, lw=1)
axes.set(xlabel="key", ylabel="wrong / right", xticks=range(0, 257, 64), ylim=(0, None))
style.show(
    figure,
    alt="The wrong weights of one query divided by the right ones: four flat steps, one for each "
    "tile of 64 keys, that never rise from one tile to the next.",
)

# %% [markdown]
# Within a tile the weights keep their proportions; between tiles they do not.
# Where the maximum grew later, the powers of an early tile were measured from a smaller one, and
# are too large, by one over the factors that were left out.
# Early keys count too much: the model would seem to look back, for no reason that it has learned.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. The total, one tile later
#
# Difficulty ★☆☆, 5 minutes.
# Over the tiles so far, online softmax has `maximum` and `total`, both (query, 1). A new tile of
# `scores` (query, key) comes.
# Return the new total, (query, 1).
# Before the first tile the maximum is −∞ and the total 0.


# %% tags=["exercise"]
def next_total(maximum, total, scores):
    return ...


check("flash.total", next_total)

# %%
hint("flash.total")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
# def next_total(maximum, total, scores):
#     grown = torch.maximum(maximum, scores.amax(dim=-1, keepdim=True))
#     powers = (scores - grown).exp()
#     return total * (maximum - grown).exp() + powers.sum(dim=-1, keepdim=True)
# ```
#
# </details>

# %% [markdown]
# ### 2. A row that was never kept
#
# Difficulty ★☆☆, 5 minutes.
# From queries (query, d), keys (key, d) and the saved `log_sum_exp` (query,), return the weights
# (query, key), without softmax and without any sum.
# The scores are scaled by 1/√d.


# %% tags=["exercise"]
def recovered_weights(queries, keys, log_sum_exp):
    return ...


check("flash.row", recovered_weights)

# %%
hint("flash.row")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def recovered_weights(queries, keys, log_sum_exp):
#     scores = queries @ keys.T / queries.shape[-1] ** 0.5
#     return (scores - log_sum_exp[:, None]).exp()
# ```
#
# </details>

# %% [markdown]
# ### 3. Two halves of the keys
#
# Difficulty ★★☆, 10 minutes.
# A text is so long that its keys lie on two machines.
# Each has computed attention over its own half: outputs `first` and `second` (query, v), with their
# log-sum-exps `first_log` and `second_log` (query,).
# Return attention over all keys, (query, v).
# The log-sum-exps may be as large as 1000.


# %% tags=["exercise"]
def merge(first, first_log, second, second_log):
    return ...


check("flash.merge", merge)

# %%
hint("flash.merge")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# Half *a* has divided by $e^{L_a}$, half *b* by $e^{L_b}$; over all keys the sum is
# $e^{L_a} + e^{L_b}$.
# So the outputs are mixed with the weights $e^{L_a} / (e^{L_a} + e^{L_b})$ and
# $e^{L_b} / (e^{L_a} + e^{L_b})$: a softmax over the two.
#
# ```python
# import torch
#
# def merge(first, first_log, second, second_log):
#     shares = torch.stack((first_log, second_log)).softmax(dim=0)  # (2, query)
#     return shares[0, :, None] * first + shares[1, :, None] * second
# ```
#
# </details>

# %% [markdown]
# ### 4. The gradient of a tile of scores
#
# Difficulty ★★★, 15 minutes.
# In the backward pass, for *one tile* of keys: its `weights` (query, key) and `values` (key, v);
# `out` (query, v), the output over all tiles; and `grad` (query, v), the gradient with respect to
# `out`.
# Return the gradient with respect to the tile's scores, (query, key).


# %% tags=["exercise"]
def score_gradient(weights, values, out, grad):
    return ...


check("flash.backward", score_gradient)

# %%
hint("flash.backward")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def score_gradient(weights, values, out, grad):
#     shift = (grad * out).sum(dim=-1, keepdim=True)  # (query, 1)
#     return weights * (grad @ values.T - shift)
# ```
#
# In a tile the weights do not sum to 1, and the sum over the row cannot be taken from them; from
# the output it can.
#
# </details>

# %% [markdown]
# ## What you have now
#
# Softmax can be taken in pieces: keep the maximum, the total and the mix, and when the maximum
# grows, multiply both sums by one factor.
# Attention then needs one tile of the table at a time, and causality skips tiles.
# One number for each query, its log-sum-exp, gives every weight back, so the backward pass computes
# the tiles anew; the sum over the row that it needs is $g \cdot o$.
# The result is exact to rounding.
# The memory grows with the length instead of its square; the numbers moved shrink by a factor that
# depends on the fast memory.
#
# **References.**
# Online softmax: Milakov and Gimelshein 2018, [arXiv:1805.02867](https://arxiv.org/abs/1805.02867),
# algorithm 3.
# Flash attention: Dao et al. 2022, [arXiv:2205.14135](https://arxiv.org/abs/2205.14135), algorithm
# 1 (forward; its outer loop runs over the keys), algorithm 4 (backward), theorem 2 and proposition
# 3 (reads and writes), section 2.1 (the memories of an A100).
# The outer loop over the queries, and the single number *L*: Dao 2023,
# [arXiv:2307.08691](https://arxiv.org/abs/2307.08691), section 3, algorithm 1.
# Attention in memory that does not grow with the square, on other hardware: Rabe and Staats 2021,
# [arXiv:2112.05682](https://arxiv.org/abs/2112.05682).
#
# **Next.** When a model writes, one new query meets all earlier keys.
# [Lesson 09](09-kv-cache.ipynb), the KV cache, keeps them.
# All lessons are on the map of [lesson 00](00-start-here.ipynb).
