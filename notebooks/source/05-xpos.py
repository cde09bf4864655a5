# %% [markdown]
# # 05 · xPos: scores that fade with distance
#
# Rotation tells a query how far away a key is, but leaves both as long as they were: a key four
# thousand tokens back can count as much as the one next door.
# **How can a score fade with distance, when the key was stored before anyone knew which query
# would come?**
#
# In this lesson you build xPos: a number for each pair of features that multiplies queries and
# divides keys, so that their products fade.
# You prove that it is what `zeta_edu` computes, and you find out what fading does not do.
#
# It takes about 45 minutes to read and 20 seconds to run.
# You need the rotation of lesson 04, the causal mask of lesson 03, powers, logarithms and, for one
# section, complex numbers.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from ipywidgets import FloatLogSlider, interact

from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import style, xpos_view

torch.manual_seed(0)
torch.set_default_dtype(torch.double)
style.use()
show_block_map(lit=("xpos",))

# %% [markdown]
# All numbers are in double precision, until we look for where single and half precision give up.

# %% [markdown]
# ## Rotation, in two cells
#
# This is what you built in lesson 04.
# A vector of *d* features is d/2 pairs: feature *i* with feature *i* + d/2.
# Pair *i* turns by $\theta_i = 10000^{-2i/d}$ radians for every position.
# Pair 0 turns fastest; the last pair hardly moves.


# %%
def frequencies(d):
    return 10_000 ** (-torch.arange(0, d, 2.0) / d)  # (d/2,)


def rotate(x, positions):
    """Turn every pair of x (..., n, d) by its angle at the positions (n,)."""
    angles = positions[:, None] * frequencies(x.shape[-1])  # (n, d/2)
    first, second = x.chunk(2, dim=-1)  # (..., n, d/2) each
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


# %% [markdown]
# The product of a turned query and a turned key depends on the *difference* of their positions
# only. Here both are shifted by 5000.

# %%
query, key = torch.randn(1, 64), torch.randn(1, 64)
for m, n in ((7.0, 2.0), (5007.0, 5002.0)):
    product = rotate(query, torch.tensor([m])) @ rotate(key, torch.tensor([n])).T
    print(f"query at {m:4.0f}, key at {n:4.0f}: {product.item():.6f}")

# %% [markdown]
# ## Fading, by hand
#
# Take one number, say one half.
# Multiply a query at position *m* by $(1/2)^m$, and a key at position *n* by $(1/2)^{-n}$, which is
# $2^n$.

# %%
for m, n in ((5, 3), (5, 1), (9, 7)):
    of_query, of_key = 0.5**m, 0.5**-n
    print(f"m = {m}, n = {n}: {of_query:.6f} times {of_key:5.1f} is {of_query * of_key}")

# %% [markdown]
# By hand: 1/32 times 8 is 1/4, and so is 1/512 times 128.
# The two factors know one position each. Their product knows the distance: $(1/2)^{m-n}$.
# It is the trick of the rotation once more, with a power in place of an angle.
#
# Here are the products for all positions up to 5.

# %%
positions = torch.arange(6.0)
products = 0.5 ** positions[:, None] * 0.5**-positions  # (query, key)
figure, axes = plt.subplots(figsize=(5, 3.6))
axes.imshow(products.log2(), cmap=style.MAP_SIGNED, vmin=-6, vmax=6)
for (m, n), value in np.ndenumerate(products.numpy()):
    text = f"{value:.0f}" if value >= 1 else f"1/{1 / value:.0f}"
    axes.text(n, m, text, ha="center", va="center", color="white" if abs(m - n) > 3 else "black")
axes.set(xlabel="position of the key, n", ylabel="position of the query, m")
style.show(
    figure,
    alt="Table of the products: 1 on the diagonal, a half, a quarter and so on below it in brown, "
    "and 2, 4 and so on above it in green, where the key comes after the query.",
)

# %% [markdown]
# Below the diagonal, in brown, the key comes first, and the product falls with distance.
# Above it, in green, it grows: a key of the future would count more than one of the past.
# So fading of this kind needs the causal mask of lesson 03, which hides that half.

# %% [markdown]
# ## The origin cancels
#
# Positions may be counted from anywhere. Call the place from where we count the *origin*, *o*, and
# write ζ (zeta) for the number that was one half.
# The query takes $\zeta^{m - o}$, the key $\zeta^{o - n}$, and
#
# $$\zeta^{m - o} \cdot \zeta^{o - n} = \zeta^{(m - o) + (o - n)} = \zeta^{m - n}.$$
#
# The origin is gone.
# In numbers, for a query at 9, a key at 7, and four origins:

# %%
for origin in (0, 7, 100, -30):
    of_query, of_key = 0.5 ** (9 - origin), 0.5 ** (origin - 7)
    print(f"o = {origin:3}: {of_query:8.2g} times {of_key:8.2g} is {of_query * of_key}")

# %% [markdown]
# The product is the same, but look at the factors: from 100 or from −30 they are huge and tiny.
# Keep this in mind; it is the one thing that makes xPos hard.

# %% [markdown]
# ## Each pair fades at its own rate
#
# One ζ for all would do. xPos gives each pair its own.
# To see why, follow what a pair adds to the score as the distance grows: it is proportional to
# the cosine of the distance times θ, if query and key start in the same direction.

