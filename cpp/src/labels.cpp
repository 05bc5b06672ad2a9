#include "malis/graph/labels.hpp"

namespace malis {

namespace {

template <class Label>
LabelRange range_of(const Label* labels, std::size_t n, std::optional<Label> ignored, int threads) {
    std::mutex mutex;
    Label lowest = 0, highest = 0;
    bool any_ignored = false;
    parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        Label low = 0, high = 0;
        bool any = false;
        if (ignored) {
            const Label of_ignored = *ignored;
            for (std::size_t i = begin; i < end; ++i) {
                const bool skip = labels[i] == of_ignored;
                const Label label = skip ? Label(0) : labels[i];
                any |= skip;
                low = std::min(low, label);
                high = std::max(high, label);
            }
        } else {
            for (std::size_t i = begin; i < end; ++i) {
                low = std::min(low, labels[i]);
                high = std::max(high, labels[i]);
            }
        }
        const std::lock_guard<std::mutex> lock(mutex);
        lowest = std::min(lowest, low);
        highest = std::max(highest, high);
        any_ignored |= any;
    });
    return {static_cast<std::int64_t>(lowest), static_cast<std::uint64_t>(highest), any_ignored};
}

}  // namespace

LabelRange range_of_labels(LabelArray labels, std::size_t n, std::optional<std::int64_t> ignore_label, int threads) {
    return labels.visit([&](const auto* of) {
        using Label = std::remove_const_t<std::remove_pointer_t<decltype(of)>>;
        return range_of<Label>(of, n, detail::as_label<Label>(ignore_label), threads);
    });
}

void check_labels(LabelArray labels, std::size_t n, const char* name, int threads) {
    const LabelRange range = range_of_labels(labels, n, std::nullopt, threads);
    if (range.lowest >= 0) return;
    throw std::invalid_argument(std::string(name) + " must hold labels of at least 0, got " +
                                std::to_string(range.lowest));
}

template Labels<std::uint32_t> compact_labels(LabelArray, std::size_t, const LabelOptions&, int);
template Labels<std::uint64_t> compact_labels(LabelArray, std::size_t, const LabelOptions&, int);

}  // namespace malis
