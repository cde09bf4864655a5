# %% [markdown]
# # Gallery · Every view once
#
# Ten pictures of a transformer that move, each made by one call.
# **Which of them answers the question that you have?**
#
# All ten work without a running Python: in a notebook that is opened again, on a page
# that is saved, with the network off.
# `.save("page.html")` writes such a page from any of them, `.save("picture.png")` a still picture,
# and `.live()` gives a widget whose controls Python can read and set.
#
# It takes 10 minutes to look at and 10 seconds to run.

# %%
import torch

from zeta_edu import LoRA, load_pretrained, views

_ = torch.manual_seed(0)

# %% [markdown]
# A small language model comes with the package.
# It has read the source of Python's standard library.
# The attention, the cache and the block below show its numbers, for two lines of code; the other
# pictures need none, or take random ones.

# %%
model, tokenizer = load_pretrained("python-small")
text = "def add(a, b):\n    return a + b\n"
tokens = tokenizer.pieces(tokenizer.encode(text))
block = model.blocks[0]
x = model.embedding(torch.tensor([tokenizer.encode(text)])).detach()  # (1, tokens, dim)

# %% [markdown]
# ## Attention
#
# Where does each head look, while the model reads?
# Choose a layer and a head, pick a token, zoom into a long text.

# %%
views.attention_view(model, tokenizer, text)

# %% [markdown]
# ## Heads
#
# Several query heads may read the same key and value head.
# What does that save, and what is shared?

# %%
views.heads_view(8, 2)

# %% [markdown]
# ## Masks
#
# What may a token see? Hide the future, hide padding, go on from a cache.
# The scores are random.

# %%
views.mask_view(2 * torch.randn(8, 8), tokens=tokens[:8])

# %% [markdown]
# ## Rotary embedding
#
# Each pair of features is a clock, and its hand turns with the position.
# Move a query and a key together: their product stays.

# %%
views.rotary_view(16)

# %% [markdown]
# ## xPos
#
# With rotation alone a distant token can count as much as a near one; with xPos it cannot.

# %%
views.xpos_view()

# %% [markdown]
# ## Query and key normalisation
#
# As activations grow, attention hardens onto one token, unless queries and keys are brought to
# length 1.
# Queries and keys are random.

# %%
queries, keys = torch.randn(2, 2, 16, 8)  # each (heads, positions, dim_head)
views.qknorm_view(queries, keys)

# %% [markdown]
# ## Flash attention
#
# Softmax, tile by tile: the table of scores is never whole, and the result is the same.
# Queries, keys and values are random.

# %%
queries, keys, values = torch.randn(3, 12, 8)  # each (positions, dim_head)
views.flash_view(queries, keys, values, tokens=tokens[:12])

# %% [markdown]
# ## The KV cache
#
# Reading on token by token: what is computed anew, and what is kept?

# %%
views.cache_view(block, x[:, :12], prompt=4, tokens=tokens[:12])

# %% [markdown]
# ## LoRA
#
# A weight, a small update of low rank, and their sum.
# The update here is random; lesson 10 trains one.

# %%
adapter = LoRA(24, 32, rank=6)
adapter.B.data.normal_(std=0.25)
views.lora_view(0.2 * torch.randn(24, 32), adapter)

# %% [markdown]
# ## The block
#
# The whole block with its numbers: pick a part to see its shape, its range, its lesson.

# %%
views.block_view(block, x, tokens=tokens)

# %% [markdown]
# ## Linked to other widgets
#
# `.live()` gives a widget with an attribute for each control (a *trait*), to read, set and link.
# Here a slider of ipywidgets and the position `m` of the query move each other: we set the slider,
# and read `m`. Put both into one `VBox([slider, live])` to see it.

# %%
from ipywidgets import IntSlider, link

live, slider = views.rotary_view(16).live(), IntSlider(48, min=0, max=127)
linked = link((slider, "value"), (live, "m"))
slider.value = 100
live.m
