// Labels of any integer type, and the same compacted to numbers 0..count of one index type.
//
// Every algorithm works on the compacted labels, so that none of them is compiled once for each type that labels come in.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/read_once.hpp"

namespace malis {

// A pointer to integers of 8 to 64 bits, with or without a sign. It does not own them.
class LabelArray {
  public:
    template <class Label>
    LabelArray(const Label* data) : data_(data), type_(type_of<Label>()) {}

    // Calls f with the pointer, of its own type.
    template <class F>
    auto visit(F&& f) const {
        switch (type_) {
            case Type::u8: return f(static_cast<const std::uint8_t*>(data_));
            case Type::i8: return f(static_cast<const std::int8_t*>(data_));
            case Type::u16: return f(static_cast<const std::uint16_t*>(data_));
            case Type::i16: return f(static_cast<const std::int16_t*>(data_));
            case Type::u32: return f(static_cast<const std::uint32_t*>(data_));
            case Type::i32: return f(static_cast<const std::int32_t*>(data_));
            case Type::u64: return f(static_cast<const std::uint64_t*>(data_));
            case Type::i64: break;
        }
        return f(static_cast<const std::int64_t*>(data_));
    }

    LabelArray operator+(std::size_t n) const {
        return visit([n](const auto* data) { return LabelArray(data + n); });
    }

  private:
    enum class Type { u8, i8, u16, i16, u32, i32, u64, i64 };

    template <class Label>
    static constexpr Type type_of() {
        if constexpr (std::is_same_v<Label, std::uint8_t>) return Type::u8;
        else if constexpr (std::is_same_v<Label, std::int8_t>) return Type::i8;
        else if constexpr (std::is_same_v<Label, std::uint16_t>) return Type::u16;
        else if constexpr (std::is_same_v<Label, std::int16_t>) return Type::i16;
        else if constexpr (std::is_same_v<Label, std::uint32_t>) return Type::u32;
        else if constexpr (std::is_same_v<Label, std::int32_t>) return Type::i32;
        else if constexpr (std::is_same_v<Label, std::uint64_t>) return Type::u64;
        else {
            static_assert(std::is_same_v<Label, std::int64_t>, "labels are std::int8_t to std::int64_t, or unsigned");
            return Type::i64;
        }
    }

    const void* data_;
    Type type_;
};

// Which voxels carry an object, and which nobody knows anything of.
struct LabelOptions {
    bool ignore_background = true;                  // false: label 0 is an object like any other
    const bool* unlabelled_mask = nullptr;          // per node: true where objects exist but carry no label
    std::optional<std::int64_t> ignore_label = {};  // the label of nodes of which nothing is known
};

// The smallest label or 0, the largest label or 0, and whether a label is the ignored one, which counts in neither.
struct LabelRange {
    std::int64_t lowest = 0;
    std::uint64_t largest = 0;
    bool any_ignored = false;
};
LabelRange range_of_labels(LabelArray labels, std::size_t n, std::optional<std::int64_t> ignore_label, int threads);

// Throws std::invalid_argument that names the argument where a label is negative.
void check_labels(LabelArray labels, std::size_t n, const char* name, int threads);

// Labels of any integer type as 0..count: 0 for what is background, equal numbers for equal labels.
template <class Index>
struct Labels {
    Buffer<Index> of;  // per node
    Index count = 0;   // numbers are at most `count`; not all need occur
    // The number of unlabelled nodes (all the same), or 0 where there are none. It counts as an object among
    // negative pairs alone. It is the last number, so that the numbers from there on can stand for parts of it.
    Index unlabelled = 0;
    // The number of ignored nodes, or 0 where there are none: they are in no pair, and the truth of every edge that
    // touches one is unknown.
    Index ignored = 0;

    bool is_unlabelled(Index l) const { return unlabelled != 0 && l >= unlabelled; }
    // The object that a number stands for: all unlabelled nodes are one.
    Index object(Index l) const { return is_unlabelled(l) ? unlabelled : l; }

