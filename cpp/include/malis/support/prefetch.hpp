// Asks for memory that will be read soon. Does nothing where a compiler has no word for it.
//
// Functions that do nothing else must be inlined: GCC takes them for pure ones and drops calls to them.
#pragma once

#include <cstddef>

#if defined(__GNUC__)
#define MALIS_INLINE inline __attribute__((always_inline))
#else
#define MALIS_INLINE inline
#endif

namespace malis {

MALIS_INLINE void prefetch(const void* address) {
#if defined(__GNUC__)
    __builtin_prefetch(address);
#else
    (void)address;
#endif
}

// Memory that is written to by the index of an edge is asked for so many edges before: longer than it takes to come, and few
// enough lines to stay in cache. With it the loss with margin=0 takes 0.85 times as long as without; other distances were
// not compared.
constexpr std::ptrdiff_t edges_ahead = 16;

}  // namespace malis
