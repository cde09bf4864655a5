# %% [markdown]
# # 01 · Attention is a soft dictionary
#
# A Python dictionary answers when your key is one of its keys, and raises when your key is
# almost one of them.
# **What should it answer when several keys fit, each a little?**
#
# In this lesson you build `attention(queries, keys, values)`: first with numbers that you can
# check by hand, then as a loop, then as two matrix products.
# At the end you prove that it is the attention that `zeta_edu` ships.
#
# It takes about 40 minutes to read and 20 seconds to run.
# You need Python's dictionaries, the product of two matrices, and a little PyTorch.
# Two short arguments use a variance and a derivative; each is measured as well.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import einsum
from ipywidgets import FloatLogSlider, interact

from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import attention_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("attention",))

# %% [markdown]
# The map shows the block that the first eleven lessons build.
# Each box carries the number of its lesson, and the lit one is where you are.
# You need none of the others yet.

# %% [markdown]
# ## A hard lookup
#
# Here is a dictionary with three entries: fruits and their prices.

# %%
prices = {"apple": 10, "pear": 20, "quince": 40}
prices["pear"]

# %% [markdown]
# Think of a lookup as comparing what you ask for, the *query*, with every key of the dictionary.
# A key that equals the query gets weight 1, every other key weight 0.

# %%
query = "pear"
weights = [float(key == query) for key in prices]
weights

# %% [markdown]
# The answer is the sum of all values, each times its weight.

# %%
sum(weight * price for weight, price in zip(weights, prices.values(), strict=True))

# %% [markdown]
# So a dictionary is a weighted sum in which one weight is 1.
# For a query that equals no key, every weight is 0 and there is nothing to answer.
# The rest of this lesson lets the weights lie between 0 and 1.

# %% [markdown]
# ## A soft lookup, by hand
#
# Words are equal or they are not.
# To say that two things are *a little* alike, describe each by numbers.
# Two numbers will do here: how much like an apple, and how much like a pear.
# A quince is like both.

# %%
keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # apple, pear, quince
values = torch.tensor([10.0, 20.0, 40.0])
query = torch.tensor([1.0, 0.0])  # something like an apple

# %% [markdown]
# The dot product measures how well the query fits a key: multiply entry by entry, and add up.
# For the apple it is 1·1 + 0·0 = 1, for the pear 1·0 + 0·1 = 0, for the quince 1·1 + 0·1 = 1.
# These numbers are the **scores**.

# %%
scores = [float(query @ key) for key in keys]
scores

# %% [markdown]
# Weights that are not negative and sum to 1 make the answer an average of the values.
# The exponential makes every score positive, though perhaps tiny, and keeps their order.
# It also turns a difference of scores into a ratio of weights: one more is 2.718 times as much.
# Dividing by the sum makes the weights sum to 1.
# These two steps together are called **softmax**.

# %%
powers = [math.exp(score) for score in scores]
weights = [power / sum(powers) for power in powers]
[round(weight, 3) for weight in weights]

# %% [markdown]
# By hand: e is 2.718, and e⁰ is 1, so the sum is 2.718 + 1 + 2.718 = 6.436.
# The apple's weight is 2.718 / 6.436 = 0.422.
#
# The answer is the weighted sum again.

# %%
price = sum(weight * float(value) for weight, value in zip(weights, values, strict=True))
round(price, 2)

# %% [markdown]
# By hand, 0.422 · 10 + 0.155 · 20 + 0.422 · 40 = 24.20; Python has not rounded the weights.
# It is far from the apple's 10, since the quince fits as well: it is *also* like an apple.
# To leave the quince out, a query has to point away from the pear.
#
# Here are the three steps side by side: score, weight, and what each entry adds to the price.


# %%
def draw_bars(axes, heights, title, colour):
    bars = axes.bar(["apple", "pear", "quince"], heights, color=colour)
    axes.bar_label(bars, fmt="%.4g")
    axes.set_title(title)
    axes.margins(y=0.15)


