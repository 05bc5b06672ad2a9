"""
Which edges long offsets add
============================

Edges to direct neighbours see a border as a line one pixel wide. Edges to pixels further away see it as a band: every
gap in an outline lies under many of them.
"""

import matplotlib.pyplot as plt

import malis
from malis.synthetic import synthetic_image

image, truth = synthetic_image(seed=5, size=128)
figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
for ax, reach in zip(axes, (1, 4, 9), strict=True):
    nhood = [[-reach, 0], [0, -reach]]
    malis.plot.affinities(malis.seg_to_affgraph(truth, nhood), nhood, ax)
    ax.set_title(f"{reach} pixel{'s' if reach > 1 else ''} away", fontsize="medium")
plt.show()

# %%
# In training they are further targets of the cross entropy. Components are still made of the nearest ones: a long edge
# over a thin object would join what lies on both of its sides.
