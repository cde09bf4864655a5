# %% [markdown]
# # 06 · Queries and keys of length one
#
# A score is a dot product: it grows when the query grows, and once more when the key grows.
# Nothing in attention keeps a model from making both larger while it trains.
# **What do growing numbers do to attention, and how can one stop them?**
#
# In this lesson you build the normalisation of queries and keys, *qk norm* for short.
# You prove a bound on the scores, follow the gradient through it, and train small models with it
# and without it.
# At the end you prove that your heads are those of a `TransformerBlock` with `qk_rmsnorm=True`.
# (The name: the *rms*, root mean square, of d numbers is their length divided by √d.)
#
# It takes about 50 minutes to read and 20 seconds to run.
# You need lessons 01 to 04: attention, heads, masks, rotary. Lesson 05, xPos, is touched once.

# %%
import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from ipywidgets import FloatLogSlider, interact
from torch import nn

from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import qknorm_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("qk_norm",))

# %% [markdown]
# ## Numbers that grow
#
# Take 16 queries and 16 keys with d = 64 entries each, random, as a model makes them that has
# learned nothing.

# %%
d = 64
queries, keys = torch.randn(16, d), torch.randn(16, d)
scores = queries @ keys.T / math.sqrt(d)  # (query, key)

# %% [markdown]
# An *activation* is any number that flows through a model; queries and keys are activations.
# Let them all grow by a factor $c$.
# Then $(cq) \cdot (ck) = c^2 \, (q \cdot k)$: ten times the activations, a hundred times the
# scores.

# %%
for c in (1, 3, 10):
    grown = (c * queries) @ (c * keys).T / math.sqrt(d)
    largest = grown.softmax(dim=-1).amax(dim=-1)  # (query,): the weight of its best key
    print(f"c = {c:2}: largest score {grown.max():6.1f}, largest weight {largest.mean():.2f}")

# %% [markdown]
# The scores that go into the softmax are also called **logits**; from here on so do we.
# At c = 1 a query shares its attention among many keys.
# At c = 10 nearly all of it goes to one, although nothing has been learned meanwhile.
#
# ## How even is attention?
#
# One number says how evenly the weights of a query are spread, their **entropy**:
#
# $$H = -\sum_j w_j \log_2 w_j, \quad \text{in bits}.$$
#
# By hand: four weights of 1/4 have $-4 \cdot \tfrac14 \log_2 \tfrac14 = 2$ bits, and a single
# weight of 1 has none.
# `entr` is $-w \ln w$, and 0 where w is 0; the division turns the natural logarithm into base 2.


# %%
def entropy(weights):
    return torch.special.entr(weights).sum(dim=-1) / math.log(2)


entropy(torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0], [1, 0, 0, 0]]))

# %% [markdown]
# Even weights on $n$ keys have $\log_2 n$ bits, and that is the most there can be.
# Read backwards: with $H$ bits, attention is as spread as if it were even over $2^H$ keys.
#
# Here are the logits and the entropy as the activations grow.

# %%
factors = torch.logspace(-1, 2, 31)
collapse = [entropy((c**2 * scores).softmax(dim=-1)).mean() for c in factors]
figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
for c, colour in ((1, style.QUERY), (3, style.KEY), (10, style.MASK)):
    bars = {"bins": 60, "range": (-30, 30), "histtype": "step", "lw": 1.5}
    left.hist((c**2 * scores).flatten(), **bars, color=colour, label=f"c = {c}")
left.set(title="logits", xlabel="logit (the largest fall outside)", ylabel="how many")
left.legend()
right.semilogx(factors, collapse, color=style.KEY)
right.axhline(4, color=style.MASK, ls=":")
right.set(title="entropy", xlabel="c, the growth of the activations", ylabel="bits")
style.show(
    figure,
    alt="Left: histograms of the logits, a narrow hill for c = 1, a wide one for c = 3, a low "
    "spread for c = 10. Right: the entropy falls from 4 bits at c = 0.1 to 0 beyond c = 10.",
)

# %% [markdown]
# The entropy falls from 4 bits, even over all 16 keys (the dotted line), to none.
# This is called *entropy collapse*.
# Lesson 01 has shown why it hurts: a softmax that has decided has almost no slope, and without a
# slope there is nothing to learn from.
#
# It happens in earnest.
# The training of a vision transformer of 8 billion parameters diverged after a few thousand
# steps; its authors found huge logits, and weights almost all on one key, with an entropy near 0
# (Dehghani et al. 2023, section 2).
# Others made small models diverge in the same way, by large step sizes (Wortsman et al. 2023).

# %% [markdown]
# ## Length one, by hand
#
# What should count is where a query points, not how long it is.
# So divide it by its length, the root of the sum of its squares.
# The query (3, 4) has the length √(9 + 16) = 5, the key (5, 12) has √(25 + 144) = 13.

# %%
query, key = torch.tensor([3.0, 4.0]), torch.tensor([5.0, 12.0])
unit_query, unit_key = query / 5, key / 13
unit_query, unit_key

# %% [markdown]
# Their dot product was 3·5 + 4·12 = 63; now it is 63/65, the cosine of the angle between them.
# Ten times as long, they give the same.

# %%
grown = 10 * query, 10 * key
float(unit_query @ unit_key), float((grown[0] / 50) @ (grown[1] / 130))

# %% [markdown]
# For many vectors: first in a loop, then at once.
# `keepdim=True` keeps the summed axis, so that each vector is divided by its own length.


# %%
def unit_loop(vectors):
    return torch.stack([vector / math.sqrt(vector @ vector) for vector in vectors])


def unit(vectors):
    lengths = vectors.square().sum(dim=-1, keepdim=True).sqrt()  # (..., 1)
    return vectors / lengths


torch.allclose(unit(queries), unit_loop(queries))

# %% [markdown]
# Seen in the plane, every vector moves along its own direction onto the circle of radius 1.

