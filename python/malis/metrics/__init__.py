"""Scores of a segmentation against the ground truth; NumPy alone is needed.

Every score is computed from a sparse contingency table (:func:`contingency_table`), which can be counted once for all
of them:

* per object (`malis.metrics.objects`): :func:`object_score` and :func:`object_recall`, which count the objects that
  were found, also at every Dice threshold (:func:`object_score_curve`);
* per pair of voxels or per voxel (`malis.metrics.pairs`): :func:`rand_scores`, :func:`adapted_rand_error` and
  :func:`variation_of_information`.

:func:`evaluate` returns the object scores and the Rand scores from one table; :func:`error_map` says where the errors
are. Label 0 is background on both sides.
"""

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
from malis.metrics.table import ContingencyTable, contingency_table

__all__ = [
    "ContingencyTable",
    "ObjectMatches",
    "ObjectScoreCurve",
    "RandScores",
    "Scores",
    "VariationOfInformation",
    "VoxelError",
    "adapted_rand_error",
    "contingency_table",
    "error_map",
    "evaluate",
    "match_objects",
    "object_recall",
    "object_score",
    "object_score_curve",
    "rand_scores",
    "variation_of_information",
]
