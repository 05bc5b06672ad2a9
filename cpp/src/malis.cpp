#include "malis/malis.hpp"

namespace malis {
MALIS_PUBLIC_INSTANCES(, float)
MALIS_PUBLIC_INSTANCES(, double)
MALIS_STORED_INSTANCES(, std::uint8_t)
MALIS_ALL_LABEL_INSTANCES()
MALIS_ALL_TREE_INSTANCES()
MALIS_NUMBERING_INSTANCES(, std::uint32_t)
MALIS_NUMBERING_INSTANCES(, std::uint64_t)
}  // namespace malis