# %%
figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.4))
some = torch.randn(12, 2)
for panel, vectors, title in ((axes[0], some, "as they come"), (axes[1], unit(some), "length 1")):
    for (x, y), colour in zip(vectors, [style.QUERY] * 6 + [style.KEY] * 6, strict=True):
        panel.plot([0, x], [0, y], "-", color=colour, lw=1)
        panel.plot(x, y, "o", color=colour)
    panel.add_patch(plt.Circle((0, 0), 1, fill=False, color=style.MASK, ls=":"))
    panel.set(title=title, aspect="equal", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6))
axes[0].plot([], [], "o", color=style.QUERY, label="queries")
axes[0].plot([], [], "o", color=style.KEY, label="keys")
axes[0].legend(fontsize=10)
style.show(
    figure,
    alt="Left: twelve vectors of many lengths, six queries and six keys. Right: the same "
    "directions, all ending on the circle of radius 1.",
)

# %% [markdown]
# **The bound.** Let $u$ and $v$ have length 1, so $u \cdot u = v \cdot v = 1$.
# A sum of squares is never negative, so
#
# $$0 \le \lVert u - v \rVert^2 = u \cdot u - 2 \, u \cdot v + v \cdot v = 2 - 2 \, u \cdot v.$$
#
# So $u \cdot v \le 1$, and the same with $u + v$ gives $u \cdot v \ge -1$.
# For vectors of any length this is the inequality of Cauchy and Schwarz,
# $|q \cdot k| \le \lVert q \rVert \, \lVert k \rVert$.

# %%
cosines = unit(1000 * queries) @ unit(1000 * keys).T
print("between −1 and 1:", bool((cosines.abs() <= 1).all()))
print(
    "as without the factor 1000:", torch.allclose(cosines, unit(queries) @ unit(keys).T, atol=1e-6)
)

# %% [markdown]
# ## A factor, or all is even
#
# Logits between −1 and 1 are safe, and too much alike.
# At best the key that a query is after has the logit 1 and all others have −1.
# With $n$ keys, and every logit multiplied by a factor $s$, the weight of that key is
#
# $$\frac{e^{s}}{e^{s} + (n - 1) \, e^{-s}} = \frac{1}{1 + (n - 1) \, e^{-2s}}.$$
#
# No query can put more on any key.
# For n = 16 and s = 1 that is 1 / (1 + 15 · 0.135) = 0.33.


# %%
def most(n, s):
    """The largest weight that a key can have among n, when the logits lie between −s and s."""
    return 1 / (1 + (n - 1) * math.exp(-2 * s))


for n in (16, 1024, 65536):
    print(f"{n:6} keys: at most", ", ".join(f"{most(n, s):.4f} for s = {s}" for s in (1, 4, 8)))

# %%
figure, axes = plt.subplots(figsize=(7, 3))
grid = torch.linspace(0, 12, 100).tolist()
for n, colour in ((16, style.QUERY), (1024, style.KEY), (65536, style.VALUE)):
    axes.plot(grid, [most(n, s) for s in grid], color=colour, label=f"{n} keys")
axes.axvline(8, color=style.MASK, ls=":")
axes.set(xlabel="s, the factor", ylabel="largest possible weight", ylim=(0, 1.05))
axes.legend(loc="center right")
style.show(
    figure,
    alt="The largest possible weight against the factor s: three S-shaped curves, reaching 1 "
    "near s = 3, 5 and 8 for 16, 1024 and 65536 keys. A dotted line marks s = 8.",
)

# %% [markdown]
# So the cosines need a factor.
# In the block it is called `qk_scale`, and it is 8 unless told otherwise.
# It takes the place of 1/√d.
#
# Why 8? For one thing it leaves room: a weight near 1 is possible even among 65536 keys, if all the
# others point the opposite way.
# For another it starts training where 1/√d would start it.
# Let $u$ be any unit vector, and $v$ one in a random direction.
# The squares of the entries of $v$ sum to 1, and no entry is special, so each has
# $\mathbb{E}[v_i^2] = 1/d$.
# No sign is special either: $\mathbb{E}[v_i v_j] = 0$ for $i \ne j$. So
#
# $$\mathbb{E}[(u \cdot v)^2] = \sum_i u_i^2 \, \mathbb{E}[v_i^2]
# = \frac1d \sum_i u_i^2 = \frac1d.$$
#
# The spread of a cosine is 1/√d, which for d = 64 is 1/8; times 8 it is 1.
# For another d the factor would be √d.

# %%
many = unit(torch.randn(1000, d)) @ unit(torch.randn(1000, d)).T
print(f"spread of the cosines {many.std():.3f}, 1/√d {1 / math.sqrt(d):.3f}")
print(f"spread of the logits  {(8 * many).std():.2f}")

# %% [markdown]
# ## Learned scales
#
# Length 1 takes something away: a model can no longer sharpen its attention by longer queries.
# It gets that back by two vectors of $d$ numbers, `q_scale` and `k_scale`.
# Each feature of every unit query is multiplied by its number in `q_scale`, each of a unit key by
# its number in `k_scale`.
# All heads share them, they start at 1, and training moves them.

# %%
q_scale, k_scale = 1 + 0.3 * torch.randn(d), 1 + 0.3 * torch.randn(d)
scaled_queries = unit(queries) * q_scale  # (query, d)
scaled_keys = unit(keys) * k_scale  # (key, d)

