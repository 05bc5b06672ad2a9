// Asks for memory that will be read soon. Does nothing where a compiler has no word for it.
//
// Functions that do nothing else must be inlined: GCC takes them for pure ones and drops calls to them.
#pragma once

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

}  // namespace malis