figure, (left, middle, right) = plt.subplots(1, 3, figsize=(7, 2.6))
draw_bars(left, scores, "score", style.KEY)
draw_bars(middle, weights, "weight", style.MASK)
draw_bars(right, (torch.tensor(weights) * values).tolist(), "adds", style.VALUE)
alt = "Bars. Scores 1, 0, 1. Weights 0.4223, 0.1554, 0.4223. Added: 4.223, 3.107, 16.89."
style.show(figure, alt=alt)

# %% [markdown]
# ## From soft to hard
#
# What happens when the query turns, from apple-like to pear-like and beyond?
# And what happens when it grows longer, so that every score grows with it?


# %%
def price_for(angle, length):
    """The soft price for a query of this direction (in degrees) and length."""
    radians = math.radians(angle)
    query = length * torch.tensor([math.cos(radians), math.sin(radians)])
    return float((keys @ query).softmax(dim=0) @ values)


# %%
angles = range(-45, 136)
figure, axes = plt.subplots()
for length, line in ((1, ":"), (4, "--"), (40, "-")):
    prices_seen = [price_for(angle, length) for angle in angles]
    axes.plot(angles, prices_seen, line, color=style.QUERY, label=f"length {length}")
axes.set(xlabel="direction of the query, degrees", ylabel="price", xticks=range(-45, 136, 45))
axes.legend()
style.show(
    figure,
    alt="Price against the direction of the query. The longest query gives three flat steps, "
    "10, 40 and 20; the shorter ones pass smoothly between them.",
)

# %% [markdown]
# A long query makes large scores, and large differences between scores make one weight almost 1.
# The lookup becomes hard: three flat steps, one for each fruit.
# The apple's step lies left of 0°, away from the pear; at 0° itself apple and quince are even, 25.
# A short query blends.
#
# The smooth curves have a slope almost everywhere, and that is why networks use them: the slope
# tells training which way to turn a query.
# A flat step tells it nothing.
# Remember this picture; it comes back when things go wrong.

# %% [markdown]
# ## Many queries, in a loop
#
# A value may be a vector too. Give each fruit a price, and a sweetness from 0 to 40.

# %%
values = torch.tensor([[10.0, 24.0], [20.0, 40.0], [40.0, 8.0]])  # (key, 2): price, sweetness
queries = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [0.0, 0.0]])  # (query, 2)


# %%
def soft_lookup(query, keys, values):
    scores = torch.stack([query @ key for key in keys])
    weights = scores.exp() / scores.exp().sum()
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


looped = torch.stack([soft_lookup(query, keys, values) for query in queries])
looped

# %% [markdown]
# The first row is the price from before, 24.22.
# The last query is zero: it fits every key equally well, so its answer is the plain average of
# the values. (10 + 20 + 40) / 3 is 23.33.

# %% [markdown]
# ## Many queries, in two matrix products
#
# A matrix product computes the dot product of every row on its left with every column on its
# right.
# With the keys transposed, that is every query with every key.

# %%
scores = queries @ keys.T  # (query, key)
weights = scores.softmax(dim=-1)  # (query, key), each row sums to 1
mixed = weights @ values  # (query, 2)

# %% [markdown]
# The second product does the mixing: row `i` of `weights` times the table of values is the
# weighted sum for query `i`.
# Nothing has changed but the way of writing.

# %%
torch.allclose(mixed, looped), weights.sum(dim=-1)

# %% [markdown]
# Here are the three tables. Read along a row to follow one query.


# %%
def draw_table(axes, table, title, rows, columns, numbers=True, top=None):
    """A table as colours from 0 to `top` (its largest), darker for more, with its numbers."""
    axes.imshow(table, cmap=style.MAP, aspect="auto", vmin=0, vmax=top)
    axes.set_title(title)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.spines[:].set_visible(False)
    for (row, column), number in np.ndenumerate(table if numbers else []):
        colour = "white" if number >= table.max() / 2 else "black"
        axes.text(column, row, f"{number:.2f}", ha="center", va="center", color=colour)