# %% [markdown]
# **The bound again.** Write $a$ for `q_scale`, and $|a|_\infty$ for the largest size of its
# numbers. Then
#
# $$\sum_i a_i^2 u_i^2 \le |a|_\infty^2 \sum_i u_i^2 = |a|_\infty^2,$$
#
# so a scaled query is at most $|a|_\infty$ long, and a scaled key at most $|b|_\infty$, where $b$
# is `k_scale`.
# By Cauchy and Schwarz
#
# $$|\text{logit}| \le \text{qk\_scale} \cdot |a|_\infty \cdot |b|_\infty.$$
#
# The rotation of lesson 04 comes after and keeps every length, so the bound holds for rotated
# queries and keys as well.
# With the decay of lesson 05 it holds too, if queries see no later keys: each pair's part of the
# product is then multiplied by at most 1, and by Cauchy and Schwarz the absolute values of the
# parts sum to no more than the bound.
#
# Measured, for queries and keys that grow:

# %%
bound = 8 * q_scale.abs().max() * k_scale.abs().max()
for c in (1, 100, 10_000):
    logits = 8 * (unit(c * queries) * q_scale) @ (unit(c * keys) * k_scale).T
    print(f"c = {c:6}: largest logit {logits.abs().max():.2f}, bound {bound:.2f}")

# %% [markdown]
# Random vectors stay far below.
# A query and a key that both point along one feature $i$ have the logit
# $\text{qk\_scale} \cdot a_i b_i$, so the best such feature shows how near one can come.

# %%
nearest = 8 * (q_scale * k_scale).abs().max()
print(f"along one feature: up to {nearest:.2f}; bound {bound:.2f}")

# %% [markdown]
# The bound is reached when the largest numbers of `q_scale` and `k_scale` stand at the same
# feature; here they do not, but one feature has two large ones.
#
# One thing the bound does not say: `q_scale` and `k_scale` are learned, and may grow.
# It bounds the logits by those two vectors, whatever the activations do.

# %% [markdown]
# ## What the gradient does
#
# Training reaches a query through the normalisation, so we need its derivative.
# Let $r = \lVert x \rVert$ and $u = x / r$. From $r^2 = \sum_i x_i^2$ follows
# $\partial r / \partial x_j = x_j / r = u_j$, and by the quotient rule
#
# $$\frac{\partial u_i}{\partial x_j} = \frac{\delta_{ij} \, r - x_i u_j}{r^2}
# = \frac{1}{r} \, (\delta_{ij} - u_i u_j).$$

# %%
x = torch.tensor([3.0, 4.0], dtype=torch.double)
u = x / 5
formula = (torch.eye(2) - torch.outer(u, u)) / 5
slopes = torch.autograd.functional.jacobian(unit, x)
formula, torch.allclose(formula, slopes)

# %% [markdown]
# If $g$ is the gradient that arrives at $u$, the one that leaves for $x$ is, by the chain rule
# $\sum_i g_i \, \partial u_i / \partial x_j$,
#
# $$g_x = \frac{1}{r} \, \bigl( g - (g \cdot u) \, u \bigr).$$
#
# Its dot product with $u$ is $\frac1r (g \cdot u - (g \cdot u)(u \cdot u)) = 0$.
# The gradient is **orthogonal** to the vector: no part of it points along the vector.
# It has to be so, since stretching the vector changes nothing.
# The loss here: each query's weight on key 0, its logarithm, summed over the queries.

# %%
vectors = queries.clone().requires_grad_()
loss = (8 * unit(vectors) @ unit(keys).T).softmax(dim=-1)[:, 0].log().sum()
(gradients,) = torch.autograd.grad(loss, vectors)
along = (gradients * queries).sum(dim=-1) / (gradients.norm(dim=-1) * queries.norm(dim=-1))
print("cosine of vector and gradient, at most 1e-6:", bool((along.abs() < 1e-6).all()))

# %% [markdown]
# Two things follow for gradient descent.
# By Pythagoras a step of size $\eta$ (eta) *lengthens* the vector:
# $\lVert x - \eta \, g_x \rVert^2 = r^2 + \eta^2 \lVert g_x \rVert^2$.
# And by the factor $1/r$ a longer vector gets a smaller gradient.
# So a step that was too large makes the next ones smaller.
# Here is a vector that gradient steps turn upwards.


# %%
def climb(x, rate, steps=10):
    """Gradient steps that turn a vector of the plane upwards."""
    path = [x]
    for _ in range(steps):
        x = path[-1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(-unit(x)[1], x)
        path.append(path[-1] - rate * gradient)
    return torch.stack(path)  # (steps + 1, 2)


path = climb(torch.tensor([0.5, -0.5]), rate=0.4)
print("lengths", " ".join(f"{length:.2f}" for length in path.norm(dim=-1)))

# %%
figure, axes = plt.subplots(figsize=(4.6, 3.8))
axes.plot(path[:, 0], path[:, 1], "o-", color=style.QUERY)
for x, y in path[:4].tolist():
    axes.add_patch(plt.Circle((0, 0), math.hypot(x, y), fill=False, color=style.MASK, ls=":"))
    axes.plot([0, x], [0, y], color=style.QUERY, lw=0.8)
axes.set(aspect="equal", xlim=(-0.3, 1.3), ylim=(-0.7, 1.3))
axes.set_title("steps leave at a right angle")
style.show(
    figure,
    alt="The path of a vector in the plane, ten steps from lower right to almost straight up. Each "
    "step leaves at a right angle to the vector and ends on a larger circle; the last are tiny.",
)

# %% [markdown]
# The matrix that makes the queries inherits this.
# Multiplied by any positive factor it makes the same unit queries, so the loss does not change
# along its own direction, and its gradient is orthogonal to it.
# The sum over all entries, of the entry times its gradient, is 0.

# %%
inputs, matrix = torch.randn(16, 32), torch.randn(32, d, requires_grad=True)
loss = (8 * unit(inputs @ matrix) @ unit(keys).T).softmax(dim=-1)[:, 0].log().sum()
(gradient,) = torch.autograd.grad(loss, matrix)
size = matrix.norm() * gradient.norm()
print(
    "cosine of matrix and gradient, below 1e-6:",
    bool((matrix * gradient).sum().abs() < 1e-6 * size),
)

# %% [markdown]
# ## Zero vectors, and small floats
#
# A vector of zeros has no direction, and 0/0 is NaN.

# %%
unit(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))