    // Unlabelled nodes have one number again.
    void join_unlabelled(int threads) {
        if (unlabelled == 0 || unlabelled == count) return;
        parallel_ranges(of.size(), std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) of[i] = object(of[i]);
        });
        count = unlabelled;
    }

    // Ignored nodes become background, which is in no pair either. What is unknown because of them has to be found before
    // (unknown_edges.hpp).
    void forget_ignored(int threads) {
        if (ignored == 0) return;
        parallel_ranges(of.size(), std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) of[i] = of[i] == ignored ? Index{0} : of[i];
        });
        ignored = 0;
    }
};

namespace detail {

// Open addressing from 64-bit labels to 1, 2, 3...
template <class Index>
class LabelTable {
  public:
    LabelTable() { rehash(1024); }
    Index number(std::uint64_t label) {
        std::size_t at = slot(label);
        while (number_[at] != 0 && label_[at] != label) at = (at + 1) & mask_;
        if (number_[at] == 0) {
            if (2 * (static_cast<std::size_t>(count_) + 1) > mask_) {
                rehash(2 * (mask_ + 1));
                return number(label);
            }
            label_[at] = label;
            number_[at] = ++count_;
        }
        return number_[at];
    }
    Index count() const { return count_; }

  private:
    std::size_t slot(std::uint64_t label) const {
        return static_cast<std::size_t>((label * 0x9E3779B97F4A7C15ull) >> 20) & mask_;
    }
    void rehash(std::size_t size) {
        std::vector<std::uint64_t> labels(size);
        std::vector<Index> numbers(size, 0);
        std::swap(labels, label_);
        std::swap(numbers, number_);
        mask_ = size - 1;
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            if (numbers[i] == 0) continue;
            std::size_t at = slot(labels[i]);
            while (number_[at] != 0) at = (at + 1) & mask_;
            label_[at] = labels[i];
            number_[at] = numbers[i];
        }
    }
    std::vector<std::uint64_t> label_;
    std::vector<Index> number_;
    std::size_t mask_ = 0;
    Index count_ = 0;
};

// The label that is ignored, in the type of the labels; none where that type cannot hold it.
template <class Label>
std::optional<Label> as_label(std::optional<std::int64_t> ignore_label) {
    if (!ignore_label) return std::nullopt;
    const auto label = static_cast<Label>(*ignore_label);
    const bool fits = (*ignore_label < 0) == (label < Label(0)) && static_cast<std::int64_t>(label) == *ignore_label;
    return fits ? std::make_optional(label) : std::nullopt;
}

// Numbers labels that are small enough to be their own numbers: none is above `largest`, unless they have changed since
// that was found. The ignored label gets the number behind the last.
template <class Index, class Label>
void number_directly(const Label* seg, std::size_t n, Index largest, Index shift, std::optional<Label> ignored,
                     Index* number, int threads) {
    parallel_ranges(n, std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        if (!ignored) {
            for (std::size_t i = begin; i < end; ++i) number[i] = std::min(static_cast<Index>(seg[i]), largest) + shift;
            return;
        }
        const Label of_ignored = *ignored;
        const Index behind = largest + shift + 1;
        for (std::size_t i = begin; i < end; ++i) {
            const Index here = std::min(static_cast<Index>(seg[i]), largest) + shift;
            number[i] = seg[i] == of_ignored ? behind : here;
        }
    });
}

// Numbers any labels in the order of their first nodes; returns how many there are. The ignored label gets the number
// that `number_of_ignored` is set to.
template <class Index, class Label>
Index number_by_table(const Label* seg, std::size_t n, Index shift, std::optional<Label> ignored, Index* number,
                      Index& number_of_ignored) {
    LabelTable<Index> table;
    if (ignored) number_of_ignored = table.number(static_cast<std::uint64_t>(*ignored)) + shift;
    const auto number_of = [&](Label label) {
        if (ignored && label == *ignored) return number_of_ignored;
        return label == Label(0) ? shift : static_cast<Index>(table.number(static_cast<std::uint64_t>(label)) + shift);
    };
    Label previous = 0;
    Index current = number_of(previous);
    in_steps(n, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const Label label = read_once(seg + i);
            if (label != previous) {
                previous = label;
                current = number_of(label);
            }
            number[i] = current;
        }
    });
    return table.count();
}

