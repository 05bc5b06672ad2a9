"""
The tree behind all thresholds
==============================

Connected components at all thresholds are a hierarchy: the single-linkage dendrogram of the affinities.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.cluster import hierarchy

import malis

# %%
# Twelve pixels in a row, three objects.
truth = np.repeat([1, 2, 3], 4)
rng = np.random.default_rng(3)
aff = np.where(malis.seg_to_affgraph(truth, [[-1]]) > 0, 0.8, 0.3) + rng.uniform(-0.15, 0.15, (1, 12))
tree = malis.maximum_spanning_tree(aff, [[-1]])
linkage = malis.linkage(tree)

# %%
# Cut it at a distance, and what hangs together below is a component. The distance is 1 minus the affinity.
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
hierarchy.dendrogram(linkage, ax=ax, color_threshold=0.5, labels=[f"{v}\n({label})" for v, label in enumerate(truth)])
ax.axhline(0.5, color="0.4", ls="--")
ax.set(ylabel="1 - affinity", xlabel="pixel (label)")
plt.show()