# %%
distances = torch.arange(0, 301.0)
figure, all_axes = plt.subplots(3, 1, figsize=(7, 4), sharex=True)
for axes, pair in zip(all_axes, (0, 12, 24), strict=True):
    axes.plot(distances, (distances * frequencies(64)[pair]).cos(), color=style.OUTPUT, lw=1)
    axes.set(ylim=(-1.1, 1.1), ylabel=f"pair {pair}")
all_axes[-1].set_xlabel("distance, positions")
style.show(
    figure,
    alt="What three pairs add at distances to 300: pair 0 swings up and down every 6 positions, "
    "pair 12 about every 200, pair 24 stays near 1.",
)

# %% [markdown]
# Pair 0 tells a distance of 3 from one of 6. But its swings around 100 and around 300 look alike:
# alone it cannot say which of the two it is, and what it adds far away is much like noise.
# Pair 24 changes little over the whole range.
# So let a fast pair fade soon and a slow one late.
#
# xPos puts the numbers ζ on a straight line.
# With *i* the number of the pair, counted from 0, and γ (gamma) a constant,
#
# $$\zeta_i = \frac{i / (d/2) + \gamma}{1 + \gamma}, \qquad \gamma = 0.4.$$
#
# By hand, for d = 4: ζ₀ = 0.4 / 1.4 = 0.286, and ζ₁ = (0.5 + 0.4) / 1.4 = 0.643.


# %%
def zetas(d, gamma=0.4):
    shares = torch.arange(0, d, 2.0) / d  # i / (d/2), from 0 to almost 1
    return (shares + gamma) / (1 + gamma)  # (d/2,)


print([round(zeta, 3) for zeta in zetas(4).tolist()])

# %% [markdown]
# What is γ for? At the fast end the line starts at ζ₀ = γ / (1 + γ).
# Without γ that is 0, and the fastest pair would be gone at any distance but 0.
# With a large γ all ζ are near 1, and hardly anything fades.
# The straight line and the 0.4 are the choice of the authors of xPos; nothing said so far demands
# just these.

# %%
figure, axes = plt.subplots(figsize=(7, 3))
for gamma, line in ((0.0, ":"), (0.4, "-"), (2.0, "--")):
    axes.plot(zetas(64, gamma), line, color=style.OUTPUT, label=f"γ = {gamma}")
axes.set(xlabel="pair i, fast to slow", ylabel="ζ", ylim=(0, 1.02))
axes.legend()
style.show(
    figure,
    alt="Three straight lines of ζ over 32 pairs, all ending near 1: from 0 for γ = 0, from 0.29 "
    "for γ = 0.4, from 0.67 for γ = 2.",
)

# %% [markdown]
# ## The scale base
#
# ζ₀ = 0.286 at every position would be far too fast: five tokens on, 0.002 of the pair is left.
# So the exponent is the distance *r* = *m* − *n* divided by the **scale base** *B*, which is 512
# in the package and here, unless another is given.
# A pair has faded to ζ after 512 positions, and to ζ² after 1024:
#
# $$\text{what is left at distance } r = \zeta_i^{\, r / B}.$$
#
# When is half of a pair left? Solve $\zeta^{r/B} = 1/2$: $r = B \, \log(1/2) / \log \zeta$.

# %%
for pair in (0, 8, 16, 24, 31):
    turn = 2 * math.pi / frequencies(64)[pair]
    half = 512 * math.log(0.5) / zetas(64)[pair].log()
    print(f"pair {pair:2}: turns once in {turn:6.0f} positions, half is left after {half:6.0f}")

# %% [markdown]
# ## The function
#
# `fade` gives the factors for given distances, one for each feature.
# Both members of a pair take the same factor, so that fading does not turn the pair.


# %%
def fade(distances, d, scale_base=512):
    """ζ ** (distance / scale_base) for each feature: (n, d)."""
    powers = zetas(d) ** (distances[:, None] / scale_base)  # (n, d/2)
    return torch.cat((powers, powers), dim=-1)


# %% [markdown]
# Now rotation and fading together. The origin is the first of the queries.


# %%
def place(queries, keys, query_at, key_at, scale_base=512):
    """Give queries and keys their positions: turned, and faded from the first query's place."""
    origin, d = query_at[0], queries.shape[-1]
    queries = rotate(queries, query_at) * fade(query_at - origin, d, scale_base)
    keys = rotate(keys, key_at) * fade(origin - key_at, d, scale_base)
    return queries, keys


# %% [markdown]
# Shift everything by 90,000 and the scores stay.

# %%
queries, keys = torch.randn(4, 64), torch.randn(7, 64)
tables = []
for shift in (0.0, 90_000.0):
    q, k = place(queries, keys, shift + torch.arange(3.0, 7.0), shift + torch.arange(7.0))
    tables.append(q @ k.T)  # (4 queries, 7 keys)
print("the same to 9 digits:", torch.allclose(*tables, rtol=1e-9, atol=1e-9))