# %%
fruits, asked = ["apple", "pear", "quince"], ["(1, 0)", "(0, 1)", "(2, 2)", "(0, 0)"]
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(7.4, 2.8))
draw_table(left, scores.numpy(), "scores", asked, fruits)
draw_table(middle, weights.numpy(), "weights", asked, fruits)
draw_table(right, mixed.numpy(), "mix", asked, ["price", "sweet"])
style.show(
    figure,
    alt="Three tables with a row for each of four queries: scores and weights with a column "
    "for each fruit, and the mix with a column for price and one for sweetness.",
)

# %% [markdown]
# What a dictionary answers does not depend on the order of its entries, and neither does it here.
# Shuffle the entries, each key with its value, and the answers stay.
# For now attention is blind to order; lesson 04 gives it a sense of place.

# %%
order = torch.tensor([2, 0, 1])
shuffled = (queries @ keys[order].T).softmax(dim=-1) @ values[order]
torch.allclose(shuffled, mixed)

# %% [markdown]
# ## Why the scores are divided by √d
#
# So far a key had two entries. In a real model it has *d* = 64 or 128 of them, and the scores
# grow with *d*.
#
# Let the entries of *q* and *k* be independent random numbers, with mean 0 and variance 1.
# A model that has learned nothing starts near this: its matrices are random, and scaled to keep
# the numbers at about this size.
# One product $q_i k_i$ then has mean 0, because the mean of a product of independent numbers is
# the product of their means.
# With mean 0, the variance is the mean of the square; $\mathbb{E}$ stands for the mean:
# $\mathbb{E}[q_i^2 k_i^2] = \mathbb{E}[q_i^2] \, \mathbb{E}[k_i^2] = 1 \cdot 1 = 1$.
# Variances of independent numbers add up, so
#
# $$\operatorname{Var}(q \cdot k) = \sum_{i=1}^{d} \operatorname{Var}(q_i k_i) = d.$$
#
# The typical size of a score, its standard deviation, is the square root of that: √d.
# Divide the scores by √d and their spread is 1, whatever *d* is.
# Let us measure it.

# %%
spreads = {}
for d in (4, 16, 64, 256, 1024):
    many = torch.randn(200, d) @ torch.randn(200, d).T  # (query, key)
    spreads[d] = float(many.std())
    print(f"d = {d:4}   spread {spreads[d]:5.1f}   √d {math.sqrt(d):5.1f}")

# %% [markdown]
# What does a wide spread do to the weights?
# Look up among 16 random keys, many times, and note how large the largest weight is.


# %%
def random_weights(d, scale):
    """The weights of 20 random queries on 16 random keys, for 100 draws of both."""
    scores = torch.randn(100, 20, d) @ torch.randn(100, 16, d).mT  # (100, 20, 16)
    return (scale * scores).softmax(dim=-1)


# %%
plain, scaled = [], []
for d in spreads:
    plain.append(random_weights(d, scale=1.0).amax(dim=-1).mean())
    scaled.append(random_weights(d, scale=1 / math.sqrt(d)).amax(dim=-1).mean())

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
widths, roots = list(spreads), [math.sqrt(d) for d in spreads]
left.loglog(widths, list(spreads.values()), "o", color=style.KEY, label="measured")
left.loglog(widths, roots, color=style.MASK, label="√d")
left.set_yticks(roots, [f"{root:.0f}" for root in roots])
right.semilogx(widths, plain, "o--", color=style.KEY, label="q·k")
right.semilogx(widths, scaled, "o-", color=style.QUERY, label="q·k / √d")
right.set_ylim(0, 1)
for axes, title in ((left, "spread of the scores"), (right, "largest of 16 weights")):
    axes.set_xticks(widths, widths)
    axes.minorticks_off()
    axes.set(title=title, xlabel="d")
    axes.legend()