# %% [markdown]
# Dividing by at least a tiny number keeps zero at zero.
# All logits of such a query are 0, so it attends evenly, which is a sensible answer from one who
# points nowhere.
#
# The second trap is precision.
# The largest float16 number is 65504.
# A query of 64 entries of 40 is not extreme, but 64 · 40² = 102400 is beyond that: the length
# becomes infinite, and the query zero.
# At the other end, squares below 3 · 10⁻⁸ round to 0, and small vectors are divided by 0.

# %%
for entry in (40.0, 1.0, 0.0001):
    half = torch.full((1, 64), entry, dtype=torch.float16)
    print(f"64 entries of {entry}: in float16 each becomes {unit(half)[0, 0]:.3f}; right is 0.125")

# %% [markdown]
# So the length is taken in float32 at least, and the result brought back to the dtype that came.
# `promote_types` answers with the wider of two dtypes, so float64 stays float64.
# `vector_norm` is the root of the summed squares; the gradient through it at zero is 0, where a
# written-out `sqrt` would give infinity times 0, which is NaN.


# %%
def normalise(x, scale):
    """Bring vectors to length 1, then multiply each feature by its learned scale."""
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    length = torch.linalg.vector_norm(precise, dim=-1, keepdim=True)  # (..., 1)
    return (precise / length.clamp(min=1e-12) * scale).to(x.dtype)


# %%
ones = torch.ones(64)
for entry in (40.0, 1.0, 0.0001, 0.0):
    half = torch.full((1, 64), entry, dtype=torch.float16)
    print(f"64 entries of {entry}: {normalise(half, ones)[0, 0]:.3f}")

# %% [markdown]
# One sharp edge remains. Below the tiny number only the division by 1e-12 is left, so the gradient
# at a zero vector is $10^{12}$ times what arrives.
# So no vector that training moves should be exactly zero.

# %%
zero = torch.zeros(2, requires_grad=True)
torch.autograd.grad(normalise(zero, torch.ones(2))[0], zero)

# %% [markdown]
# ## The heads
#
# Here is the attention of the lessons before, with qk norm in it: project, split into heads,
# normalise, rotate, then logits, mask, softmax and mix.
# `kv_heads` heads of keys and values serve `heads` heads of queries, as in lesson 02.
# The rotation is that of lesson 04: it keeps the lengths, and so the bound.


# %%
def rotate(x, positions):
    """Turn the pairs (i, i + d/2) of x by position · 10000^(−2i/d)."""
    size = x.shape[-1]
    frequencies = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.double) / size)
    angles = positions[:, None].double() * frequencies  # (position, d/2)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


turned = rotate(scaled_queries, torch.arange(16))
torch.allclose(turned.norm(dim=-1), scaled_queries.norm(dim=-1))


# %%
class NormedAttention(nn.Module):
    def __init__(self, dim, d, heads, kv_heads=1, causal=True, qk_scale=8):
        super().__init__()
        self.heads, self.kv_heads, self.causal, self.qk_scale = heads, kv_heads, causal, qk_scale
        self.to_q = nn.Linear(dim, heads * d, bias=False)
        self.to_k = nn.Linear(dim, kv_heads * d, bias=False)
        self.to_v = nn.Linear(dim, kv_heads * d, bias=False)
        self.to_out = nn.Linear(heads * d, dim, bias=False)
        self.q_scale, self.k_scale = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))

    def forward(self, x):
        q = rearrange(self.to_q(x), "b n (h d) -> b h n d", h=self.heads)
        k = rearrange(self.to_k(x), "b n (kv d) -> b kv n d", kv=self.kv_heads)
        v = rearrange(self.to_v(x), "b n (kv d) -> b kv n d", kv=self.kv_heads)
        positions = torch.arange(x.shape[1])
        q = rotate(normalise(q, self.q_scale), positions)
        k = rotate(normalise(k, self.k_scale), positions)
        shared = self.heads // self.kv_heads
        k, v = (t.repeat_interleave(shared, dim=1) for t in (k, v))  # (b, h, n, d)
        logits = self.qk_scale * q @ k.mT  # (b, h, query, key)
        if self.causal:
            later = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
            logits = logits.masked_fill(later, -torch.inf)
        mixed = logits.softmax(dim=-1) @ v
        return self.to_out(rearrange(mixed, "b h n d -> b n (h d)"))


# %% [markdown]
# Growing activations reach the output through the values only, so it grows by the same factor
# and no more.

# %%
heads, x = NormedAttention(dim=32, d=8, heads=4), torch.randn(1, 10, 32)
torch.allclose(heads(1000 * x), 1000 * heads(x), rtol=1e-3, atol=1e-3)

# %% [markdown]
# ## Watch it
#
# The view below computes in your browser, without Python.
# It has two heads of 16 queries and 16 keys, and opens with the normalisation on.
# Move the activations: nothing stirs.
# Switch the normalisation off and move them again: the logits leave the picture, and the entropy
# falls along the curve.
# Then switch it on and pull `qk_scale` down to 1.

# %%
more = torch.randn(2, 2, 16, d)  # (queries and keys, heads, positions, d)
qknorm_view(more[0], more[1])

# %% [markdown]
# Here Python draws one head at any growth.
# The bars are the logits without the normalisation, the line those with it.
# (In a page without a running Python you see one picture only.)


