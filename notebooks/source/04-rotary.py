# %% [markdown]
# # 04 · Rotary: a place for every token
#
# A score is the product of a query and a key, and each of the two is made from one token alone.
# So a token scores the same wherever it stands: `7 - 3` and `3 - 7` are one bag of tokens.
# **How can a score know how far apart two tokens are, when neither knows where the other is?**
#
# In this lesson you turn queries and keys, each by its own position, so that their product knows
# the distance.
# You start with two numbers and quarter turns, and end with tables that serve a whole model.
# At the end you prove that this is the rotation of `zeta_edu`.
#
# It takes about 45 minutes to read and 20 seconds to run.
# You need lesson 01, attention, the causal mask of lesson 03, and the sine and cosine of school.

# %%
import math

import matplotlib.pyplot as plt
import torch
from einops import rearrange
from ipywidgets import FloatLogSlider, interact

from zeta_edu.exercises import check, hint
from zeta_edu.lessonmap import show_block_map
from zeta_edu.views import attention_view, rotary_view, style

torch.manual_seed(0)
style.use()
show_block_map(lit=("rotary",))

# %% [markdown]
# On the map, queries and keys pass through *rotary* on their way to the attention.
# The values do not: place decides who is looked at, not what is handed over.

# %% [markdown]
# ## A first try
#
# The plainest idea is to write the position into the vector, as one more entry.
# Let a query at position *m* be (1, *m*), and a key at position *n* be (1, *n*).

# %%
for m, n in ((2, 1), (102, 101)):
    query, key = torch.tensor([1.0, m]), torch.tensor([1.0, n])
    print(f"query at {m:3}, key at {n:3}: score {query @ key:5.0f}")

# %% [markdown]
# By hand: 1·1 + 2·1 = 3, and 1·1 + 102·101 = 10303.
# In both lines the key stands just before the query, and yet the scores have nothing in common.
# What a head learns about neighbours at the start of a text would be of no use further on.
#
# We want a score that stays when both move together: it should depend on *m* − *n* only.

# %% [markdown]
# ## Turn instead
#
# Take a vector of two numbers, and see it as a hand on a clock's face.
# Instead of writing the position into it, *turn* it: by one angle at position 1, by twice that
# angle at position 2, and so on.
#
# What does turning do to (x, y)?
# Turned by an angle *a*, the arrow (1, 0) ends at (cos *a*, sin *a*), which is what cosine and
# sine mean.
# The arrow (0, 1) is a quarter turn ahead of it, and ends at (−sin *a*, cos *a*).
# Our vector is x times the first plus y times the second, and turns as they do:
#
# $$(x, y) \;\to\; (x \cos a - y \sin a, \;\; x \sin a + y \cos a).$$
#
# Angles are in radians: a whole turn is 2π = 6.28, a quarter turn π/2 = 1.57.