style.show(
    figure,
    alt="Left: the measured spread of the scores lies on the line √d from d = 4 to 1024. "
    "Right: the largest weight climbs towards 1 with d; scaled by 1/√d it stays near 0.25.",
)

# %% [markdown]
# Without the division the largest weight climbs towards 1: with many entries in a key, the
# dictionary would be hard before it has learned anything.
# With it, random queries and keys give weights that are about equally soft at any d.

# %% [markdown]
# ## The function
#
# Put together: score, scale, softmax, mix.
# `einsum` names the axes of its arguments, and sums over every name that is missing after the
# arrow.
# The three dots stand for any leading axes, such as one for several texts at once.


# %%
def attention(queries, keys, values):
    """Mix the values by how well each query fits each key."""
    scores = einsum(queries, keys, "... query d, ... key d -> ... query key")
    scaled = scores / math.sqrt(queries.shape[-1])
    weights = scaled.softmax(dim=-1)  # (..., query, key), each row sums to 1
    return einsum(weights, values, "... query key, ... key v -> ... query v")


attention(queries, keys, values)

# %% [markdown]
# The answers lie a little nearer to the average than before, because the scores are now divided
# by √2.
# In one line this is equation 1 of the paper that named it:
#
# $$\operatorname{Attention}(Q, K, V) = \operatorname{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}
# \right) V.$$

# %% [markdown]
# ## Watch it read a line of Python
#
# In a language model the entries of the dictionary are the tokens of a text, and every token
# also asks.
# Its query says what it is looking for, its key says what it offers, its value is what it hands
# over.
# The model has a vector for each token, and multiplies it by three matrices to get query, key and
# value; the map draws the three as *one projection* (lesson 07 says why).
# Training finds the matrices.
# (People call both the token that asks and its vector a query; in lesson 00 it was the token.)
# Here we write queries, keys and values by hand, so that you can foresee every weight.
# There is no mask yet: a token sees the later ones too.

# %%
line = "def add ( a , b ) : return a + b"
tokens = line.split()
names = sorted(set(tokens))
print(*names)

# %% [markdown]
# Each token offers its own name: a key with a single 1, in the name's column.
# Its value is the same vector.

# %%
columns = [names.index(token) for token in tokens]
keys = torch.eye(len(names))[columns]  # (12, 10)
values = keys

# %% [markdown]
# A name looks for the same name, a closing bracket for the opening one, `return` for `def`.
# The others look for nothing: their query is zero.
# The 14 says how strongly a token wants what it wants.

# %%
wants = {"a": "a", "b": "b", ")": "(", "return": "def"}
queries = torch.zeros(len(tokens), len(names))  # (12, 10)
for row, token in enumerate(tokens):
    if token in wants:
        queries[row, names.index(wants[token])] = 14.0

# %% [markdown]
# Both as pictures: a row for every token, a column for every name.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.6))
draw_table(left, queries.numpy(), "queries: what it wants", tokens, names, numbers=False)
draw_table(right, keys.numpy(), "keys: what it offers", tokens, names, numbers=False)
for axes in (left, right):
    axes.tick_params(axis="x", rotation=90)
style.show(
    figure,
    alt="Two tables of 12 tokens by 10 names. Keys: one dark cell in every row, under the "
    "token's own name. Queries: one dark cell for a, b, the closing bracket and return.",
)

# %% [markdown]
# Now the stages, one by one.

# %%
scores = queries @ keys.T  # (12, 12)
scaled = scores / math.sqrt(len(names))
weights = scaled.softmax(dim=-1)
mixed = weights @ values  # (12, 10)

# %% [markdown]
# A key that fits has the scaled score 14 / √10 = 4.43, every other key 0.
# So with one fitting key among 12 its weight is e^4.43 / (e^4.43 + 11); with two, each has
# e^4.43 / (2 e^4.43 + 10).