# %% [markdown]
# ## The score against distance
#
# How does the score of a query and a key depend on their distance *r*?
# (Scores are divided by √d only from the trained model on.)
# Start with the simplest of both: all ones.
# Their pairs all point the same way, so at distance 0 they are in step, and the score is *d*.
# As a share of that, the score at distance *r* is
#
# $$g(r) = \frac{1}{d/2} \sum_{i} \zeta_i^{\, r/B} \cos(r \, \theta_i).$$
#
# With rotation alone every ζ is 1.
# The view draws both.
# Point at the curves; change γ, the scale base and the length.
# *RoPE* is the usual name of the rotation. Its bound, and the *most possible* (dashed in a still
# picture), can be chosen in place of the ones: they are the two bounds of the next section.
# The areas below are groups of pairs, named by how many positions they need for a turn; what
# overflows beside them is the matter of a later section.

# %%
xpos_view()

# %% [markdown]
# Both curves fall at first, and for the same reason: the pairs turn at different speeds and get out
# of step.
# The curve of rotation alone goes on jumping up and down, from the fast pairs.
# xPos fades those, so its curve becomes smooth, from about 1,000 positions on.

# %% [markdown]
# ## An upper bound
#
# Ones are special. For any query and key, read a pair (a, b) as the complex number
# $a + \mathrm{i} b$, with an upright i; the slanted one is still the number of the pair.
# The product of two pairs is then the real part of $q_i \bar k_i$, with a bar for the conjugate,
# and turning by *a* multiplies by $e^{\mathrm{i} a}$. So
#
# $$\text{score}(r) = \operatorname{Re} \sum_i h_i \, t_i(r), \qquad h_i = q_i \bar k_i, \qquad
# t_i(r) = \zeta_i^{\, r/B} e^{\mathrm{i} r \theta_i}.$$
#
# The $h_i$ belong to the vectors, the $t_i$ to the distance.


# %%
def pairs(x):
    """Read pairs of features (..., d) as complex numbers (..., d/2)."""
    return torch.complex(*x.chunk(2, dim=-1))


def terms(distances, d, scale_base=512):
    powers = zetas(d) ** (distances[:, None] / scale_base)  # (n, d/2)
    return torch.polar(powers, distances[:, None] * frequencies(d))


# %%
h = pairs(query[0]) * pairs(key[0]).conj()  # (32,)
t = terms(torch.tensor([300.0]), 64)[0]  # (32,)
q, k = place(query, key, torch.tensor([800.0]), torch.tensor([500.0]))
print(f"by pairs {(h * t).sum().real:.6f}, by vectors {(q @ k.T).item():.6f}")

# %% [markdown]
# Let $S_i$ be the sum of the terms up to and including $t_i$. Then $t_i = S_i - S_{i-1}$, where
# $S_{-1} = 0$, and sorting the sum by $S_i$ gives, with $h$ behind the last pair set to 0,
#
# $$\sum_i h_i t_i = \sum_i (h_i - h_{i+1}) \, S_i, \qquad \text{so} \qquad
# |\text{score}(r)| \le \max_i |h_i - h_{i+1}| \; \sum_i |S_i(r)|.$$
#
# This is summation by parts.
# The first factor depends on the vectors alone, the second on the distance alone.
# It is the bound of the rotary paper, with ζ inside the terms.
#
# A plainer bound leaves the turning out. A cosine is at most 1, so
#
# $$|\text{score}(r)| \le \sum_i \zeta_i^{\, r/B} \, |q_i| \, |k_i|.$$

# %%
steps = (h - torch.cat((h[1:], torch.zeros(1)))).abs()  # (32,)


def score_and_bounds(distances, scale_base):
    t = terms(distances, 64, scale_base)  # (n, 32)
    by_parts = steps.max() * t.cumsum(dim=-1).abs().sum(dim=-1)
    return (t * h).sum(dim=-1).real.abs(), by_parts, t.abs() @ h.abs()


# %% [markdown]
# Both bounds, for one random query and key; an infinite scale base means no fading.

# %%
distances = torch.arange(0, 4097.0, 4)
figure, all_axes = plt.subplots(1, 2, figsize=(7.6, 3.4), sharey=True)
titles = {"rotation alone": math.inf, "xPos": 512}
for axes, (title, scale_base) in zip(all_axes, titles.items(), strict=True):
    score, by_parts, plain = score_and_bounds(distances, scale_base)
    axes.semilogy(distances, by_parts, color=style.KEY, lw=1, label="bound by parts")
    axes.semilogy(distances, plain, color=style.VALUE, label="plain bound")
    axes.semilogy(distances, score, color=style.MASK, lw=0.7, label="size of the score")
    axes.set(title=title, xlabel="distance, positions", ylim=(1e-2, 1e4))
all_axes[1].legend(fontsize=10, loc="upper right")
style.show(
    figure,
    alt="Score and bounds to distance 4096. Rotation alone: the score hovers around 5, the bound "
    "by parts falls but stays far above, the plain bound is flat. xPos: all three fall.",
)

# %% [markdown]
# With rotation alone the bound by parts soon falls from 3,000 to less than 1,000, and then hovers.
# But here it lies above even the plain bound, and the score does not fall.
# A bound says where a score cannot be; that it falls does not make the score fall.
# The plain bound is flat, and we shall see that it can be reached at any distance.
#
# With xPos the plain bound falls, and under it a score may rise for a while, but not for long.
# How fast the bound falls depends on which pairs are long: at 2,048, pair 0 alone keeps 0.7 %, pair
# 31 alone 91 %. For these two vectors:

