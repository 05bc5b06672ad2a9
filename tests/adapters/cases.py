"""Tables of cases for all adapters: to add one is to add a line."""

from __future__ import annotations

import numpy as np

# Options of the loss whose numbers have to be those of `malis.malis_loss`.
OPTIONS = {
    "defaults": {},
    "margin0": {"margin": 0.0},
    "not_normalized": {"pos_loss_weight": 0.9, "normalize": False},
    "cross_entropy": {"pointwise": "cross_entropy"},
    "logits": {"from_logits": True},
    "logits_cross_entropy": {"from_logits": True, "pointwise": "cross_entropy"},
    "free_positive": {"constrain_positive": False},
    "free_negative": {"constrain_negative": False},
    "free": {
        "constrain_positive": False,
        "constrain_negative": False,
        "ignore_background": False,
        "num_threads": 1,
    },
}

SEG = np.ones((2, 4, 5), np.int32)
OUT = np.full((2, 2, 4, 5), 0.5, np.float32)
NAN = OUT.copy()
NAN[1, 0, 2, 3] = np.nan

# name: (labels, affinities, edge mask, voxel mask), error, message with {seg} and {out} for the names of the arguments
BAD_ARRAYS = {
    "out-axes": ((SEG, OUT[0]), ValueError, r"{out} must have shape \(B, .*\), got .*\(\d, \d, \d\)"),
    "out-channels": ((SEG, OUT[:, :1]), ValueError, r"{out} must have one channel for each of the 2 offsets of nhood"),
    "out-no-samples": ((SEG[:0], OUT[:0]), ValueError, r"{out} must not be empty"),
    "out-no-pixels": ((SEG[..., :0], OUT[..., :0]), ValueError, r"{out} must not be empty"),
    "out-integers": (
        (SEG, OUT.astype(np.int32)),
        TypeError,
        r"{out} must have dtype float16, bfloat16, float32 or .*int32",
    ),
    "out-complex": ((SEG, OUT.astype(np.complex64)), TypeError, r"{out} must have dtype float16.*complex64"),
    "out-nan": ((SEG, NAN), ValueError, r"{out} must not contain NaN"),
    "seg-samples": ((SEG[:1], OUT), ValueError, r"{seg} must have shape \(2, 4, 5\) or .* got .*\(1, 4, 5\)"),
    "seg-shape": ((SEG[..., :4], OUT), ValueError, r"{seg} must have shape .* got .*\(2, 4, 4\)"),
    "seg-axes": ((SEG[0], OUT), ValueError, r"{seg} must have shape .* got .*\(4, 5\)"),
    "seg-negative": ((SEG - 3, OUT), ValueError, r"{seg} must hold labels of at least 0, got -2"),
    "seg-negative-float": ((SEG - np.float32(3), OUT), ValueError, r"{seg} must hold labels of at least 0, got -2"),
    "seg-fractions": ((SEG + np.float32(0.5), OUT), ValueError, r"{seg} must hold integer labels, got fractions"),
    "seg-nan": ((SEG * np.float32("nan"), OUT), ValueError, r"{seg} must hold integer labels, got .*non-finite"),
    "seg-infinite": ((SEG * np.float32("inf"), OUT), ValueError, r"{seg} must hold integer labels, got .*non-finite"),
    "seg-complex": ((SEG * np.complex64(1), OUT), TypeError, r"{seg} must hold integer labels.*complex"),
    "edge_mask-dtype": ((SEG, OUT, OUT), TypeError, r"edge_mask must have dtype .*bool, got .*float32"),
    "edge_mask-shape": ((SEG, OUT, OUT[:1] > 0), ValueError, r"edge_mask must have the shape of {out}, .*got"),
    "voxel_mask-dtype": ((SEG, OUT, None, SEG), TypeError, r"unlabelled_mask must have dtype .*bool, got .*int32"),
    "voxel_mask-shape": ((SEG, OUT, None, SEG[:1] > 0), ValueError, r"unlabelled_mask must have shape \(2, 4, 5\) or"),
    "voxel_mask-channels": ((SEG, OUT, None, OUT > 0), ValueError, r"unlabelled_mask must have shape \(2, 4, 5\) or"),
}

# Values that have no finite loss: affinities, options, error, message.
LARGE = OUT.copy()
LARGE[1, 0, 2, 3] = 1.5
WRONG = np.full_like(OUT, -np.inf)
BAD_VALUES = {
    "entropy-above-1": (LARGE, {"pointwise": "cross_entropy"}, ValueError, r"{out} must hold values from 0 to 1, got"),
    "entropy-below-0": (-LARGE, {"pointwise": "cross_entropy"}, ValueError, r"{out} must hold values from 0 to 1, got"),
    "hinge-infinite": (WRONG, {}, ValueError, r"{out} must hold affinities of a finite loss and gradient, got -inf"),
    "entropy-infinite": (
        WRONG,
        {"pointwise": "cross_entropy", "from_logits": True},
        ValueError,
        r"{out} must hold affinities of a finite loss and gradient, got -inf",
    ),
}

# Refused by functions when they are called and by classes when they are made: options, error, message.
BAD_OPTIONS = {
    "nhood-flat": ({"nhood": [-1, 0]}, ValueError, r"nhood must have shape \(K, ndim\)"),
    "nhood-fractions": ({"nhood": [[-1, 0.5], [0, 1]]}, TypeError, r"nhood must hold integer offsets"),
    "margin-text": ({"margin": "wide"}, TypeError, r"margin must be a real number, got 'wide'"),
    "margin-huge": ({"margin": -1e300}, ValueError, r"margin must be within -1e6 and 1e6, got -1e\+300"),
    "margin-nan": ({"margin": float("nan")}, ValueError, r"margin must be a finite number, got nan"),
    "pos_loss_weight": ({"pos_loss_weight": 1.5}, ValueError, r"pos_loss_weight must be within 0 and 1, got 1.5"),
    "normalize": ({"normalize": "yes"}, TypeError, r"normalize must be True or False, got 'yes'"),
    "pointwise": (
        {"pointwise": "hinge"},
        ValueError,
        r"pointwise must be one of 'squared_hinge', 'cross_entropy', got 'hinge'",
    ),
    "from_logits": ({"from_logits": None}, TypeError, r"from_logits must be True or False, got None"),
    "constrain_positive": ({"constrain_positive": 1}, TypeError, r"constrain_positive must be True or False, got 1"),
    "constrain_negative": ({"constrain_negative": 0}, TypeError, r"constrain_negative must be True or False, got 0"),
    "ignore_background": (
        {"ignore_background": "no"},
        TypeError,
        r"ignore_background must be True or False, got 'no'",
    ),
    "num_threads-zero": ({"num_threads": 0}, ValueError, r"num_threads must be an integer of at least 1, got 0"),
    "num_threads-fraction": ({"num_threads": 1.5}, TypeError, r"num_threads must be an integer, got 1.5"),
    "unknown": ({"size_average": True}, TypeError, r"size_average"),
}