# %%
def draw_growth(c):
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
    without, with_norm = c**2 * scores, 8 * unit(c * queries) @ unit(c * keys).T
    bars = {"bins": 48, "range": (-12, 12)}
    left.hist(without.flatten().clamp(-12, 12), **bars, color=style.KEY, label="without")
    line = {"histtype": "step", "lw": 2, "color": style.QUERY}
    left.hist(with_norm.flatten(), **bars, **line, label="with")
    left.set(title=f"logits at c = {c:.2g}", xlabel="logit; what is beyond ±12 in the last bars")
    left.legend()
    even = [entropy(with_norm.softmax(dim=-1)).mean()] * len(factors)
    right.semilogx(factors, collapse, "--", color=style.KEY)
    right.semilogx(factors, even, color=style.QUERY)
    right.plot(c, entropy(without.softmax(dim=-1)).mean(), "o", color=style.KEY)
    right.plot(c, even[0], "o", color=style.QUERY)
    right.set(title="entropy, bits", xlabel="c, the growth of the activations", ylim=(-0.1, 4.2))
    style.show(
        figure,
        alt=f"At c = {c:.2g}: the logits with and without normalisation, and where they stand "
        "on the two curves of entropy, one flat, one falling.",
    )


# %%
slider = FloatLogSlider(3, min=-1, max=2, step=0.1, continuous_update=False)
_ = interact(draw_growth, c=slider)

# %% [markdown]
# ## Does it help training?
#
# Now a small model learns to look things up.
# There are 8 names and 8 kinds of cargo.
# Each of 8 tokens carries a name of its own, a name that it *wants*, and a cargo.
# The task: tell the cargo of the token whose name you want.
# Attention solves it when the query of a wanted name finds the key of the same name.
#
# A token's vector is the sum of three random ones, for its name, its wish and its cargo, and its
# entries have a spread of about 1.

# %%
table = torch.randn(3, 8, 64) / math.sqrt(3)  # (name or wish or cargo, which, feature)


def texts(count):
    """Token vectors (count, 8, 64) and the right answers (count, 8)."""
    names = torch.rand(count, 8).argsort(dim=-1)  # each name once
    wishes, cargo = torch.randint(8, (2, count, 8))
    x = table[0][names] + table[1][wishes] + table[2][cargo]
    places = names.argsort(dim=-1)  # (count, 8): which token carries name 0, name 1, ...
    return x, cargo.gather(1, places.gather(1, wishes))


# %% [markdown]
# The model is one head and a table that turns its output into 8 logits for the answer.
# For each number in `growths`, three copies with different random starts train side by side; the
# number multiplies their matrices of queries and keys at the start.
# The losses of all are added, and no gradient crosses from one copy to another.


# %%
class Lookups(nn.Module):
    def __init__(self, normed, growths=(1,), factor=8.0, size=16):
        super().__init__()
        self.normed, self.factor = normed, factor if normed else 1 / math.sqrt(size)
        start = torch.randn(3, 3, 64, size) / math.sqrt(64)  # (q k v, copy, feature, size)
        grown = [start * torch.tensor([g, g, 1.0])[:, None, None, None] for g in growths]
        self.to_qkv = nn.Parameter(torch.cat(grown, dim=1))
        to_answer = torch.randn(3, size, 8) / math.sqrt(size)
        self.to_answer = nn.Parameter(to_answer.repeat(len(growths), 1, 1))
        self.scales = nn.Parameter(torch.ones(2, 3 * len(growths), 1, 1, size))

    def forward(self, x):
        q, k, v = einsum(x, self.to_qkv, "b n f, qkv c f size -> qkv c b n size")
        if self.normed:
            q, k = normalise(q, self.scales[0]), normalise(k, self.scales[1])
        self.logits = self.factor * q @ k.mT  # (copy, b, query, key)
        return einsum(self.logits.softmax(dim=-1) @ v, self.to_answer, "c b n s, c s a -> c b n a")


# %%
def train(model, rate, optimiser=torch.optim.Adam, steps=100):
    """Train the copies; return their losses (steps, copy) and largest logits (copy,)."""
    torch.manual_seed(1)  # the same texts for all
    optimiser, losses = optimiser(model.parameters(), lr=rate), []
    for _ in range(steps):
        x, answers = texts(16)
        own = F.cross_entropy(
            rearrange(model(x), "c b n a -> b a c n"),
            answers[:, None].expand(-1, len(model.to_answer), -1),
            reduction="none",
        )
        losses.append(own.mean(dim=(0, 2)))  # (copy,)
        optimiser.zero_grad()
        losses[-1].sum().backward()
        optimiser.step()
    return torch.stack(losses).detach(), model.logits.detach().abs().amax(dim=(1, 2, 3))


# %% [markdown]
# The loss is the cross-entropy: minus the logarithm of the probability that the model gives to the
# right answer.
# Guessing costs ln 8 = 2.08.
# We call a copy taught when its loss over the last 20 steps is below 0.5.
# Both kinds train at four step sizes, with the optimiser Adam, which most models use: it moves
# each number by about the step size, however small its gradient.
# So the smaller gradients of longer vectors do not slow it; what counts here is the bound on the
# logits.
# Three copies have the ordinary start; three have the same start, but queries and keys grown by 8.

# %%
rates = (0.01, 0.03, 0.1, 0.3)
runs = {}
for normed in (False, True):
    for rate in rates:
        torch.manual_seed(0)
        runs[normed, rate] = train(Lookups(normed, growths=(1, 8)), rate)

# %%
ordinary, grown = slice(0, 3), slice(3, 6)  # the copies
print("step size        ", " ".join(f"{rate:12}" for rate in rates[:3]))
for growth, copies in ((1, ordinary), (8, grown)):
    for normed in (False, True):
        ends = [runs[normed, rate][0][-20:, copies].mean(dim=0) for rate in rates[:3]]  # (3,) each
        row = " ".join(f"{'all taught' if (end < 0.5).all() else 'not all':>12}" for end in ends)
        print(f"growth {growth}, {'with   ' if normed else 'without'}", row)

# %% [markdown]
# The picture has each copy by itself, and the largest step size as well.


