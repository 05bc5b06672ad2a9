// Which pairs are counted.
#pragma once

namespace malis {

struct PairOptions {
    bool constrain_positive = true;
    bool constrain_negative = true;
    bool ignore_background = true;
    const bool* edge_mask = nullptr;        // per edge: false where its ground truth is unknown
    const bool* unlabelled_mask = nullptr;  // per node: true where objects carry no label
    int threads = 1;
};

}  // namespace malis