# %%
power = math.exp(14 / math.sqrt(10))
print(f"one key fits: {power / (power + 11):.2f}   two fit: {power / (2 * power + 10):.2f} each")
print(f"in the table: {weights.max():.2f}            {weights[-1].max():.2f}")

# %% [markdown]
# These keys are not random, so the √10 is here only because it belongs to the function; the 14
# makes up for it.
#
# The view below moves without Python.
# Pick a token in the line and see what its query finds; switch from the raw scores to the scaled
# ones and to the weights.
# It opens on the closing bracket. Try the comma next, then the last `a`.
# Its title counts tokens by weight: an even spread over *n* of them counts as *n*.

# %%
stages = {"scores": scores[None], "scaled": scaled[None]}  # (1 head, 12, 12) each
attention_view(weights[None], tokens, stages=stages, query=tokens.index(")"))

# %% [markdown]
# The closing bracket puts most of its weight on the opening one.
# The second `a` shares its weight between both `a`s, since they offer the same key.
# The comma wants nothing, so its weight is spread evenly.
#
# The last stage is the mix: what each token was handed by all of them.

# %%
figure, axes = plt.subplots(figsize=(7, 4))
draw_table(axes, mixed.numpy(), "mix: what each token is handed", tokens, names)
style.show(
    figure,
    alt="Table of 12 tokens by 10 names: each a is handed mostly a, each b mostly b, the "
    "closing bracket mostly the opening one, return mostly def; the others 0.08 of each name, "
    "and 0.17 of a and of b, which come twice.",
)

# %% [markdown]
# ## Turn the scale yourself
#
# Here the scale is yours to choose. Each step of the slider makes Python compute the softmax
# anew.
# At the far left every token takes the average.
# At the far right `)` has a hard dictionary; the comma, which wants nothing, keeps its average.
# The dotted line is 1/√d.
# (In a page without a running Python you see the picture for one scale only.)


# %%
def draw_scale(scale):
    scales = torch.logspace(-2, 1, 50)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.4))
    table = (scale * scores).softmax(dim=-1).numpy()
    draw_table(left, table, f"weights at scale {scale:.2f}", tokens, tokens, False, top=1)
    left.tick_params(axis="x", rotation=90)
    for token, colour in ((")", style.QUERY), ("b", style.KEY), (",", style.MASK)):
        row = scores[tokens.index(token)]
        right.semilogx(scales, [(s * row).softmax(0).max() for s in scales], color=colour)
        right.semilogx(scale, (scale * row).softmax(0).max(), "o", color=colour, label=token)
    right.axvline(1 / math.sqrt(len(names)), color="black", ls=":")
    right.set(title="largest weight", xlabel="scale", ylim=(0, 1.05))
    right.legend(title="query")
    style.show(
        figure,
        alt=f"Left: the weights at scale {scale:.2f}. Right: the largest weight of three "
        "queries against the scale, from an even spread to a hard choice.",
    )


# %%
slider = FloatLogSlider(0.32, min=-2, max=1, step=0.1, continuous_update=False)
_ = interact(draw_scale, scale=slider)

# %% [markdown]
# The `b` never passes one half: two tokens offer the same key, and no scale can part them.
# For that the keys must differ, for instance by their place in the line.

# %% [markdown]
# ## The proof
#
# Nothing so far has called the attention of `zeta_edu`.
# Now compare: the outputs, and the gradients with respect to queries, keys and values, in double
# precision.
# It is a proof as far as a test on random numbers can be one: a formula that differs would hardly
# agree so closely.
# The package's function has an axis for heads, which the three dots of ours take in.

# %% tags=["proof"]
from zeta_edu.attention import regular_attention