# %%
def draw_runs(axes, copies, title):
    for normed, marker, colour in ((False, "x", style.KEY), (True, "o", style.QUERY)):
        for rate in rates:
            ends = runs[normed, rate][0][-20:, copies].mean(dim=0)  # (3,)
            apart = 1.06 if normed else 1 / 1.06
            axes.plot([rate * apart] * 3, ends, marker, color=colour, mfc="none")
        axes.plot([], [], marker, color=colour, mfc="none", label="with" if normed else "without")
    axes.axhline(math.log(8), color=style.MASK, ls=":", label="guessing")
    axes.set(title=title, xlabel="step size", xscale="log", ylim=(-0.1, 3))
    axes.set_xticks(rates, rates)
    axes.minorticks_off()


figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2), sharey=True)
draw_runs(left, ordinary, "ordinary start")
draw_runs(right, grown, "grown by 8")
left.set_ylabel("loss at the end")
left.legend(loc="center left")
style.show(
    figure,
    alt="Loss at the end against step size, three copies each. At an ordinary start both kinds end "
    "near 0 at 0.01 and 0.03, and only the normalised ones at 0.1. Grown by 8, those without "
    "stay well above 1 everywhere, and the normalised ones end near 0 up to 0.1. At 0.3 the "
    "normalised ones are scattered. A dotted line marks guessing.",
)

# %% [markdown]
# At an ordinary start and modest step sizes both kinds learn: qk norm is not needed.
# At 0.1 only the normalised copies do.
# When queries and keys have grown by 8, the others are not taught in these 100 steps at any step
# size; the normalised ones are, up to 0.1.
# At 0.3 not all of the normalised copies are taught either.
#
# Never, or only late? Here are grown copies without the normalisation, ten times as long, at the
# smallest step size.

# %%
torch.manual_seed(0)
longer, _ = train(Lookups(False, growths=(8,)), 0.01, steps=1000)
print("taught after 1,000 steps:", bool((longer[-20:].mean(dim=0) < 0.5).all()))

# %% [markdown]
# Late, then, if the steps are small.
# What holds them up shows in the logits. Here are the largest at step size 0.1, where without the
# normalisation neither start was taught in every copy.

# %%
for name, copies in (("ordinary", ordinary), ("grown   ", grown)):
    without, with_norm = (runs[normed, 0.1][1][copies].max().item() for normed in (False, True))
    print(
        name, f"largest logit without above 500: {without > 500}, with below 60: {with_norm < 60}"
    )

# %% [markdown]
# Without the normalisation the logits end far out, where softmax has almost no slope.
# With it they stay far smaller: beyond 8 they can go only as far as the learned scales grow.
#
# It does not mend everything.
# With plain gradient descent instead of Adam all copies of both kinds are taught at step size 1,
# and at 3 of neither kind all.

# %%
for normed in (False, True):
    for rate in (1.0, 3.0):
        torch.manual_seed(0)
        losses, _ = train(Lookups(normed), rate, torch.optim.SGD, steps=60)
        print(
            "with   " if normed else "without",
            f"step size {rate}: all taught:",
            bool((losses[-20:].mean(0) < 0.5).all()),
        )

# %% [markdown]
# ## The proof
#
# Nothing so far has called the package's normalisation, or its block.
# A `TransformerBlock` does more than attention: it has a LayerNorm in front and a feed-forward
# half beside, which lesson 07 builds.
# Both are switched off here, so that the attention is left.
# It makes queries, keys and values in one projection; its rows are copied one after another.


# %%
def copy_of(block, dim):
    """Our heads, with the settings and weights of a block."""
    sizes = block.dim_head, block.heads, block.kv_heads
    ours = NormedAttention(dim, *sizes, causal=block.causal, qk_scale=block.qk_scale)
    q, k, v, _ = block.fused_attn_ff_proj.weight.split(block.fused_dims)
    for layer, weight in ((ours.to_q, q), (ours.to_k, k), (ours.to_v, v)):
        layer.weight = nn.Parameter(weight.detach().clone())
    ours.to_out.weight = nn.Parameter(block.attn_out.weight.detach().clone())
    ours.q_scale, ours.k_scale = (
        nn.Parameter(s.detach().clone()) for s in (block.q_scale, block.k_scale)
    )
    return ours


def with_gradients(output, inputs):
    """An output and its gradients; the sine gives each entry a gradient of its own."""
    return [output, *torch.autograd.grad(output.sin().sum(), inputs)]


# %% [markdown]
# Compared are outputs and gradients: of the function, for vectors of several shapes; and of the
# heads, for the input and all weights.
# In float16, zeros included, only the function's outputs are compared.
# The block's one matrix has one gradient, whose rows for queries, keys and values are ours.

# %% tags=["proof"]
from zeta_edu import TransformerBlock
from zeta_edu.norm import l2_normalise

pairs = []
for shape in ((1,), (5, 3), (2, 4, 7, 64)):
    inputs = [torch.randn(s, dtype=torch.double, requires_grad=True) for s in (shape, shape[-1:])]
    both = (with_gradients(f(*inputs), inputs) for f in (normalise, l2_normalise))
    pairs += zip(*both, strict=True)
for entry in (0.0, 300.0, 1e-5):
    x, scale = torch.full((1, 64), entry).half(), torch.rand(64)
    torch.testing.assert_close(normalise(x, scale), l2_normalise(x, scale), rtol=0, atol=0)

for heads, kv_heads, causal, factor in ((1, 1, True, 8), (4, 2, False, 3), (6, 1, True, 10)):
    options = dict(qk_rmsnorm=True, qk_scale=factor, use_xpos=False, kv_heads=kv_heads)
    block = TransformerBlock(24, 8, causal, heads, **options).double()
    block.norm, block.ff_out[-1].weight.data[:] = nn.Identity(), 0  # what lesson 07 builds
    block.q_scale.data.uniform_(0.5, 2)
    block.k_scale.data.uniform_(0.5, 2)
    ours, x = copy_of(block, 24), torch.randn(2, 9, 24, dtype=torch.double, requires_grad=True)
    inputs = [x, ours.q_scale, ours.k_scale, ours.to_out.weight]
    inputs += [ours.to_q.weight, ours.to_k.weight, ours.to_v.weight]
    theirs = [x, block.q_scale, block.k_scale, block.attn_out.weight]
    second = with_gradients(block(x), [*theirs, block.fused_attn_ff_proj.weight])
    second[-1:] = second[-1].split(block.fused_dims)[:3]  # the rows of queries, keys and values
    pairs += zip(with_gradients(ours(x), inputs), second, strict=True)
