"""
Every threshold at once
=======================

Precision and recall of pairs of pixels at every threshold, from one pass through the edges, and what the segmentation
looks like at three of them.
"""

import matplotlib.pyplot as plt

import malis
from malis.synthetic import synthetic_affinities, synthetic_image

nhood = malis.mknhood2d(1)
image, truth = synthetic_image(seed=1, size=128)
aff = synthetic_affinities(truth, nhood, seed=1)
curve = malis.rand_curve(aff, truth, nhood)
malis.plot.rand_curve(curve)
plt.show()

# %%
# One spanning tree has the segmentations of all thresholds in it. Too low a threshold merges, too high a one splits.
tree = malis.maximum_spanning_tree(aff, nhood)
thresholds = [0.5, curve.best_threshold, 0.99]
segmentations = {
    f"at {threshold:.2f}": seg
    for threshold, (seg, _) in zip(thresholds, malis.segment_tree(tree, thresholds, min_size=20), strict=True)
}
malis.plot.comparison(truth, segmentations, image=image[0])
plt.show()