largest, shapes = 0.0, [(1, 1, 1, 1, 1), (2, 3, 4, 5, 6), (1, 2, 7, 3, 8), (2, 4, 1, 9, 64)]
for batch, heads, n, m, d in shapes:  # n queries, m keys
    sizes = [(batch, heads, n, d), (batch, heads, m, d), (batch, heads, m, d)]
    inputs = [torch.randn(size, dtype=torch.double, requires_grad=True) for size in sizes]
    results = []
    for function in (attention, regular_attention):
        output = function(*inputs)
        # The sine gives each entry of the output a gradient of its own.
        results.append([output, *torch.autograd.grad(output.sin().sum(), inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        largest = max(largest, (ours - theirs).abs().max().item())
print("largest error below 1e-12:", largest < 1e-12)

# %% [markdown]
# What you built is what the package computes.
# The package's function can also hide keys (lesson 03) and share them between heads (lesson 02).

# %% [markdown]
# ## What goes wrong: no √d
#
# Forget the division and nothing breaks: no error, no NaN.
# The weights are merely close to 0 or 1 from the start, and the reason to worry is their slope.
# For softmax, with $w_i$ the weight and $s_j$ the score,
#
# $$\frac{\partial w_i}{\partial s_j} = w_i \, (\delta_{ij} - w_j),$$
#
# where $\delta_{ij}$ is 1 for $i = j$ and 0 otherwise.
# When one weight is almost 1 and the others almost 0, every one of these products is almost 0.
# The softmax is *saturated*: it sits on a flat step, as in [From soft to hard](#From-soft-to-hard).
#
# First the formula, as a table: $w_i \delta_{ij}$ is `diag(w)`, and $w_i w_j$ is `outer(w, w)`.
# PyTorch calls the table of all derivatives a *Jacobian*.

# %%
five_scores = torch.randn(5, dtype=torch.double)
w = five_scores.softmax(dim=0)
formula = torch.diag(w) - torch.outer(w, w)  # (5, 5)
slopes = torch.autograd.functional.jacobian(lambda s: s.softmax(dim=0), five_scores)
torch.allclose(formula, slopes)

# %% [markdown]
# Then its size, for the random keys of before.
# In every row the other entries, $-w_i w_j$, are negative, and the row sums to 0: so its diagonal
# entry, $w_i (1 - w_i)$, is as large as all the others together.
# The sum of the diagonal is 0 for a hard choice, and at most 15/16 = 0.94, where 16 weights are
# even.

# %%
for name, scale in (("without √d", 1.0), ("with √d   ", 1 / math.sqrt(256))):
    w = random_weights(256, scale)
    print(f"{name} {(w * (1 - w)).sum(dim=-1).mean():.2f}")

# %% [markdown]
# Now the symptom. 64 queries shall learn, each to find one of 16 random keys.
# The error is the squared distance between what a query gets and what it wants.

# %%
keys, values, start = torch.randn(16, 256), torch.eye(16), torch.randn(64, 256)
wanted = torch.randint(16, (64,))  # the key that each query shall find


def errors_and_weights(queries, scale):
    weights = (scale * queries @ keys.T).softmax(dim=-1)  # (64, 16)
    errors = (weights @ values - values[wanted]).square().sum(dim=-1)  # (64,)
    return errors, weights


# %% [markdown]
# How sure are the queries before they have learned anything, and how long is the gradient that
# each one gets?

# %%
for name, scale in (("without √d", 1.0), ("with √d   ", 1 / math.sqrt(256))):
    queries = start.clone().requires_grad_()
    errors, w = errors_and_weights(queries, scale)
    (gradients,) = torch.autograd.grad(errors.sum(), queries)
    lengths = gradients.norm(dim=-1)  # (64,)
    sure_and_wrong = (w.amax(dim=-1) > 0.9) & (w.argmax(dim=-1) != wanted)
    print(f"{name} sure of a wrong key: {sure_and_wrong.float().mean():3.0%}", end="   ")
    print(f"gradients: a quarter below {lengths.quantile(0.25):.3f}, up to {lengths.max():.2f}")

# %% [markdown]
# Without √d most queries are sure, weight above 0.9, of a wrong key.
# A quarter of them get next to no gradient, while the longest is huge.
# With √d every gradient is multiplied by 1/16 on its way, but three quarters of them are within
# a factor of five of the longest.
#
# So without √d no step size suits all queries.
# To be fair, each scale may choose among seven.


# %%
def losses(scale, rate, steps=100):
    """The mean error at every step of plain gradient descent with this step size."""
    queries, errors = start.clone().requires_grad_(), []
    for _ in range(steps):
        own_errors, _ = errors_and_weights(queries, scale)
        (gradients,) = torch.autograd.grad(own_errors.sum(), queries)
        queries.data -= rate * gradients
        errors.append(own_errors.mean().item())
    return errors


# %%
rates = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3)
without = [losses(1.0, rate) for rate in rates]
with_scale = [losses(1 / math.sqrt(256), rate) for rate in rates]
print("step size       ", *(f"{rate:5}" for rate in rates))
print("error without √d", *(f"{errors[-1]:5.1f}" for errors in without))
print("error with √d   ", *(f"{errors[-1]:5.2f}" for errors in with_scale))

# %%
figure, axes = plt.subplots(figsize=(7, 3))
best = [min(runs, key=lambda errors: errors[-1]) for runs in (without, with_scale)]
axes.plot(best[0], "--", color=style.KEY, label="without √d")
axes.plot(best[1], color=style.QUERY, label="with √d")
axes.set(xlabel="step", ylabel="error", ylim=(0, None), title="each with its best step size")
axes.legend()
style.show(
    figure,
    alt="Error against training step. With √d it falls to almost zero; without, it starts higher "
    "and stays far above.",
)

# %% [markdown]
# With √d the error falls to 0, once the steps are long enough: all the queries find their keys.
# Without it none of these step sizes gets them there.

# %% [markdown]
# ## What goes wrong: the wrong axis
#
# Softmax over the queries instead of the keys also runs without an error, and gives an output of
# the right shape.
# The rows no longer sum to 1.


# %%
def wrong_attention(queries, keys, values):
    scaled = queries @ keys.T / math.sqrt(queries.shape[-1])
    weights = scaled.softmax(dim=-2)  # the axis of the queries
    return weights, weights @ values


queries, keys = torch.randn(5, 8), torch.randn(6, 8)
weights, mixed = wrong_attention(queries, keys, torch.ones(6, 1))
print("sums over keys:   ", [round(float(s), 2) for s in weights.sum(dim=-1)])
print("sums over queries:", [round(float(s), 2) for s in weights.sum(dim=-2)])

# %% [markdown]
# Every value here is 1, so every answer should be 1.
# Instead the queries compete for the keys: one that fits well takes from the others.
# Take the last query away, and the answers to the first four change, although nobody touched
# them.

# %%
_, fewer = wrong_attention(queries[:4], keys, torch.ones(6, 1))
right = attention(queries, keys, torch.ones(6, 1))
figure, axes = plt.subplots(figsize=(7, 3))
places = np.arange(5)
axes.bar(places - 0.25, right[:, 0], 0.25, color=style.OUTPUT, label="right axis")
axes.bar(places, mixed[:, 0], 0.25, color=style.KEY, label="wrong axis")
axes.bar(places[:4] + 0.25, fewer[:, 0], 0.25, color=style.MASK, label="wrong, one query less")
axes.set(xlabel="query", ylabel="answer", xticks=places, ylim=(0, 3))
axes.legend(ncols=3, fontsize=10)
style.show(
    figure,
    alt="Answers of five queries when every value is 1. On the right axis all are 1; on the "
    "wrong axis they differ, and they change when the last query is taken away.",
)

# %% [markdown]
# That is the symptom to look for: an answer that depends on the other *queries*.
# It should depend on the query itself, the keys and the values, and on nothing else.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. Scores that keep their size
#
# Difficulty ★☆☆, 5 minutes.
# Return the scaled score of every query with every key, $q \cdot k / \sqrt{d}$.
# There may be leading axes: queries (..., query, d), keys (..., key, d), result
# (..., query, key).
# So `.T`, which turns all axes round, will not do.


# %% tags=["exercise"]
def scaled_scores(queries, keys):
    return ...


check("attention.scale", scaled_scores)

# %%
hint("attention.scale")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def scaled_scores(queries, keys):
#     return queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5
# ```
#
# </details>

# %% [markdown]
# ### 2. Softmax that does not overflow
#
# Difficulty ★★☆, 10 minutes.
# Write softmax over the last axis of a table (query, key) yourself, out of exp, sum and division.
# It must also work where a score is 1000, although exp(1000) is more than a number can hold: it
# becomes inf, and inf / inf becomes NaN.
# (PyTorch's own `softmax` would get the tick too, and teach you nothing.)


# %% tags=["exercise"]
def soft_max(scores):
    return ...


check("attention.softmax", soft_max)

# %%
hint("attention.softmax")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# Subtracting one number from a whole row leaves softmax as it was:
# $e^{s - c} = e^{s} / e^{c}$, and the factor $1 / e^{c}$ cancels in the division.
# With the row's maximum as $c$, no exponent is above 0.
#
# ```python
# def soft_max(scores):
#     powers = (scores - scores.amax(dim=-1, keepdim=True)).exp()
#     return powers / powers.sum(dim=-1, keepdim=True)
# ```
#
# </details>

# %% [markdown]
# ### 3. A dictionary by distance
#
# Difficulty ★★★, 15 minutes.
# Let near keys fit well, instead of keys that point the same way: the score of a query and a key
# is $-\tfrac{1}{2} \lVert q - k \rVert^2 / \sqrt{d}$.
# Here $\lVert q - k \rVert^2$ is the sum of the squared differences of their entries.
# `queries.unsqueeze(-2) - keys.unsqueeze(-3)` subtracts every key from every query.
# Write the whole lookup: score, softmax, mix. There may be leading axes.


# %% tags=["exercise"]
def lookup_by_distance(queries, keys, values):
    return ...


check("attention.distance", lookup_by_distance)

# %%
hint("attention.distance")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def lookup_by_distance(queries, keys, values):
#     differences = queries.unsqueeze(-2) - keys.unsqueeze(-3)  # (..., query, key, d)
#     scores = -differences.square().sum(dim=-1) / 2
#     weights = (scores / queries.shape[-1] ** 0.5).softmax(dim=-1)
#     return weights @ values
# ```
#
# When all keys are equally long this is the attention of this lesson, exactly:
# $-\tfrac{1}{2} \lVert q - k \rVert^2 = q \cdot k - \tfrac{1}{2} \lVert q \rVert^2 -
# \tfrac{1}{2} \lVert k \rVert^2$, and the last two terms are the same along a row, so softmax
# drops them.
#
# </details>

# %% [markdown]
# ## What you have now
#
# A lookup is a weighted sum of values.
# Attention makes the weights soft: dot products of queries and keys, divided by √d, then softmax
# over the keys.
# The division keeps the scores at a spread of 1, so that softmax starts where it has a slope.
# Each query is answered by itself, and the order of the entries does not matter.
#
# **References.**
# Scaled dot-product attention: Vaswani et al. 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762),
# section 3.2.1, equation 1; its footnote 4 has the argument for √d.
# The soft choice among the words of a sentence: Bahdanau et al. 2014,
# [arXiv:1409.0473](https://arxiv.org/abs/1409.0473), section 3.1.
# Reading a memory by its content, with a strength that hardens the choice: Graves et al. 2014,
# [arXiv:1410.5401](https://arxiv.org/abs/1410.5401), section 3.3.1.
#
# **Next.** One dictionary answers one kind of question at a time.
# [Lesson 02](02-heads.ipynb), heads, runs several side by side.
# All lessons are on the map of [lesson 00](00-start-here.ipynb).
