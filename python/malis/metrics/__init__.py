"""Scores of a segmentation against the ground truth; NumPy alone is needed.

The scores of segmentations are computed from a sparse contingency table (:func:`contingency_table`), which can be
counted once for all of them, and part by part where a volume is larger than memory:

* per object: :func:`object_score` and :func:`object_recall`, which count the objects that were found, also at every
  Dice threshold (:func:`object_score_curve`); :func:`average_precision` over thresholds of the intersection over union;
* per pair of voxels or per voxel: :func:`rand_scores`, :func:`adapted_rand_error`, :func:`variation_of_information`
  and the score of the CREMI challenge, :func:`cremi_score`.

:func:`skeleton_scores` follows true skeletons through a segmentation: expected run length, split and merge errors.
:func:`evaluate` returns the object scores and the Rand scores from one table; :func:`error_map` says where the errors
are. Label 0 is background on both sides. Where nothing is counted a score is NaN.
"""

from malis.metrics.cremi import CremiScore, cremi_score
from malis.metrics.detection import AveragePrecision, average_precision
from malis.metrics.errors import VoxelError, error_map
from malis.metrics.evaluation import Scores, evaluate
from malis.metrics.objects import (
    ObjectMatches,
    ObjectScoreCurve,
    match_objects,
    object_recall,
    object_score,
    object_score_curve,
)
from malis.metrics.pairs import (
    RandScores,
    VariationOfInformation,
    adapted_rand_error,
    rand_scores,
    variation_of_information,
)
from malis.metrics.skeletons import Skeletons, SkeletonScores, skeleton_scores, skeleton_segments
from malis.metrics.table import ContingencyTable, contingency_table

__all__ = [
    "AveragePrecision",
    "ContingencyTable",
    "CremiScore",
    "ObjectMatches",
    "ObjectScoreCurve",
    "RandScores",
    "Scores",
    "SkeletonScores",
    "Skeletons",
    "VariationOfInformation",
    "VoxelError",
    "adapted_rand_error",
    "average_precision",
    "contingency_table",
    "cremi_score",
    "error_map",
    "evaluate",
    "match_objects",
    "object_recall",
    "object_score",
    "object_score_curve",
    "rand_scores",
    "skeleton_scores",
    "skeleton_segments",
    "variation_of_information",
]