# %%
for n in (0, 512, 2048, 4096):
    _, _, plain = score_and_bounds(torch.tensor([float(n)]), 512)
    print(f"distance {n:4}: no more than {plain.item() / h.abs().sum():.0%} of the bound at 0")

# %% [markdown]
# ## Choose γ and the scale base
#
# Here Python computes the curve of the ones and the plain bound anew for each setting.
# With a small scale base little is left far away; with a large one nearly rotation alone is left.


# %%
def draw_fading(gamma, scale_base):
    distances = torch.arange(0, 2049.0, 2)
    angles = distances[:, None] * frequencies(64)  # (n, 32)
    powers = zetas(64, gamma) ** (distances[:, None] / scale_base)
    figure, axes = plt.subplots(figsize=(7, 3.2))
    axes.plot(distances, angles.cos().mean(-1), color=style.MASK, lw=0.7, label="rotation alone")
    axes.plot(distances, (powers * angles.cos()).mean(-1), color=style.OUTPUT, label="xPos")
    axes.plot(distances, powers.mean(-1), "--", color=style.VALUE, label="plain bound, xPos")
    title = f"γ = {gamma:.2g}, scale base {scale_base:.0f}"
    axes.set(title=title, xlabel="distance, positions", ylabel="share of score", ylim=(-0.2, 1))
    axes.legend(fontsize=10)
    style.show(
        figure,
        alt=f"Share of the score of ones against distance for {title}: rotation alone noisy, xPos "
        "smoother, the plain bound of xPos falling from 1.",
    )


# %%
gamma_slider = FloatLogSlider(0.4, min=-1.3, max=0.7, step=0.1, continuous_update=False)
base_slider = FloatLogSlider(512, min=1.2, max=4.2, step=0.1, continuous_update=False)
_ = interact(draw_fading, gamma=gamma_slider, scale_base=base_slider)

# %% [markdown]
# ## What decay does not explain
#
# "Rotation makes attention fall with distance" is often said.
# Barbero et al. looked at it closely, and found that it does not hold for arbitrary queries and
# keys. Here are three experiments; the first two follow their arguments.
#
# First, random vectors. Turning one leaves it as random as before, so the score keeps its spread,
# √d = 8, at every distance.
# With xPos the variances of the features are multiplied by their squared factors.

# %%
queries, keys = torch.randn(2, 5000, 64)
for n in (0, 30, 300, 3000):
    turned = rotate(queries, torch.full((5000,), float(n)))
    factors = fade(torch.tensor([float(n)]), 64)  # (1, 64)
    rotation, xpos = ((x * keys).sum(dim=-1).std() for x in (turned, turned * factors))
    foreseen = factors.square().sum().sqrt()
    print(f"distance {n:4}: spread {rotation:.1f} turned,", end=" ")
    print(f"{xpos:.1f} with xPos, foreseen {foreseen:.1f}")

# %% [markdown]
# Second, chosen vectors. Take any query, and let the key be the query as it will look after it has
# turned for 1000 positions.
# At distance 1000 both point the same way in every pair, and the plain bound is reached.


# %%
def scores_of_the_chosen(peak, kept=slice(0, 32)):
    """Scores against distance, rotation alone and xPos, for a key that fits at `peak`."""
    q = torch.zeros(32)
    q[kept] = 1.0
    q = (q / q.norm()).repeat(1, 2) / math.sqrt(2)  # (1, 64)
    k = rotate(q, torch.tensor([float(peak)]))
    h = pairs(q[0]) * pairs(k[0]).conj()  # (32,)
    distances = torch.arange(0, 2049.0)
    return [(terms(distances, 64, base) * h).sum(dim=-1).real for base in (math.inf, 512)]


# %%
figure, all_axes = plt.subplots(1, 2, figsize=(7.6, 3.2), sharey=True)
chosen = {"all pairs": slice(0, 32), "slow pairs, 16 to 31": slice(16, 32)}
for axes, (title, kept) in zip(all_axes, chosen.items(), strict=True):
    rotation, xpos = scores_of_the_chosen(1000, kept)
    for name, score, colour in (("rotation", rotation, style.MASK), ("xPos", xpos, style.OUTPUT)):
        axes.plot(score, color=colour, lw=1, label=name)
        print(f"{title}, {name}: largest at distance {score.argmax()}, {score.max():.2f}")
    axes.set(title=title, xlabel="distance, positions")
all_axes[0].set_ylabel("score")
all_axes[0].legend(fontsize=10)
style.show(
    figure,
    alt="Scores of chosen vectors: with rotation alone a peak of 1 at distance 1000; with xPos "
    "the peak is lower. With slow pairs only, the peak is broad and xPos takes less of it.",
)

# %% [markdown]
# A query that wants a key 1000 positions back can have it, and xPos only makes it weaker.
# In the slow pairs a good two thirds are left of it, though the peak is broad and has moved a
# little nearer: "about 1000", not "1000". What xPos takes away first is fine detail far away.
#
# Third, a trained model.
# The small model of lesson 00 was trained with xPos; here are its own queries and keys over some
# lines of code, before rotation (this model does not normalise them).

