// Memory of the caller may change during a call: another thread of theirs may write to it. What is read there and then
// used as an index or a size is read once, into a variable of our own, and checked there. Everything else may be read
// again, and give another result, but never leads out of our memory.
#pragma once

namespace malis {

// A value of the caller, loaded exactly once: what is checked is what is used, whatever the compiler would rather do.
template <class T>
inline T read_once(const T* value) {
    return *static_cast<const volatile T*>(value);
}

}  // namespace malis
