// Which pairs are counted.
#pragma once

#include "malis/graph/labels.hpp"

namespace malis {

struct PairOptions : LabelOptions {
    bool constrain_positive = true;
    bool constrain_negative = true;
    bool connect_labels = false;      // on volumes: every connected part of a label is an object of its own
    const bool* edge_mask = nullptr;  // per edge: false where its ground truth is unknown
    int threads = 1;
};

}  // namespace malis
