"""
One wrong edge
==============

Two objects, a border between them, and one edge of the border that a network got wrong.
"""

import matplotlib.pyplot as plt
import numpy as np

import malis

# %%
# Two halves of a disc, with a border of one pixel. The affinities are those of the truth, but for noise.
y, x = np.mgrid[-24:25, -24:25]
truth = np.where(np.hypot(x, y) < 22, np.where(x < 0, 1, 2), 0)
truth[:, 24] = 0
nhood = malis.mknhood2d(1)
rng = np.random.default_rng(0)
aff = np.clip(malis.seg_to_affgraph(truth, nhood) * 0.8 + 0.1 + 0.03 * rng.standard_normal((2, 49, 49)), 0, 1)

# %%
# Now open one gap: both edges across the border in row 30.
wrong = aff.copy()
wrong[1, 30, 24:26] = 0.7
loss, grad = malis.malis_loss(wrong, truth, nhood)
print(f"loss {malis.malis_loss(aff, truth, nhood).loss:.4f} before, {loss:.4f} after")
print(f"the mean squared error of the affinities grows by {np.square(wrong - aff).mean():.6f}")

# %%
# At a threshold of 0.5 the gap merges both halves. The edges that decide most pairs show where it is: the red dot is
# the one edge that decides all pairs of pixels between the two.
figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
malis.plot.affinities(wrong, nhood, axes[0])
segmentation, _ = malis.affgraph_to_seg(wrong, nhood, threshold=0.5)
malis.plot.errors(truth, segmentation, axes[1])
malis.plot.deciding_edges(malis.pairs(wrong, truth, nhood), nhood, axes[2], image=(truth > 0).astype(float), most=30)
plt.show()
