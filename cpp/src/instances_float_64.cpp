#define MALIS_INSTANTIATE
#include "malis/instances.hpp"

namespace malis {
MALIS_INSTANCES(, float, std::uint64_t)
}  // namespace malis
