"""
A volume in thick sections
==========================

Neurites in voxels of 30 x 10 x 10 nm: affinities, a segmentation and its errors, cut along two axes.
"""

import matplotlib.pyplot as plt

import malis
from malis.synthetic import synthetic_affinities, synthetic_volume

voxel_size = (30, 10, 10)
nhood = malis.mknhood3d(1)
image, truth = synthetic_volume(3, (24, 96, 96), voxel_size)
aff = synthetic_affinities(truth, nhood, seed=3, noise=0.7)
best = malis.rand_curve(aff, truth, nhood).best_threshold
components, _ = malis.affgraph_to_seg(aff, nhood, min_size=100, threshold=best)
grown, _ = malis.watershed_from_affgraph(aff, components, nhood, min_size=0)

# %%
# A picture shows one section, with true proportions where the size of a voxel is given.
figure, axes = plt.subplots(2, 3, figsize=(11, 7.2), layout="constrained")
for row, axis in zip(axes, ("z", "y"), strict=True):
    malis.plot.labels(truth, row[0], image=image[0], axis=axis, voxel_size=voxel_size)
    malis.plot.affinities(aff, nhood, row[1], axis=axis, voxel_size=voxel_size)
    malis.plot.errors(truth, grown, row[2], image=image[0], axis=axis, voxel_size=voxel_size)
plt.show()