# %%
from zeta_edu import load_pretrained

code = '''
class Stack:
    """A pile of items: the last one put on is the first one taken off."""

    def __init__(self, items=()):
        self.items = list(items)

    def push(self, item):
        self.items.append(item)

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()

    def __len__(self):
        return len(self.items)

    def __repr__(self):
        return f"Stack({self.items!r})"
'''

# %% [markdown]
# A *hook* is a function that PyTorch calls when a layer has run. This one keeps what the *one
# projection* of the map gives out in the third block: queries of six heads, then the keys that all
# six share, with 32 features each.

# %%
model, tokenizer = load_pretrained("python-small")
kept = []
projection = model.blocks[2].fused_attn_ff_proj
handle = projection.register_forward_hook(lambda layer, given, out: kept.append(out[0]))
with torch.no_grad():
    model(torch.tensor([tokenizer.encode(code)]))
handle.remove()

# %%
features = kept[0][:, : 7 * 32].double().unflatten(-1, (7, 32)).transpose(0, 1)  # (7, token, 32)
model_queries, model_keys = features[:6], features[6:]  # (6, token, 32), (1, token, 32)
xpos_view(32, length=features.shape[1], queries=model_queries, keys=model_keys)

# %% [markdown]
# The dots are the products of one head, averaged by distance, as a share of the mean lengths of
# its queries and keys. Choose another head.
# They do fall with distance. Is that the decay?
# Look at the numbers: the mean scores, near and far, with rotation alone, and far with xPos; then
# the weight of the far keys, for queries that have some.

# %%
at = torch.arange(float(features.shape[1]))
distances = at[:, None] - at  # (query, key)
near, far = (distances > 0) & (distances <= 8), distances > 64
means, on_far = [], []
for base in (math.inf, 512):
    q, k = place(model_queries, model_keys, at, at, base)
    scores = q @ k.mT / math.sqrt(32)  # (6 heads, query, key)
    means += [scores[:, near].mean(dim=-1), scores[:, far].mean(dim=-1)]  # (6,) each
    weights = scores.masked_fill(distances < 0, -math.inf).softmax(dim=-1)
    on_far.append((weights * far)[:, 65:].sum(dim=-1).mean(dim=-1))  # (6,)
for head, (close, alone, _, faded) in enumerate(zip(*means, strict=True)):
    print(f"head {head}: near {close:4.1f}, far {alone:5.1f} turned, {faded:5.1f} with xPos")
share = (far.sum(dim=-1) / (at + 1))[65:].mean()
turned, fading = (weight.max() for weight in on_far)
print(f"far: {share:.0%} of the keys; of the weight, in the head where it is most,")
print(f"     {turned:.0%} with rotation alone, {fading:.0%} with xPos")
print("xPos gives them more of it in every head:", bool((on_far[1] > on_far[0]).all()))

# %% [markdown]
# Far away the scores are not small: they are large and *negative*.
# That is not the work of fading, which brings what each pair adds nearer to 0. Here it lifts all
# six of the far scores, and the far tokens get a little *more* weight.
# In this block, over this text, they get little because queries and keys have learned to point away
# from each other there, in spite of the decay.
# What a score may be at a distance and what it is are two things; training decides the second.

# %% [markdown]
# ## How far can the factors go?
#
# Back to the factors, which cancel on paper.
# With the origin at position 0, the key at *n* is divided by $\zeta^{n/B}$.
# The fastest pair is the worst: ζ₀ = 1/3.5, so its factor is $3.5^{n/512}$.
# Where does it leave what a number can hold? And where does the query's, $3.5^{-n/512}$, become 0?

# %%
at = torch.arange(0, 50_000.0)
key_factors = 3.5 ** (at / 512)
for dtype in (torch.float16, torch.bfloat16, torch.float32):
    infinite = key_factors.to(dtype).isinf().int().argmax()
    zero = (1 / key_factors).to(dtype).eq(0).int().argmax()
    name = str(dtype).removeprefix("torch.")
    print(f"{name:8}  the key's is infinite from {infinite:6,} on, the query's 0 from {zero:6,} on")

# %% [markdown]
# In half precision, float16, fewer than five thousand tokens are too many; in single precision,
# float32, thirty-six thousand are. (bfloat16 has 16 bits as float16 has, but the range of
# float32 and fewer digits.)
# Where the key's factor is infinite, so are its products, and where the query's is 0 as well, they
# are not numbers.
#
# No single origin helps for long: it has to move along with the text.
# The package takes the queries in **windows** of 16 scale bases, and the origin is the first query
# of the window.
# What does that give?
# A query in the window is at most 16 scale bases after the origin, so its factor is at least
# $(1/3.5)^{16}$.
# A key in the window has the reciprocal, at most $3.5^{16}$.
# A key before the window only fades.
# (A key of the future may come out $3.5^{16}$ times too large. It is finite, and the mask hides
# it.)
# And nothing depends on how long the text is, or was.