// Gives the unlabelled nodes, if there are any that are not ignored, a number of their own. The bytes of a mask that is not
// ours may hold anything.
template <class Index>
void mark_unlabelled(const bool* unlabelled, Labels<Index>& labels, int threads) {
    const auto* const bytes = reinterpret_cast<const unsigned char*>(unlabelled);
    const Index number = labels.count + 1, ignored = labels.ignored;
    std::atomic<bool> found{false};
    parallel_ranges(labels.of.size(), std::size_t{1} << 16, threads, [&](std::size_t begin, std::size_t end) {
        Index* const of = labels.of.data();
        bool any = false;
        for (std::size_t i = begin; i < end; ++i) {
            const bool here = (bytes[i] != 0) & ((ignored == 0) | (of[i] != ignored));
            of[i] = here ? number : of[i];
            any |= here;
        }
        if (any) found = true;
    });
    if (found) labels.unlabelled = labels.count = number;
}

// Throws std::invalid_argument where labels are negative, and says what takes them.
inline void refuse_negative(const LabelRange& range) {
    if (range.lowest >= 0) return;
    const std::string lowest = std::to_string(range.lowest);
    throw std::invalid_argument("seg must hold labels of at least 0, got " + lowest + "; with ignore_label=" + lowest +
                                " such voxels are ignored");
}

}  // namespace detail

// Throws std::invalid_argument for negative labels that are not ignored.
template <class Index>
Labels<Index> compact_labels(LabelArray seg, std::size_t n, const LabelOptions& options, int threads) {
    if (!options.ignore_background && options.ignore_label == 0)
        throw std::invalid_argument("ignore_label must not be 0 where ignore_background is False, got 0");
    const LabelRange range = range_of_labels(seg, n, options.ignore_label, threads);
    detail::refuse_negative(range);
    const std::optional<std::int64_t> ignore_label = range.any_ignored ? options.ignore_label : std::nullopt;
    const Index shift = options.ignore_background ? 0 : 1;  // label 0 becomes an object of its own
    Labels<Index> labels;
    labels.of.reset(n);
    Index* const number = labels.of.data();
    // Tables over all labels stay about as small as the volume, though not every number need occur.
    constexpr std::uint64_t spare_numbers = 256;
    seg.visit([&](const auto* of) {
        // As bits without a sign, so that this is compiled once for both: by now a negative label is the ignored one.
        using Label = std::remove_const_t<std::remove_pointer_t<decltype(of)>>;
        using Bits = std::make_unsigned_t<Label>;
        const auto* const bits = reinterpret_cast<const Bits*>(of);
        std::optional<Bits> ignored;
        if (const auto label = detail::as_label<Label>(ignore_label)) ignored = static_cast<Bits>(*label);
        if (range.largest < n + spare_numbers) {
            const Index largest = static_cast<Index>(range.largest);
            detail::number_directly(bits, n, largest, shift, ignored, number, threads);
            labels.count = largest + shift;
            if (ignored) labels.ignored = ++labels.count;
        } else {
            labels.count = detail::number_by_table(bits, n, shift, ignored, number, labels.ignored) + shift;
        }
    });
    if (options.unlabelled_mask != nullptr) detail::mark_unlabelled(options.unlabelled_mask, labels, threads);
    return labels;
}

#if !defined(MALIS_INSTANTIATE)
extern template Labels<std::uint32_t> compact_labels(LabelArray, std::size_t, const LabelOptions&, int);
extern template Labels<std::uint64_t> compact_labels(LabelArray, std::size_t, const LabelOptions&, int);
#endif

}  // namespace malis
