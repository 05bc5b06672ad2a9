#include "malis/graph/labels.hpp"

namespace malis {

namespace {

// The smallest and the largest label, the first no larger and the second no smaller than 0.
template <class Label>
std::pair<Label, Label> range_of(const Label* labels, std::size_t n, int threads) {
    std::mutex mutex;
    Label lowest = 0, highest = 0;
    parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        Label low = 0, high = 0;
        for (std::size_t i = begin; i < end; ++i) {
            low = std::min(low, labels[i]);
            high = std::max(high, labels[i]);
        }
        const std::lock_guard<std::mutex> lock(mutex);
        lowest = std::min(lowest, low);
        highest = std::max(highest, high);
    });
    return {lowest, highest};
}

}  // namespace

std::uint64_t check_labels(LabelArray labels, std::size_t n, const char* name, int threads) {
    return labels.visit([&](const auto* of) {
        using Label = std::remove_const_t<std::remove_pointer_t<decltype(of)>>;
        const auto [lowest, highest] = range_of<Label>(of, n, threads);
        if (lowest < Label(0)) {
            throw std::invalid_argument(std::string(name) + " must hold labels of at least 0, got " +
                                        std::to_string(lowest));
        }
        return static_cast<std::uint64_t>(highest);
    });
}

template Labels<std::uint32_t> compact_labels(LabelArray, std::size_t, const bool*, bool, int);
template Labels<std::uint64_t> compact_labels(LabelArray, std::size_t, const bool*, bool, int);

}  // namespace malis