# %%
single, half = (torch.finfo(dtype).max for dtype in (torch.float32, torch.float16))
print(f"3.5 ** 16 is {3.5**16:.1e}, and float32 holds numbers up to {single:.1e}")
print(f"3.5 **  2 is {3.5**2:.1f}, and float16 holds numbers up to {half:,.0f}")

# %%
at = torch.arange(0, 50_000.0, 50)
figure, axes = plt.subplots(figsize=(7, 3.4))
axes.semilogy(at, 3.5 ** (at / 512), color=style.KEY, label="one origin, at 0")
axes.semilogy(
    at, 3.5 ** (at % 8192 / 512), "--", color=style.KEY, label="a window of 16 scale bases"
)
for largest, name in ((65_504, "float16"), (3.4e38, "float32")):
    axes.axhline(largest, color=style.MASK, lw=1)
    axes.text(52_500, largest, f"the largest\n{name}", va="center", fontsize=10)
axes.set(
    xlabel="position of the key", ylabel="factor of pair 0", ylim=(0.1, 1e54), xlim=(0, 52_000)
)
axes.legend(fontsize=10, loc="upper left")
style.show(
    figure,
    alt="Factor of a key against its position, on a logarithmic scale. One origin: a straight line "
    "that passes float16's largest number at 4,533 and float32's at 36,261. Windows: a saw below "
    "half a billion.",
)

# %% [markdown]
# In float16 even $3.5^{16}$ is too much; there the window is 2 scale bases.
#
# A key is read by queries of many windows, from a different origin each time.
# So no factor that is stored with it suits them all. The package stores keys turned, but not faded,
# and fades them when a window reads them.
# That costs one multiplication per feature of each key: little beside the products of many queries,
# but as much as the product of one query, when tokens are written one by one.
#
# Here is the whole of it: causal attention over turned queries and keys, window by window.
# `past` is the number of keys that are older than the first query.


# %%
def xpos_attention(queries, keys, values, past=0, scale_base=512):
    """Queries (..., n, d) at `past` and on, keys and values (..., past + n, d), all turned."""
    n, d = queries.shape[-2:]
    window, outputs = max(1, int(16 * scale_base)), []
    for start in range(0, n, window):
        part = queries[..., start : start + window, :]
        first, end = past + start, past + start + part.shape[-2]
        at = torch.arange(float(end), dtype=torch.double)
        faded = keys[..., :end, :] * fade(first - at, d, scale_base)
        part = part * fade(at[first:] - first, d, scale_base)
        scores = part @ faded.mT / math.sqrt(d)  # (..., window, end)
        later = at > at[first:, None]  # keys of the future: (window, end)
        weights = scores.masked_fill(later, -math.inf).softmax(dim=-1)
        outputs.append(weights @ values[..., :end, :])
    return torch.cat(outputs, dim=-2)


# %% [markdown]
# Three hundred queries with a scale base of 4 fall into five windows, each with its own origin.
# A window does not show in the result: with all the queries in one, it is the same.

# %%
queries, keys, values = torch.randn(3, 1, 300, 16)
turned = [rotate(x, torch.arange(300.0)) for x in (queries, keys)]
windows = xpos_attention(*turned, values, scale_base=4)
q, k = place(queries, keys, torch.arange(300.0), torch.arange(300.0), scale_base=4)
later = torch.ones(300, 300).triu(1).bool()
whole = (q @ k.mT / 4).masked_fill(later, -math.inf).softmax(dim=-1) @ values
print("the same to 9 digits:", torch.allclose(windows, whole, rtol=1e-9, atol=1e-9))

# %% [markdown]
# ## The proof
#
# Now compare with the package: `rotate_queries_keys` is our `place`, `apply_xpos` fades one
# window, and `Attend` is the attention of the block, with as many windows as it needs
# (without `flash`, which a later lesson explains).
# Outputs and gradients are compared, at positions near 0 and far out, at positions that are not
# whole, with old keys and without, and at a scale base so small that a window is one query.

# %% tags=["proof"]
from zeta_edu.attention import Attend
from zeta_edu.rotary import apply_xpos, rotate_queries_keys

errors = []


def agree(inputs, ours, theirs):
    """Outputs and gradients must be the same."""
    results = []
    for outputs in (ours, theirs):
        # The weights give each entry of an output a gradient of its own.
        mixed = sum((x * torch.linspace(-1, 1, x.numel()).view_as(x)).sum() for x in outputs)
        results.append([*outputs, *torch.autograd.grad(mixed, inputs)])
    for mine, package in zip(*results, strict=True):
        torch.testing.assert_close(mine, package, rtol=1e-11, atol=1e-11)
        errors.append(((mine - package).abs() / (1 + package.abs())).max().item())


cases = [(2, 4, 0, 1), (16, 5.5, 9, 70), (64, 512, 20, 3), (64, 4, 7, 150), (6, 0.1, 3, 130)]
for d, base, past, n in cases:  # n queries after `past` older keys
    q, k, v = (torch.randn(2, 3, m, d, requires_grad=True) for m in (n, past + n, past + n))
    at = torch.arange(past + n + 0.0)
    for shift in (0, 0.5, 90_000) if n <= 16 * base else ():  # one window
        where = at[past:] + shift, at + shift
        theirs = rotate_queries_keys(q, k, *where, xpos_scale_base=base)
        agree((q, k), place(q, k, *where, base), theirs)
        ours = q * fade(at[past:] - past, d, base), k * fade(past - at, d, base)
        agree((q, k), ours, apply_xpos(q, k, past, base))
    attend = Attend(d**-0.5, causal=True, dropout=0.0, flash=False, xpos_scale_base=base)
    agree((q, k, v), [xpos_attention(q, k, v, past, base)], [attend(q, k, v)])