for mine, package in pairs:
    torch.testing.assert_close(mine, package, rtol=1e-10, atol=1e-11)
print("largest error below 1e-11:", max((a - b).abs().max() for a, b in pairs).item() < 1e-11)

# %% [markdown]
# The normalisation that you built is the package's, and so are the heads around it.

# %% [markdown]
# ## What goes wrong: the factor is forgotten
#
# Normalise, and leave out `qk_scale`.
# Nothing fails, and the weights still sum to 1.
# But no key can get more than the curves of [A factor, or all is even](#A-factor,-or-all-is-even)
# allow at s = 1, however well it fits.
# Here is a query that *equals* its key, among 16 and among 1024 keys.
# The third factor is what is left when one goes on dividing by √d: for d = 64 it is 1/8.

# %%
for n in (16, 1024):
    others = torch.randn(n, d)
    cosines = unit(others[:1]) @ unit(others).T  # (1, n): the query is the first key
    found = [(s * cosines).softmax(dim=-1)[0, 0].item() for s in (8, 1, 1 / 8)]
    print(
        f"{n:4} keys: weight {found[0]:.3f} with 8, {found[1]:.3f} with 1, {found[2]:.3f} with 1/8;"
        f" an even share is {1 / n:.3f}"
    )

# %%
figure, panels = plt.subplots(1, 3, figsize=(7.4, 2.6), sharey=True)
cosines = unit(keys[3]) @ unit(keys).T  # (16,): the query equals key 3
for panel, s, name in zip(panels, (8, 1, 1 / 8), ("8", "1", "1/8"), strict=True):
    panel.bar(range(16), (s * cosines).softmax(dim=-1), color=style.KEY)
    panel.set(title=f"factor {name}", xlabel="key", ylim=(0, 1))
panels[0].set_ylabel("weight")
style.show(
    figure,
    alt="Weights of a query that equals key 3 on 16 keys. With factor 8 key 3 has almost all; "
    "with 1 it has about three times as much as each of the others; with 1/8 all look alike.",
)

# %% [markdown]
# The symptom is attention that is almost even, in every head, from the first step on.
# The block from which this one descends, in the package PaLM-rlhf-pytorch, had it: its constructor
# stores the factor, its attention divides by √d and never reads it (version 0.8.0).
#
# Does training find a way out?
# The learned scales could grow until they are the factor.
# Our small model has d = 16, so the forgotten factor leaves 1/4.
# Compare it with the copies from above that had the same start and the step size 0.01.

# %%
torch.manual_seed(0)
forgotten = Lookups(True, factor=1 / math.sqrt(16))
with_factor, without_factor = runs[True, 0.01][0][:, ordinary], train(forgotten, 0.01)[0]
late = [int((losses.mean(1) < 0.5).nonzero()[0]) for losses in (with_factor, without_factor)]
grew = (forgotten.scales[0] * forgotten.scales[1]).abs().mean()
print("at least twice as many steps to a loss of 0.5:", late[1] > 2 * late[0])
print("products of the scales more than 3 times what they were:", bool(grew > 3))

# %%
figure, axes = plt.subplots(figsize=(7, 2.8))
axes.plot(with_factor, color=style.QUERY, label=["with the factor", "", ""])
axes.plot(without_factor, "--", color=style.KEY, label=["without", "", ""])
axes.axhline(math.log(8), color=style.MASK, ls=":", label="guessing")
axes.set(xlabel="step", ylabel="loss", ylim=(0, 3))
axes.legend()
style.show(
    figure,
    alt="Loss against step. With the factor all three copies are near zero after 40 steps; without "
    "it they come down slowly from the dotted line of guessing, and are not at zero by step 100.",
)

# %% [markdown]
# Here it does: the scales grow, slowly, and the loss comes down after all.
# So the mistake shows as a model that learns late, and that is easily overlooked.
# By the curves above, with 1024 keys instead of 8 the scales would have further to go.

# %% [markdown]
# ## What goes wrong: after the rotation instead of before
#
# Rotation keeps lengths, so one might as well normalise after it.
# While the scales are 1 that is true.


# %%
def before(x, scale, positions):
    return rotate(normalise(x, scale), positions)


def after(x, scale, positions):
    return normalise(rotate(x, positions), scale)


positions, some = torch.arange(16), queries
torch.allclose(
    before(some, torch.ones(d), positions), after(some, torch.ones(d), positions), atol=1e-6
)

# %% [markdown]
# With learned scales it is not.
# The scale stretches feature $i$ and feature $i + d/2$ of a pair by different factors, and
# stretching after turning is not turning after stretching.
# What is lost is the property that lesson 04 is about.
# Write $R_m$ for the rotation at position $m$, and $A$, $B$ for the two scalings.
# In the right order
#
# $$(R_m A u) \cdot (R_n B v) = (A u) \cdot (R_{n - m} B v)$$
#
# depends on $n - m$ only. In the wrong order the scalings stand between the rotations,
# $(A R_m u) \cdot (B R_n v)$, and nothing cancels.
#
# Take one query and one key, 5 positions apart, and move both along together.

# %%
shifts = torch.arange(0, 60)
curves = {}
for order in (before, after):
    moved_query = order(queries[:1].expand(60, -1), q_scale, shifts + 5)
    moved_key = order(keys[:1].expand(60, -1), k_scale, shifts)
    curves[order] = 8 * (moved_query * moved_key).sum(dim=-1)  # (60,)