# %%
def turn(x, y, angle):
    """The pair (x, y), turned by an angle in radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return x * cos - y * sin, x * sin + y * cos


# %% [markdown]
# Quarter turns are easy to check by hand: (1, 0) goes to (0, 1), then to (−1, 0), then to (0, −1),
# and home.

# %%
quarter = math.pi / 2
for position in range(5):
    x, y = turn(1.0, 0.0, position * quarter)
    print(f"position {position}: ({round(x):2}, {round(y):2})")

# %% [markdown]
# Now turn a query by its position and a key by its own, and multiply.
# *Theta*, θ, is the angle for one position.


# %%
def score(query, key, m, n, theta):
    """The product of a query turned to position m and a key turned to position n."""
    x, y = turn(*query, m * theta)
    u, v = turn(*key, n * theta)
    return x * u + y * v


# %% [markdown]
# Let both be (1, 0), and look at all positions up to 4.
# Rows are positions of the query, columns positions of the key.

# %%
hand = (1.0, 0.0)
table = [[score(hand, hand, m, n, quarter) for n in range(5)] for m in range(5)]
torch.tensor(table).round().int()

# %% [markdown]
# By hand, for *m* = 2 and *n* = 1: (−1, 0) times (0, 1) is 0. For 3 and 2: (0, −1) times (−1, 0)
# is 0 too.
# Along each diagonal *m* − *n* is the same, and so is the score.
# This is what we wanted.
#
# Here it is once more with other vectors and a smaller angle, θ = 0.4.
# In the second picture both have moved on by five positions.


# %%
def draw_hands(axes, query, key, m, n, theta):
    for name, pair, at, colour in (("q", query, m, style.QUERY), ("k", key, n, style.KEY)):
        x, y = turn(*pair, at * theta)
        axes.annotate(
            "", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2}
        )
        axes.text(1.34 * x, 1.34 * y, f"{name} at {at}", color=colour, ha="center", va="center")
    axes.add_patch(plt.Circle((0, 0), 1.0, fill=False, color=style.MASK))
    axes.set(xlim=(-1.6, 1.6), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(f"q·k = {score(query, key, m, n, theta):.4f}")


# %%
query, key = (0.8, 0.6), (1.0, 0.0)
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2))
draw_hands(left, query, key, m=3, n=1, theta=0.4)
draw_hands(right, query, key, m=8, n=6, theta=0.4)
style.show(
    figure,
    alt="Two clock faces, each with a hand for a query and one for a key. In the second both have "
    "turned on by the same angle; the angle between them and the product are the same.",
)

# %% [markdown]
# ## Why it works, on paper
#
# In words first.
# The product of two vectors is the product of their lengths and the cosine of the angle between
# them.
# Turning changes no length.
# (The calculation below shows that as well: take the vector itself for the key, at the same place.)
# If the query turns by *m*θ and the key by *n*θ, the angle between them grows by (*m* − *n*)θ,
# and by nothing else.
#
# Now the same by calculation.
# Let the query (x, y) turn by *a* and the key (u, v) by *b*. Their product is
#
# $$(x \cos a - y \sin a)(u \cos b - v \sin b) + (x \sin a + y \cos a)(u \sin b + v \cos b).$$
#
# Multiply out, and collect what stands with xu, with yv, with xv and with yu:
#
# $$(xu + yv)(\cos a \cos b + \sin a \sin b) + (xv - yu)(\sin a \cos b - \cos a \sin b).$$
#
# The brackets of cosines and sines are the addition formulas of school: the one beside xu + yv is
# cos(*a* − *b*), the one beside xv − yu is sin(*a* − *b*).
# With *a* = *m*θ and *b* = *n*θ,
#
# $$q_m \cdot k_n = (xu + yv) \cos\big((m - n)\theta\big) + (xv - yu) \sin\big((m - n)\theta\big).$$
#
# The positions have gone; only their difference is left.
# A check, with numbers drawn at random:

# %%
for m, n in ((3, 7), (60, 2), (1000, 999)):
    x, y, u, v = torch.randn(4).tolist()
    formula = (x * u + y * v) * math.cos((m - n) * 0.4) + (x * v - y * u) * math.sin((m - n) * 0.4)
    print(math.isclose(formula, score((x, y), (u, v), m, n, theta=0.4), abs_tol=1e-9))

# %% [markdown]
# The second term is why a score can tell before from after: it changes its sign when *m* − *n*
# does.
# When query and key point the same way, xv = yu, and it vanishes.

# %% [markdown]
# ## One clock is not enough
#
# With quarter turns, a key four positions away looks like one at no distance: the hand has gone
# round once.
# A slower hand comes round later, but tells near positions apart less well.
# Here is the score of (1, 0) with itself, at three speeds.

# %%
distances = torch.arange(0, 120.0)
figure, axes = plt.subplots(figsize=(7, 2.8))
for theta, line in ((1.0, ":"), (0.1, "--"), (0.01, "-")):
    axes.plot(distances, (distances * theta).cos(), line, color=style.QUERY, label=f"θ = {theta}")
axes.set(xlabel="m − n, positions", ylabel="score", ylim=(-1.15, 1.15))
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
style.show(
    figure,
    alt="The score of (1, 0) with itself against the distance. At θ = 1 it swings up and down "
    "every 6 positions, at 0.1 every 63, at 0.01 it falls slowly.",
)

# %% [markdown]
# A clock on the wall has the same problem and solves it with three hands: one tells the seconds
# but not the hour, one tells the hour but not the seconds.
#
# A query has *d* features, so there is room for d/2 pairs, and each gets a speed of its own.
# Pair *i*, counted from 0, turns by
#
# $$\theta_i = 10000^{-2i/d}$$
#
# radians for each position. This is called its *frequency*; the 10000 is the *base*.
# By hand for d = 8: 10000 is 10⁴, so pair *i* has 10 to the power −4 · 2i/8 = −i.
# That is 1, 0.1, 0.01 and 0.001.


# %%
def frequencies(d):
    """Radians per position of each of d/2 pairs."""
    return 10_000.0 ** (-torch.arange(0, d, 2, dtype=torch.double) / d)  # (d/2,)


frequencies(8).tolist()

# %% [markdown]
# They are in double precision; soon you will see why positions need digits.
# An angle is a position times a frequency.


# %%
def angles(positions, d):
    """The angle of every pair at every position: (..., n) to (..., n, d/2)."""
    return positions[..., None] * frequencies(d)


angles(torch.arange(3), d=8)

# %% [markdown]
# As a picture, for d = 64: a row for each pair, a column for each position.
# The colour is the cosine of the angle: green where the hand points as at position 0, brown where
# it points the other way.

# %%
figure, axes = plt.subplots(figsize=(7.4, 3))
cosines = angles(torch.arange(256), d=64).cos().T  # (pair, position)
image = axes.imshow(cosines, cmap=style.MAP_SIGNED, aspect="auto", vmin=-1, vmax=1)
axes.set(xlabel="position", ylabel="pair")
figure.colorbar(image, label="cosine of the angle", ticks=(-1, 0, 1))
style.show(
    figure,
    alt="Map of 32 pairs by 256 positions. The first rows flicker from position to position, the "
    "stripes grow wider downwards, and the last rows hardly change at all.",
)

# %% [markdown]
# The first pairs are second hands. The last ones take tens of thousands of positions to go round.

# %%
rounds = 2 * math.pi / frequencies(64)  # positions for one whole turn, (32,)
print("pair  0:", round(rounds[0].item(), 2), "positions for one turn")
print("pair 31:", round(rounds[-1].item()), "positions for one turn")

# %% [markdown]
# ## All pairs at once
#
# Which two features make a pair?
# We take feature *i* and feature *i* + d/2: the first half of the vector holds the first member of
# every pair, the second half the second.
# This is called *half-split*.
# First as a loop, for one vector.


# %%
def rotate_loop(x, position):
    """Turn every pair of one vector x (d,) to its position."""
    half, turned = len(x) // 2, x.clone()
    for i, theta in enumerate(frequencies(len(x))):
        turned[i], turned[i + half] = turn(x[i], x[i + half], position * theta)
    return turned


rotate_loop(torch.tensor([1.0, 1.0, 0.0, 0.0]), position=1)

# %% [markdown]
# By hand, for d = 4: the pairs are features 0 and 2, and features 1 and 3, and both are (1, 0).
# The first turns by 1 radian, to (cos 1, sin 1) = (0.54, 0.84); the second by 0.01, to
# (1.00, 0.01).
#
# The whole at once is the same formula with halves in place of numbers.
# `rearrange` cuts the last axis in two, and puts it together again.
# The last step gives the result the precision of `x`, whatever that of the cosines.


# %%
def rotate(x, cos, sin):
    """Turn every pair of x (..., n, d); cos and sin are (n, d/2) or (..., n, d/2)."""
    first, second = rearrange(x, "... (two half) -> two ... half", two=2)  # (..., n, d/2) each
    turned = [first * cos - second * sin, first * sin + second * cos]
    return rearrange(turned, "two ... half -> ... (two half)").to(x.dtype)  # (..., n, d)


# %% [markdown]
# It does what the loop does, for every position.

# %%
x = torch.randn(10, 64, dtype=torch.double)  # one vector for each of 10 positions
a = angles(torch.arange(10), d=64)
looped = torch.stack([rotate_loop(row, position) for position, row in enumerate(x)])
print(torch.allclose(rotate(x, a.cos(), a.sin()), looped))

# %% [markdown]
# A last function gives queries and keys their places, each their own.


# %%
def place(queries, keys, query_positions, key_positions):
    """Turn queries and keys (..., n, d) to their positions (..., n)."""
    both = ((queries, query_positions), (keys, key_positions))
    turns = [(x, angles(positions, x.shape[-1])) for x, positions in both]
    return [rotate(x, a.cos(), a.sin()) for x, a in turns]


# %% [markdown]
# The product of two vectors is the sum over their pairs.
# Each pair's share depends on *m* − *n* only, so the sum does.
# Here are the scores of 12 random queries with 12 random keys, first at the positions 0 to 11, then
# at 5000 to 5011.

# %%
queries, keys = torch.randn(2, 12, 64, dtype=torch.double)


def scores_from(start):
    positions = torch.arange(start, start + 12)
    q, k = place(queries, keys, positions, positions)
    return q @ k.T  # (query, key)


print("same scores:", torch.allclose(scores_from(0), scores_from(5000), atol=1e-9))
print("same as without turning:", torch.allclose(scores_from(0), queries @ keys.T))

# %% [markdown]
# ## Move both
#
# The view below has a clock for each pair of 16 features: the blue hand is the query at *m*, the
# vermilion one the key at *n*.
# At position 0 all hands have length 1 and point up; they turn clockwise, unlike the two drawn
# above.
# The last number under a clock is the pair's share of the product, and colours the wedge between
# the hands: green above 0, brown below.
#
# Drag a hand, or the posts at *m* and *n* in the map of cosines: the product follows the curve on
# the right.
# Then tick *move both together*, and drag again.
# Every clock turns, but no angle between two hands changes, and the product stays where it is.

# %%
rotary_view(16)

# %% [markdown]
# The choice *interleaved* makes pairs of other features; leave it for the end of the lesson.

# %% [markdown]
# ## A head that looks back
#
# What can a head do with this?
# Let it look at the token before, whatever that is, as a head of the model in lesson 00 does.
#
# All tokens offer the same key.
# The query is that key, turned *back* by one position.
# When the query then stands one position after a key, turning makes up for it: in every pair both
# hands point the same way.
# At any other distance, some do not.

# %%
offered = torch.ones(1, 64, dtype=torch.double)
back = angles(torch.tensor([-1]), d=64)  # (1, 32)
asked = rotate(offered, back.cos(), back.sin())  # the key, one position back

# %% [markdown]
# The score against the distance, divided by the largest it can be.
# It is drawn for all 32 pairs, for the eight fastest alone and for the eight slowest alone.
# A pair whose features are 0 has no share in a product, so the pairs left out are multiplied by 0.
# The grey line marks distance 1.


# %%
def score_curve(distances, pairs):
    """The score of `asked` and `offered` at every distance, through some of the pairs."""
    chosen = torch.zeros(32)
    chosen[pairs] = 1
    a = angles(distances, d=64)  # (distance, 32)
    turned = rotate(asked, a.cos(), a.sin()) * chosen.repeat(2)  # (distance, 64)
    return turned @ offered[0] / (2 * chosen.sum())


# %%
distances = torch.arange(-6, 41)
figure, axes = plt.subplots(figsize=(7, 3))
groups = (("all", slice(32), "-"), ("8 fastest", slice(8), "--"), ("8 slowest", slice(24, 32), ":"))
for name, pairs, line in groups:
    axes.plot(distances, score_curve(distances, pairs), line, color=style.QUERY, label=name)
axes.axvline(1, color=style.MASK, lw=1)
axes.set(xlabel="m − n, positions", ylabel="score", ylim=(-0.6, 1.1))
axes.legend(title="pairs", loc="upper left", bbox_to_anchor=(1, 1))
style.show(
    figure,
    alt="Score against distance. With all pairs it has a peak at distance 1; with the eight "
    "fastest pairs the peak is sharp, with the eight slowest the line is flat at 1.",
)

# %% [markdown]
# The fast pairs pick out the token before. The slow ones cannot tell the token before from one
# forty positions away, and for that very reason they are of use for *what* a token is: their share
# is nearly that of two vectors that were never turned.
# In a trained model, Gemma 7B, heads that look back one token were found to use the fastest pairs,
# and the model as a whole to put its largest numbers into the slowest.
#
# Here is our head at work on a line of Python, with the causal mask of lesson 03.
# The factor 10 makes it decided.

# %%
line = "if x in range ( 3 ) : return x + y"
tokens = line.split()
positions = torch.arange(len(tokens))
q, k = place(asked, offered, positions, positions)  # (12, 64) each
later = positions > positions[:, None]  # (query, key)
weights = (10 * q @ k.T / math.sqrt(64)).masked_fill(later, -math.inf).softmax(dim=-1)
attention_view(weights[None], tokens, query=6)

# %% [markdown]
# No query knows where the keys stand, and no token had to say what it is.
# The first token has nothing before it, and looks at itself.

# %% [markdown]
# ## Positions need digits
#
# Models are often run in `bfloat16`, which takes two bytes for a number and keeps eight binary
# digits of it.
# The vectors of a model can live with that. A position cannot.

# %%
torch.tensor([255, 256, 257, 258, 259]).to(torch.bfloat16).tolist()

# %% [markdown]
# From 256 on, every second position does not exist; from 512 on, three of four do not.
# Even below 256 the frequency is rounded, and so is its product with the position.
# How far off are the angles?


# %%
def angle_errors(dtype, length=4096):
    """The largest error among the 32 angles of each position, in radians."""
    rounded = torch.arange(length).to(dtype)[:, None] * frequencies(64).to(dtype)
    return (rounded.double() - angles(torch.arange(length), d=64)).abs().amax(dim=-1)


# %%
for dtype in (torch.bfloat16, torch.float16, torch.float32):
    wrong = (angle_errors(dtype) > 0.1).nonzero()
    first = wrong[0].item() if len(wrong) else "none of 4096"
    print(f"{dtype}: first position with an angle off by more than 0.1: {first}")

# %%
figure, axes = plt.subplots(figsize=(7, 3))
kinds = ((torch.bfloat16, ":"), (torch.float16, "--"), (torch.float32, "-"))
for dtype, line in kinds:
    largest_so_far = angle_errors(dtype).cummax(dim=0).values
    axes.loglog(range(1, 4096), largest_so_far[1:], line, color=style.KEY, label=str(dtype)[6:])
axes.axhline(2 * math.pi, color=style.MASK, lw=1)
axes.text(1.1, 8, "a whole turn", color=style.MASK)
axes.set(xlabel="position", ylabel="error so far, radians", ylim=(1e-9, 100))
axes.legend(loc="lower right")
style.show(
    figure,
    alt="The largest error of an angle up to each position. In bfloat16 it passes 0.1 radians at "
    "position 58 and a whole turn before 4096; in float32 it stays below 0.001.",
)

# %% [markdown]
# In bfloat16 the angles of the fast pairs are noise in a long text.
# What becomes of a score? Take our head that looks back: its query at *m*, the key at *m* − 1.
# The score should be 1 everywhere.
# The vectors are in bfloat16 both times; only the angles, with cosine and sine, differ.


# %%
def neighbours(dtype, length=600):
    """The score of `asked` at m with `offered` at m - 1, with angles rounded to `dtype`."""
    a = torch.arange(length).to(dtype)[:, None] * frequencies(64).to(dtype)
    vectors = (asked.bfloat16(), offered.bfloat16())
    q, k = (rotate(x, a.cos(), a.sin()).double() for x in vectors)  # (length, 64) each
    return (q[1:] * k[:-1]).sum(dim=-1) / 64  # (length - 1,)


# %%
figure, axes = plt.subplots(figsize=(7, 2.8))
axes.plot(range(1, 600), neighbours(torch.bfloat16), color=style.KEY, lw=1, label="bfloat16")
axes.plot(range(1, 600), neighbours(torch.float32), color=style.QUERY, lw=1, label="float32")
axes.set(xlabel="m", ylabel="score with the key before", ylim=(0.6, 1.05))
axes.legend(loc="lower left")
style.show(
    figure,
    alt="The score of neighbours against their position: a line at 1 with angles in float32; in "
    "bfloat16 it frays, falls below 0.98 after position 256, and at times below 0.85 after 512.",
)

# %% [markdown]
# From 256 on, two neighbours are rounded to the distance 0 or 2; from 512 on, to 0 or 4.
# So angles are never computed in the precision of the model, and their cosines and sines are kept
# in `float32` at least. `rotate` multiplies by them in that precision, and rounds once, at the end.
# A cosine lies between −1 and 1, and float32 has it to seven decimals.
#
# The angles themselves are computed in double precision, because float32 runs out of digits too,
# only later.
# At position 100,000:

# %%
at, speeds = torch.tensor(100_000), frequencies(64)
error = (at.float() * speeds.float()).double() - at * speeds
print(f"float32 angles are off by up to {error.abs().max():.3f} rad")

# %% [markdown]
# ## Tables, made once
#
# Cosines and sines depend on the position, on *d*, and on nothing in the text.
# A model of thirty layers would compute the same ones thirty times for every token.
# So they are made once, kept, and cut to what is needed.
#
# A text grows, and one does not know how far. When a table is too short, a new one is made, and
# its length is a power of two, at least 128.
# The list `built` notes how often that happens.

# %%
kept, built = {}, []


def tables(start, stop, d, dtype=torch.float32):
    """Cosines and sines at the positions start to stop - 1, (stop - start, d/2) each."""
    dtype = torch.promote_types(dtype, torch.float32)  # the wider of the two
    if (d, dtype) not in kept or len(kept[d, dtype][0]) < stop:
        length = max(128, 2 ** math.ceil(math.log2(stop)))
        a = angles(torch.arange(length), d)
        kept[d, dtype] = a.cos().to(dtype), a.sin().to(dtype)
        built.append(length)
    return tuple(table[start:stop] for table in kept[d, dtype])


# %% [markdown]
# Write a text of 2000 tokens, one at a time.
# Each asks for the two rows of its own position.

# %%
for position in range(2000):
    cos, sin = tables(position, position + 1, d=64)
print("asked 2000 times, built:", built)

# %% [markdown]
# ## Choose the base yourself
#
# The base decides how slow the slow pairs are.
# On the left is how many positions each of 32 pairs takes for one turn. On the right is the score
# of `offered`, equal in all pairs, with itself at each distance, divided by its largest.
# Python computes both anew when you move the slider.
# (In a page without a running Python you see one base only.)


# %%
def draw_base(base):
    speeds = base ** (-torch.arange(0, 64, 2) / 64)
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3))
    left.semilogy(2 * math.pi / speeds, "o", color=style.QUERY, ms=4)
    left.set(title="positions for one turn", xlabel="pair", ylim=(1, 1e7))
    distances = torch.arange(0, 1024)
    right.plot((distances[:, None] * speeds).cos().mean(dim=-1), color=style.QUERY, lw=1)
    right.set(title=f"equal q and k, base {base:,.0f}", xlabel="m − n", ylim=(-0.4, 1.05))
    style.show(
        figure,
        alt=f"Base {base:,.0f}. Left: positions for one turn, from 6 for pair 0 to "
        f"{2 * math.pi / speeds[-1]:,.0f} for pair 31. Right: the score against the distance.",
    )


# %%
slider = FloatLogSlider(10_000, min=1, max=6, step=0.5, continuous_update=False)
_ = interact(draw_base, base=slider)

# %% [markdown]
# With a small base every pair turns fast, and distant keys score up and down around zero.
# With a large one, many pairs have hardly moved after a thousand positions, and the score keeps
# their share.
# Llama 3 has a base of 500,000, for the sake of long texts.
#
# Do not read the curve as "rotation makes far keys count less".
# It is the curve of one query and one key that point the same way in all pairs.
# Turn that query back by 500 positions, and the peak is at distance 500.
# Lesson 05 looks into that.

# %% [markdown]
# ## The proof
#
# Nothing so far has called the rotation of `zeta_edu`.
# Compare three things: the tables, at several places and in every precision; `rotate`, given
# those; and its function that takes queries and keys with any positions, even between two tokens.
# (With `use_xpos=False` it only turns; the other half of it is lesson 05.)
# For the last two, outputs and gradients, in double precision.


# %% tags=["proof"]
from zeta_edu import rotary

largest, cpu = 0.0, torch.device("cpu")
dtypes = (torch.bfloat16, torch.float16, torch.float32, torch.double)
for d, start, stop in ((2, 0, 3), (64, 5, 9), (64, 700, 707), (64, 90, 95), (8, 40_000, 40_003)):
    n = stop - start
    for dtype in dtypes:
        ours = tables(start, stop, d, dtype)
        theirs = rotary.rotary_tables(start, stop, d, cpu, dtype)
        rounding = 4 * torch.finfo(ours[0].dtype).eps
        torch.testing.assert_close(ours, theirs, rtol=0, atol=rounding)  # and of the same dtype
        x = torch.randn(2, n, d).to(dtype)
        torch.testing.assert_close(rotate(x, *ours), rotary.rotate(x, *theirs))
    # Positions of their own for queries and keys of 3 heads; ours and theirs are in double now.
    places = 50_000 * torch.rand(2, 3, n, dtype=torch.double)
    inputs = [torch.randn(3, n, d, dtype=torch.double, requires_grad=True) for _ in range(2)]
    placed = rotary.rotate_queries_keys(*inputs, *places, use_xpos=False)
    outputs = [[rotate(inputs[0], *ours), *place(*inputs, *places)]]
    outputs += [[rotary.rotate(inputs[0], *theirs), *placed]]
    results = [
        [*some, *torch.autograd.grad(sum(output.sin().sum() for output in some), inputs)]
        for some in outputs
    ]
    for mine, package in zip(*results, strict=True):
        torch.testing.assert_close(mine, package, rtol=0, atol=1e-9)
        largest = max(largest, (mine - package).abs().max().item())
print("largest error below 1e-9:", largest < 1e-9)

# %% [markdown]
# What you built is what the package computes.
# It keeps its tables in the same way, one for each *d*, device and precision.

# %% [markdown]
# ## What goes wrong: pairs of another kind
#
# The paper that invented this takes neighbours for a pair: features 0 and 1, 2 and 3, and so on.
# That is called *interleaved*.
# Both kinds are in use, and nothing in a model's weights says which one it was trained with.


# %%
def rotate_interleaved(x, cos, sin):
    """As `rotate`, with pairs of neighbours."""
    first, second = rearrange(x, "... (half two) -> two ... half", two=2)  # (..., n, d/2) each
    turned = [first * cos - second * sin, first * sin + second * cos]
    return rearrange(turned, "two ... half -> ... (half two)").to(x.dtype)  # (..., n, d)


# %% [markdown]
# Take the head that looks back once more, now made for interleaved pairs.
# Every token is a vector of 16 numbers, of which the first is 1 and the others random.
# In the matrices that make queries and keys, the column that meets the 1 holds `offered`, for the
# queries turned back by one position and times 10; all other numbers are small and random.

# %%
x = torch.randn(12, 16, dtype=torch.double)
x[:, 0] = 1.0
to_queries, to_keys = 0.02 * torch.randn(2, 64, 16, dtype=torch.double)
to_queries[:, 0] = 10 * rotate_interleaved(offered, back.cos(), back.sin())[0]
to_keys[:, 0] = offered[0]

# %% [markdown]
# Its attention, with either way to turn.


# %%
def weigh(turning, to_queries, to_keys, start=0):
    """The causal attention weights of the 12 tokens, from the position `start` on."""
    a = angles(torch.arange(start, start + 12), d=64)
    q, k = (turning(x @ matrix.T, a.cos(), a.sin()) for matrix in (to_queries, to_keys))
    scores = q @ k.T / math.sqrt(64)
    return scores.masked_fill(later, -math.inf).softmax(dim=-1)


right = weigh(rotate_interleaved, to_queries, to_keys)
wrong = weigh(rotate, to_queries, to_keys)

# %% [markdown]
# How much of its attention does a token give to the one before it, and how much to itself?
# The first token has none before it, and is left out.

# %%
for name, weights in (("interleaved code", right), ("half-split code ", wrong)):
    before, itself = (weights[1:].diagonal(offset).mean() for offset in (0, 1))
    print(f"{name}: {before:.2f} to the one before, {itself:.2f} to itself")

# %% [markdown]
# There is no error and no NaN. All shapes are right, and every row sums to 1.
# The head no longer looks back, and that is all one sees.
# Not even our test of moving everything on finds it, since half-split turning is relative too:

# %%
print(torch.allclose(weigh(rotate, to_queries, to_keys, start=5000), wrong, atol=1e-9))

# %% [markdown]
# What mends it is to sort the features, so that the members of a pair stand where the code looks
# for them: first all first members, then all second ones.
# Of eight features:

# %%
rearrange(torch.arange(8), "(half two) -> (two half)", two=2)

# %% [markdown]
# A feature is made by a row of the matrix, so it is enough to sort the rows, once, when the weights
# are loaded.
# The rows of queries and keys are sorted alike, so every product has the same terms in another
# order.
# Values are not turned, and stay as they are.


# %%
def mend(matrix):
    return rearrange(matrix, "(half two) dim -> (two half) dim", two=2)  # (d, dim)


mended = weigh(rotate, mend(to_queries), mend(to_keys))
print("as before:", torch.allclose(mended, right))

# %%
figure, all_axes = plt.subplots(1, 3, figsize=(7.6, 2.9))
titles = ("interleaved code", "half-split code", "rows sorted")
for axes, weights, title in zip(all_axes, (right, wrong, mended), titles, strict=True):
    image = axes.imshow(weights, vmin=0, vmax=1)
    axes.set(title=title, xlabel="key", ylabel="query")
figure.colorbar(image, ax=all_axes, label="weight")
style.show(
    figure,
    alt="Three maps of attention weights. With interleaved code, and with half-split code after "
    "the rows are sorted, a line just below the diagonal; with half-split code on the weights as "
    "they are, the line is on the diagonal.",
)

# %% [markdown]
# So when a model loaded from elsewhere writes nonsense, and nothing raises an error, look at the
# pairs first.

# %% [markdown]
# ## Exercises
#
# Replace the three dots and run the cell; run the cell below it for a hint.

# %% [markdown]
# ### 1. Turn many pairs
#
# Difficulty ★☆☆, 5 minutes.
# Turn every pair by its own angle, in radians, without a loop: pairs (..., 2), angles (...),
# result (..., 2).


# %% tags=["exercise"]
def turn_pairs(pairs, angles):
    return ...


check("rotary.turn", turn_pairs)

# %%
hint("rotary.turn")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
#
# def turn_pairs(pairs, angles):
#     x, y = pairs.unbind(-1)
#     cos, sin = angles.cos(), angles.sin()
#     return torch.stack((x * cos - y * sin, x * sin + y * cos), dim=-1)
# ```
#
# </details>

# %% [markdown]
# ### 2. The angles
#
# Difficulty ★☆☆, 10 minutes.
# Given positions (n,) and vectors x (..., n, d), return the angle of every pair of x at every
# position, (n, d/2).
# The base is 10000; positions are in float32 or double, and the angles in the same.
# Write it from memory.


# %% tags=["exercise"]
def pair_angles(positions, x):
    return ...


check("rotary.angles", pair_angles)

# %%
hint("rotary.angles")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# import torch
#
#
# def pair_angles(positions, x):
#     d = x.shape[-1]
#     exponents = -torch.arange(0, d, 2, dtype=positions.dtype) / d
#     return positions[:, None] * 10_000**exponents
# ```
#
# </details>

# %% [markdown]
# ### 3. Weights from elsewhere
#
# Difficulty ★★☆, 10 minutes.
# A matrix makes the queries of several heads, 8 features each: weights (heads · 8, dim), the rows
# of head 0 first, then those of head 1, and so on.
# It was trained with interleaved pairs. Sort its rows for half-split code.


# %% tags=["exercise"]
def to_half_split(weights):
    return ...


check("rotary.pairing", to_half_split)

# %%
hint("rotary.pairing")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# Each head is sorted by itself: the axis of the heads stays in front.
#
# ```python
# from einops import rearrange
#
#
# def to_half_split(weights):
#     pattern = "(heads half two) dim -> (heads two half) dim"
#     return rearrange(weights, pattern, half=4, two=2)
# ```
#
# </details>

# %% [markdown]
# ### 4. A head that looks further back
#
# Difficulty ★★★, 15 minutes.
# Every token offers this key (d,), half-split.
# Of all queries (d,) with the norm of the key, return the one that scores highest with the key
# `steps` positions before it, wherever it stands. You return it as it is before its own turn.
# `steps` is a tensor that holds one number; the base is 10000.


# %% tags=["exercise"]
def query_for(key, steps):
    return ...


check("rotary.back", query_for)

# %%
hint("rotary.back")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# At the distance m − n the hands of the query have turned on by (m − n)θ against those of the key.
# At m − n = `steps` this must bring them onto the key's, so they start `steps` positions behind.
#
# ```python
# import torch
#
#
# def query_for(key, steps):
#     d = len(key)
#     angles = -steps * 10_000 ** (-torch.arange(0, d, 2) / d)
#     first, second = key.chunk(2)
#     cos, sin = angles.cos(), angles.sin()
#     return torch.cat((first * cos - second * sin, first * sin + second * cos))
# ```
#
# With `rotate` and `angles` of this lesson it is shorter still: turn the key to the position
# −`steps`.
#
# </details>

# %% [markdown]
# ## What you have now
#
# Queries and keys are turned, each by its own position, and their product knows only how far apart
# they are.
# A vector of *d* features is d/2 clocks, from fast to slow; fast ones tell near places apart, slow
# ones hardly move.
# Angles need digits: they are computed in double precision, and their cosines and sines kept in
# float32 at least, once for all layers.
# A pair is features *i* and *i* + d/2; weights made for neighbours must have their rows sorted.
#
# **References.**
# Rotary position embedding: Su et al. 2021, "RoFormer",
# [arXiv:2104.09864](https://arxiv.org/abs/2104.09864), sections 3.2 and 3.4; equation 15 has the
# frequencies, equation 34 the pairs of neighbours.
# Fast pairs for places, slow ones for content, in Gemma 7B: Barbero et al. 2024,
# [arXiv:2410.06205](https://arxiv.org/abs/2410.06205).
# The base of Llama 3: Grattafiori et al. 2024, [arXiv:2407.21783](https://arxiv.org/abs/2407.21783),
# section 3.2.
#
# **Next.** A turned key is as long as before, however far away it is.
# Lesson [05, xPos](05-xpos.ipynb), lets scores fade with distance.
# All lessons are on the map of [lesson 00](00-start-here.ipynb).