print("largest error below 1e-11:", max(errors) < 1e-11)

# %% [markdown]
# ## What goes wrong: an origin that moves with the length
#
# A natural origin is the middle of the text: the factors then are smaller, on both sides.
# As long as everything is computed at once, it is right.
#
# Now write with a cache. A model has read 256 tokens, and stored the keys turned *and faded*, from
# the origin 128.
# Then more text comes, all at once; the middle moves, and the new queries are faded from there.
# The query at position 256 is the first of them; we put 200 random ones there.

# %%
queries, keys = torch.randn(200, 64), torch.randn(256, 64)
old = torch.arange(256.0)
new = torch.full((200,), 256.0)
cached = rotate(keys, old) * fade(128 - old, 64)


# %%
def scores_from(middle, keys):
    """Scores (200 queries, 256 keys) of queries that are faded from an origin."""
    return (rotate(queries, new) * fade(new - middle, 64)) @ keys.T / math.sqrt(64)


errors = {}
for length in (256, 512, 1024, 2048, 4096):
    right = scores_from(length / 2, rotate(keys, old) * fade(length / 2 - old, 64))
    stale = scores_from(length / 2, cached)
    errors[length] = (stale - right).std().item()
    print(f"grown to {length:4}: off by {errors[length]:5.2f}, their spread is {right.std():.2f}")

# %% [markdown]
# When the text doubles, the scores are off by 0.14, which is easily overlooked.
# When it grows to 4096 they are off by more than 20, many times their own spread.
#
# The old keys hold $\zeta^{128 - n}$, the new queries $\zeta^{m - 2048}$, with exponents counted in
# scale bases.
# The product is $\zeta^{m - n}$ times $\zeta^{128 - 2048}$: the two origins do not cancel.
# For the fastest pair this is $3.5^{3.75}$, more than 100.

# %%
figure, (left, right_axes) = plt.subplots(1, 2, figsize=(7.6, 3.2))
lengths = list(errors)[1:]  # at 256 the error is 0
left.loglog(lengths, [errors[length] for length in lengths], "o-", color=style.KEY)
left.set_xticks(lengths, lengths)
left.minorticks_off()
left.set(xlabel="length that the text has grown to", ylabel="error of the scores", ylim=(0.05, 50))
for scores, name, colour in ((right, "as it should be", style.MASK), (stale, "stale", style.KEY)):
    largest = scores.softmax(dim=-1).amax(dim=-1).sort().values
    right_axes.plot(largest, color=colour, label=name)
    print(f"{name}: {(largest > 0.9).sum() / 200:.0%} of the queries give one key more than 0.9")
right_axes.set(xlabel="query, sorted", ylabel="its largest weight at 4096", ylim=(0, 1.02))
right_axes.legend(fontsize=10, loc="center right")
style.show(
    figure,
    alt="Left: the error of the scores grows from 0.14 at 512 to over 20 at 4096. Right: the "
    "largest weight of each of 200 queries at 4096: below 0.2 as it should be, mostly near 1 when "
    "stale.",
)

# %% [markdown]
# Scores that large make softmax hard, as lesson 01 showed: most queries put almost all their weight
# on one key.
# There is no error message. The weights are merely wrong once the text has grown.
# The cure is in the windows above: an origin that the *queries* choose, and keys that are stored
# without a factor.

# %% [markdown]
# ## What goes wrong: one origin, in half precision
#
# An origin that never moves is stale nowhere. It overflows instead.
# Take queries and keys at a distance of 10, at ever later positions; round the factors and their
# products with the vectors to float16, and compare with double precision.

# %%
queries, keys = torch.randn(2, 500, 64)


def half_error(position, origin):
    """The error of scores at distance 10 when factors and products are float16."""
    m, n = torch.full((500,), float(position)), torch.full((500,), position - 10.0)
    exact = (rotate(queries, m) * fade(m - n, 64) * rotate(keys, n)).sum(dim=-1)
    q = rotate(queries, m).half() * fade(m - origin, 64).half()
    k = rotate(keys, n).half() * fade(origin - n, 64).half()
    return ((q.double() * k.double()).sum(dim=-1) - exact).abs().mean().item()


# %% [markdown]
# One origin at 0, against the package's choice for float16: windows of 2 scale bases, that is 1024.

