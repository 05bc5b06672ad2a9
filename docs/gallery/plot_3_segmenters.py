"""
Components, watersheds, and growing
===================================

The same affinities, segmented in four ways.
"""

import matplotlib.pyplot as plt
import numpy as np

import malis
from malis.synthetic import synthetic_affinities, synthetic_image

nhood = malis.mknhood2d(1)
image, truth = synthetic_image(seed=2, size=128)
aff = synthetic_affinities(truth, nhood, seed=2)

# %%
# Components stop at the threshold. Small ones can be joined along their best edge, where they would be dropped. Seeds
# from a high threshold grow into what is left; basins need no seeds. What is above 0.97 is one
# plateau, so that they are few.
components, _ = malis.affgraph_to_seg(aff, nhood, min_size=30, threshold=0.95)
merged, _ = malis.affgraph_to_seg(aff, nhood, min_size=30, threshold=0.95, small="merge")
grown, _ = malis.watershed_from_affgraph(np.where(aff < 0.3, 0, aff), components, nhood, min_size=0)
basins, _ = malis.watershed_basins(np.minimum(aff, 0.97), nhood, min_size=30, threshold=0.3)
segmentations = {"components": components, "small ones merged": merged, "grown": grown, "basins": basins}

# %%
# Colours are the same for the same label; a neighbour always has another one.
figure, axes = plt.subplots(1, 4, figsize=(13, 3.8), layout="constrained")
for ax, (name, seg) in zip(axes, segmentations.items(), strict=True):
    score = malis.metrics.rand_scores(truth, seg).f_score
    malis.plot.labels(seg, ax, image=image[0]).set_title(f"{name}\nRand F-score {score:.2f}", fontsize="medium")
plt.show()