for name, order in (("before", before), ("after ", after)):
    moves = curves[order].max() - curves[order].min()
    print(
        f"normalised {name} the rotation: the logit moves by less than 0.001: {bool(moves < 1e-3)}"
    )

# %%
figure, axes = plt.subplots(figsize=(7, 2.8))
axes.plot(shifts, curves[before], color=style.QUERY, label="before the rotation")
axes.plot(shifts, curves[after], "--", color=style.KEY, label="after")
axes.set(xlabel="position of the key; the query is 5 further on", ylabel="logit")
axes.legend()
style.show(
    figure,
    alt="The logit of one query and one key, 5 positions apart, as both move along. Normalised "
    "before the rotation it is a level line; normalised after it wanders up and down.",
)

# %% [markdown]
# Nothing shows at the start of training, when all scales are 1; it comes as they drift apart.
# The bound holds in either order.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell: `check` says what is right, or what went wrong.
# Below each is its hint; run that cell again for the next one.

# %% [markdown]
# ### 1. Length one
#
# Difficulty ★☆☆, 5 minutes.
# Bring the vectors x (..., d) to length 1 along the last axis, then multiply each feature by its
# number in scale (d,).
# Divide by at least 1e-12, so that zeros stay zeros.
# Write it without looking back; the dtype is float32.


# %% tags=["exercise"]
def to_length_one(x, scale):
    return ...


check("qk_norm.normalise", to_length_one)

# %%
hint("qk_norm.normalise")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
# def to_length_one(x, scale):
#     length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
#     return x / length.clamp(min=1e-12) * scale
# ```
#
# </details>

# %% [markdown]
# ### 2. A factor that allows it
#
# Difficulty ★★☆, 10 minutes.
# How large must the factor $s$ be, so that one key among `count` *can* get the weight `share`?
# Start from the largest possible weight, $1 / (1 + (n - 1) \, e^{-2s})$ with $n$ = `count`,
# and solve for $s$.
# Both arguments are tensors of numbers, and so is the answer.


# %% tags=["exercise"]
def factor_needed(count, share):
    return ...


check("qk_norm.scale", factor_needed)

# %%
hint("qk_norm.scale")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# With $p$ = `share`, from $1 + (n - 1) \, e^{-2s} = 1 / p$ follows
# $e^{2s} = (n - 1) \, p / (1 - p)$.
#
# ```python
# def factor_needed(count, share):
#     return ((count - 1) * share / (1 - share)).log() / 2
# ```
#
# For 0.99 among 65536 keys that is 7.8: the 8 of the block allows it, without any learned
# scale.
#
# </details>

# %% [markdown]
# ### 3. A whole head
#
# Difficulty ★★☆, 10 minutes.
# Attention with qk norm, for queries (..., query, d), keys (..., key, d), values (..., key, v), the
# learned scales q_scale (d,) and k_scale (d,), and the number qk_scale.
# There is no rotation and no mask. You may call `normalise` of the lesson, or write your own.


# %% tags=["exercise"]
def normed_head(queries, keys, values, q_scale, k_scale, qk_scale):
    return ...


check("qk_norm.head", normed_head)

# %%
hint("qk_norm.head")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch.nn.functional as F
#
# def normed_head(queries, keys, values, q_scale, k_scale, qk_scale):
#     queries = F.normalize(queries, dim=-1) * q_scale  # or normalise(queries, q_scale)
#     keys = F.normalize(keys, dim=-1) * k_scale
#     logits = qk_scale * queries @ keys.transpose(-1, -2)
#     return logits.softmax(dim=-1) @ values
# ```
#
# </details>

# %% [markdown]
# ### 4. The gradient, without autograd
#
# Difficulty ★★★, 15 minutes.
# A loss has the gradient `gradient` (..., d) with respect to the unit vectors u = x / r.
# Return its gradient with respect to x (..., d), by the formula of
# [What the gradient does](#What-the-gradient-does). No vector is zero.


# %% tags=["exercise"]
def back_through_length(x, gradient):
    return ...


check("qk_norm.gradient", back_through_length)

# %%
hint("qk_norm.gradient")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def back_through_length(x, gradient):
#     length = x.norm(dim=-1, keepdim=True)
#     unit = x / length
#     along = (gradient * unit).sum(dim=-1, keepdim=True) * unit
#     return (gradient - along) / length
# ```
#
# </details>

# %% [markdown]
# ## What you have now
#
# Logits grow with the square of the activations, and large logits leave softmax without a slope.
# Queries and keys of length 1 have dot products between −1 and 1; learned scales and the factor
# `qk_scale` set how far the logits may go, whatever the activations do.
# The gradient through the normalisation is orthogonal to the vector.
# The length is taken in float32, zero stays zero, and the normalisation comes before the rotation.
#
# **References.**
# Queries and keys of length 1, with one learned factor in place of 1/√d: Henry et al. 2020,
# [arXiv:2010.04245](https://arxiv.org/abs/2010.04245).
# Logits that grow until attention falls onto one key, and normalised queries and keys as the cure,
# by LayerNorm (lesson 07) instead of the length: Dehghani et al. 2023, "Scaling Vision Transformers
# to 22 Billion Parameters", [arXiv:2302.05442](https://arxiv.org/abs/2302.05442), section 2.
# The same in small models at large step sizes: Wortsman et al. 2023,
# [arXiv:2309.14322](https://arxiv.org/abs/2309.14322).
# Entropy collapse: Zhai et al. 2023, [arXiv:2303.06296](https://arxiv.org/abs/2303.06296).
#
# **Next.** Half of the block is still missing: what a token does with what it was handed.
# [Lesson 07](07-feed-forward.ipynb) builds the feed-forward half, and runs it beside the attention.
# All lessons are on the map of [lesson 00](00-start-here.ipynb).
