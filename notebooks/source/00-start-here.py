# %% [markdown]
# # 00 · Start here
#
# Run the cell below: click into it and press **Shift + Enter**.
#
# **What does a language model look at when it reads code?**

# %%
from zeta_edu import load_pretrained
from zeta_edu.views import attention_view

model, tokenizer = load_pretrained("python-small")
code = """def add(a, b):
    return a + b


def mean(values):
    return sum(values) / len(values)
"""
attention_view(model, code, layer=5, head=4, query=13)

# %% [markdown]
# You see the attention of a small language model, trained on the source code of Python's own
# library.
# It opens on the second `def`, which looks at `·add`: what followed `def` the last time.
# The title says how much of its attention a token that occurred before gives that way, on average.
#
# Pick another piece of the code: the more the model looks at a piece, the more colour that one
# gets.
# A blank is written `·` and a line break `⏎`; the *log* scale makes small amounts visible.
# Choose another layer or head (you will soon know what they are), and the picture changes.
# (Lesson 02 explains the bracket over the heads.)
# It keeps working when Python has stopped.
#
# In this course you build the part that does the looking, and everything around it, from
# nothing.
# At the end yours and the one in the package give the same numbers.
#
# This first lesson takes 15 minutes to read and 20 seconds to run.
# You need Python and a little PyTorch.

# %% [markdown]
# ## What you are looking at
#
# The model does not read letters or words.
# A *tokenizer* cuts the text into pieces from a fixed list, the **tokens**, and gives each piece
# its number in the list.

# %%
ids = tokenizer.encode(code)
print(len(code), "characters,", len(ids), "tokens")
print(list(zip(tokenizer.pieces(ids), ids, strict=True))[:8])

# %% [markdown]
# The model is a stack of equal parts, the **blocks**; the place of a block in the stack is its
# **layer**.
# A block lets every token look at itself and the tokens before it, in several ways at once, its
# **heads**.
# A recorder collects how much each token looks at each one: the attention **weights**.

# %%
import torch

from zeta_edu import record_attention

with record_attention(model) as record, torch.no_grad():
    model(torch.tensor([ids]))
# (layer, head, token that looks, token looked at); [0] is our one text
weights = torch.stack([layer[0] for layer in record])
print(len(record), "layers of", weights.shape[1], "heads,", weights.shape[2], "tokens")

# %% [markdown]
# The token that looks is called the *query*, the token that is looked at the *key*.
# Each query has one unit of attention to share out: a row of weights sums to 1.
# And no query looks ahead: to the right of the diagonal every weight is 0.
# The model is trained to guess the next token; if it could see that token, it would learn nothing.
# What hides the later tokens is a *mask*, and lesson 03 builds it.

# %%
sums = weights.sum(dim=-1)
print("rows sum to 1:", torch.allclose(sums, torch.ones_like(sums)))
print("largest weight on a later token:", weights.triu(diagonal=1).max().item())

# %% [markdown]
# ## What the heads do
#
# No one told the heads what to look for; training did.
# Let us measure three plain habits.
# How much of its attention does a head give, on average, to the token just before, to the token
# itself, and to the first token of the text?
# The first two tokens are left out, since they have hardly a choice.

# %%
others = weights[:, :, 2:]  # row i is token i + 2: itself in column i + 2, the one before in i + 1
habits = {
    "the token before": others.diagonal(offset=1, dim1=-2, dim2=-1).mean(dim=-1),
    "the token itself": others.diagonal(offset=2, dim1=-2, dim2=-1).mean(dim=-1),
    "the first token": others[..., 0].mean(dim=-1),
}  # (layer, head) each

# %%
import matplotlib.pyplot as plt

from zeta_edu.views import style

style.use()
figure, all_axes = plt.subplots(1, 3, figsize=(7.4, 2.8))
for axes, (habit, shares) in zip(all_axes, habits.items(), strict=True):
    image = axes.imshow(shares, vmin=0, vmax=1)
    axes.set(title=habit, xlabel="head", ylabel="layer")
    axes.set(xticks=range(shares.shape[1]), yticks=range(shares.shape[0]))
figure.colorbar(image, ax=all_axes, label="share of attention")
style.show(
    figure,
    alt="Three maps of layers by heads: how much of each head's attention goes to the token "
    "before, to the token itself, and to the first token.",
)

# %% [markdown]
# In the first map a few heads stand out; in the others hardly one.
# Which head has each habit the most?

# %%
strongest = {}
for habit, shares in habits.items():
    layer, head = strongest[habit] = divmod(shares.argmax().item(), shares.shape[1])
    print(f"{habit}: {shares[layer, head]:.0%} in layer {layer}, head {head}")

# %% [markdown]
# Here is the view again, opened at the head that looks back by one token.
# Its map shows a dark line just below the diagonal.
# The line has gaps, at `(` and at the line breaks; pick one of them to see where it looks instead.

# %%
layer, head = strongest["the token before"]
attention_view(model, code, layer=layer, head=head)

# %% [markdown]
# Why it looks elsewhere there, the weights do not say: a habit is not an explanation.
# A head that looks at the token before may serve the model in many ways, or in none;
# [lesson 14](14-reading.ipynb) finds out by switching heads off.

# %% [markdown]
# ## It writes
#
# All that the model does is to give every token of its list a probability of coming next.
# It gives every token a number, its *logit*, and softmax (lesson 01) turns the logits into
# probabilities.
# Here are the likeliest after a line of code.

# %%
prompt = "import os\nimport sys\n\n\ndef main("
with torch.no_grad():
    logits = model(torch.tensor([tokenizer.encode(prompt)]))  # (1, token, num_tokens)