# %%
at = range(100, 8000, 100)
fixed = [half_error(position, 0) for position in at]
window = [half_error(position, position // 1024 * 1024) for position in at]
figure, axes = plt.subplots(figsize=(7, 3.2))
axes.plot(at, fixed, color=style.KEY, label="one origin, at 0")
axes.plot(at, window, color=style.QUERY, label="windows")
axes.axvline(4533, color=style.MASK, ls=":", label="the factor is infinite")
axes.set(xlabel="position of the query", ylabel="mean error of a score", xlim=(0, 8000))
axes.set_ylim(0, 0.005)
axes.legend(fontsize=10, loc="lower right")
style.show(
    figure,
    alt="Error of scores in float16 against position. With windows a level line near 0.003 goes "
    "from end to end; with one origin at 0 it is about the same, and ends before 4000. A dotted "
    "line at 4533 marks where the factor is infinite.",
)
for name, found in (("one origin", fixed), ("windows", window)):
    print(f"{name}: finite at {sum(map(math.isfinite, found))} of {len(found)} positions")

# %% [markdown]
# The orange line ends before 4000, where the factor itself is still finite: 17,000 times a feature
# of 4 is more than 65,504 already.
# From then on some scores are infinite or NaN, behind the dotted line all of them, and a single one
# spoils the mean.
# This one at least is hard to overlook, if somebody tries a text that is long enough.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell.
# Vectors come in single precision here.

# %% [markdown]
# ### 1. The numbers ζ
#
# Difficulty ★☆☆, 5 minutes.
# `pairs` holds the numbers of all the pairs, 0, 1, 2, ... up to d/2 − 1, as a tensor (d/2,).
# Return ζ for each, with γ = 0.4.


# %% tags=["exercise"]
def zeta_of(pairs):
    return ...


check("xpos.zeta", zeta_of)

# %%
hint("xpos.zeta")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def zeta_of(pairs):
#     return (pairs / len(pairs) + 0.4) / 1.4
# ```
#
# </details>

# %% [markdown]
# ### 2. Half-lives
#
# Difficulty ★☆☆, 5 minutes.
# Return the distance at which half of each pair is left, for `zeta` (d/2,) and a `scale_base`.


# %% tags=["exercise"]
def half_lives(zeta, scale_base):
    return ...


check("xpos.half", half_lives)

# %%
hint("xpos.half")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def half_lives(zeta, scale_base):
#     return -scale_base / zeta.log2()
# ```
#
# To the base 2, the logarithm of 1/2 is −1.
#
# </details>

# %% [markdown]
# ### 3. Scores at any position
#
# Difficulty ★★☆, 15 minutes.
# `queries` and `keys` (n, d) are turned already, and stand at the same `positions` (n,).
# Return the table (n, n) of their products with xPos, for `zeta` (d/2,) and a scale base of 512,
# not divided by √d and without a mask.
# It must be right at position 60,000, in single precision.


# %% tags=["exercise"]
def faded_scores(queries, keys, positions, zeta):
    return ...


check("xpos.scores", faded_scores)

# %%
hint("xpos.scores")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def faded_scores(queries, keys, positions, zeta):
#     distances = positions - positions[0]
#     factors = zeta ** (distances[:, None] / 512)  # (n, d/2)
#     factors = factors.repeat(1, 2)  # (n, d): the whole row once more behind itself
#     return (queries * factors) @ (keys / factors).T
# ```
#
# </details>

# %% [markdown]
# ### 4. Move the origin
#
# Difficulty ★★★, 10 minutes.
# Somebody stored `keys` (n, d) faded from the origin `old`, with `zeta` (d/2,) and a scale base of
# 512.
# Return the keys as they would be, faded from the origin `new`.
# You do not know their positions. Do you need them?


# %% tags=["exercise"]
def moved_keys(keys, zeta, old, new):
    return ...


check("xpos.repair", moved_keys)

# %%
hint("xpos.repair")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# The factor that is there is $\zeta^{(\text{old} - n)/512}$, the one that should be is
# $\zeta^{(\text{new} - n)/512}$.
# Their ratio has no *n* in it.
#
# ```python
# def moved_keys(keys, zeta, old, new):
#     factors = zeta ** ((new - old) / 512)  # (d/2,)
#     return keys * factors.repeat(2)
# ```
#
# So a cache with stale factors can be repaired, at the price of multiplying all of it.
# It will not help when a factor has overflowed.
#
# </details>

# %% [markdown]
# ## What you have now
#
# Multiply a query by $\zeta^{m - o}$ and a key by $\zeta^{o - n}$, and their product fades with
# distance: the origin cancels.
# Each pair has its own ζ; fast pairs, which alone say little about far away, fade first.
# The factors can overflow, so the origin follows the queries in windows, and keys are stored
# without a factor.
# xPos lowers what a score can be at a distance; rotation alone does not, and what a model makes of
# either is learned.
#
# **References.**
# xPos: Sun et al. 2022, [arXiv:2212.10554](https://arxiv.org/abs/2212.10554), section 3.2 and
# algorithm 1.
# The upper bound by summation by parts: Su et al. 2021,
# [arXiv:2104.09864](https://arxiv.org/abs/2104.09864), section 3.4.3.
# That rotation does not make attention fall with distance for arbitrary queries and keys: Barbero
# et al. 2024, [arXiv:2410.06205](https://arxiv.org/abs/2410.06205).
#
# **Next.** Scores have a place now, and they fade. Nothing limits how large they can grow.
# Qk norm does: [lesson 06](06-qk-norm.ipynb).
# All lessons are on the map of [lesson 00](00-start-here.ipynb).