logits = logits[0, -1]  # what comes after the last token: (num_tokens,)
likely = logits.softmax(dim=-1).topk(8)
labels = [repr(piece) for piece in tokenizer.pieces(likely.indices.tolist())]

# %%
figure, axes = plt.subplots(figsize=(6, 3))
axes.barh(labels, likely.values, color=style.OUTPUT)
axes.invert_yaxis()
axes.set(xlabel="probability", title="what comes after  def main(")
best = f"{labels[0]} with {likely.values[0]:.0%}"
style.show(figure, alt=f"The eight likeliest tokens after def main(; first of them {best}.")

# %% [markdown]
# To write, it takes one token, adds it to the text, and goes on from the longer text.
# With `temperature=0` it always takes the likeliest.

# %%
print(model.generate(prompt, max_new_tokens=130, temperature=0))

# %% [markdown]
# Always taking the likeliest gives the same text every time, and here it ends in a circle.
# Let it draw lots instead: a likely token often, an unlikely one seldom.
# The logits are divided by the *temperature* first (0 is an exception: always the likeliest).
# The lower it is, the more often the likeliest wins.

# %%
for temperature in (1.5, 1.0, 0.7, 0.3):
    chance = (logits / temperature).softmax(dim=-1).max()
    print(f"temperature {temperature}: {labels[0]} with {chance:.0%}")

# %% tags=["nbval-ignore-output"]
# The draws differ on another kind of processor, even from the same seed.
print(model.generate(prompt, max_new_tokens=100, temperature=0.7, seed=3))

# %% [markdown]
# The model is small, a few megabytes, and has seen nothing but Python.
# It writes what looks like Python, and understands little of it.
# Change the prompt, the temperature or the seed, and run the cell again.

# %% [markdown]
# ## What you will build
#
# The model is this block, a few times over.

# %%
from zeta_edu import check, hint, progress
from zeta_edu.lessonmap import show_block_map

show_block_map()

# %% [markdown]
# Read it from the left: x comes in, a row of numbers for each token, and goes out changed.
# Above, the tokens look at each other; below, the feed-forward works on each token alone.
# *SwiGLU* is its kind, and *out* is a matrix that brings the heads together again.
# The *residual* is x itself, which is added back at the end.
# No need to understand it yet: each box carries the number of the lesson that builds it.
# By lesson 11 you have all of it.
#
# | lesson | what it is about |
# |---|---|
# | [01 attention](01-attention.ipynb) | a dictionary that answers with a mixture |
# | [02 heads](02-heads.ipynb) | many small attentions side by side |
# | [03 masks](03-masks.ipynb) | what a token may see |
# | [04 rotary](04-rotary.ipynb) | a sense of place, by turning vectors |
# | [05 xPos](05-xpos.ipynb) | a sense of place that fades with distance |
# | [06 qk norm](06-qk-norm.ipynb) | scores that cannot explode |
# | [07 feed-forward](07-feed-forward.ipynb) | the other half of the block, in parallel |
# | [08 flash](08-flash-attention.ipynb) | attention that never writes its table down |
# | [09 the KV cache](09-kv-cache.ipynb) | writing on without reading everything again |
# | [10 LoRA](10-lora.ipynb) | a small change that teaches a trained model something new |
# | [11 the block](11-the-block.ipynb) | all of it, equal to `zeta_edu.TransformerBlock` |
# | [12 copying](12-learns-to-copy.ipynb) | a model learns to copy while you watch |
# | [13 longer texts](13-longer.ipynb) | what happens beyond the training length |
# | [14 reading it](14-reading.ipynb) | what the heads of the model above do, or only seem to do |
# | [15 speed](15-faster.ipynb) | time and memory, on your machine |
#
# Follow them in order, or open one door: each says what it needs.

# %% [markdown]
# ## How a lesson works
#
# Every lesson opens with a question.
# It builds the answer in small cells: first with numbers that you can check by hand, then as a
# loop, then as matrices.
# It shows what it builds in pictures that you can move.
#
# Then it **proves** that you built the real thing, as far as a test can: your code and the
# package's are given the same numbers, and both outputs and gradients must agree to the last
# digits.
# After that it breaks the thing on purpose, so that you know the symptom when you meet it.
#
# At the end there are **exercises**.
# Each is a function with three dots in it, and a `check`.
# Replace the dots, and run the cell again.
# If you are stuck, run the cell below it for a hint, and once more for the next one.
# The solution is folded below that.
#
# ### A first exercise
#
# Difficulty ★☆☆, 2 minutes.
# Return the sum of every row of `table`, a tensor whose last two axes are rows and columns; there
# may be more axes before them.
# You have seen how: the cell that printed `rows sum to 1` did it for the model's weights.


# %% tags=["exercise"]
def row_sums(table):
    return ...


check("start.row_sums", row_sums)

# %%
hint("start.row_sums")

# %% [markdown]
# <details>
# <summary>Solution</summary>
#
# ```python
# def row_sums(table):
#     return table.sum(dim=-1)
# ```
#
# </details>

# %% [markdown]
# When the answer is right you get a tick.
# When it is not, `check` looks for the mistake.
# This is what it says to someone who summed the columns:

# %%
check("start.row_sums", lambda table: table.sum(dim=-2))

# %% [markdown]
# The smallest input that shows the mistake is there to be tried by hand.
#
# `progress` shows what you have done.
# It is kept in the folder of the lessons, in `zeta_edu_progress.json`.

# %%
progress()

# %% [markdown]
# ## Where to go
#
# Start with [lesson 01](01-attention.ipynb): what is attention?
