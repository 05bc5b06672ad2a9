// The library without Python: plain pointers in C order, exact counts out. Everything else is in the headers below.
//
//     malis::Volume volume{{1, 512, 512}, {{0, -1, 0}, {0, 0, -1}}};
//     malis::count_pairs(volume, aff, seg, malis::PairOptions{}, pos, neg);
//
// The functions below throw std::invalid_argument for NaN and for negative labels. All keep no state, and give the same
// result on any number of threads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <mutex>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/affinity.hpp"
#include "malis/graph/edge_list.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/recognise_grid.hpp"
#include "malis/instances.hpp"
#include "malis/pairs/loss.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/pairs/pairs.hpp"
#include "malis/segmentation/chunk_components.hpp"
#include "malis/segmentation/components.hpp"
#include "malis/segmentation/connect_labels.hpp"
#include "malis/segmentation/rand_curve.hpp"
#include "malis/segmentation/spanning_tree.hpp"
#include "malis/segmentation/watershed.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/integers.hpp"
#include "malis/support/layout.hpp"
#include "malis/support/parallel.hpp"

namespace malis {

struct Volume {
    std::array<std::size_t, 3> shape;  // depth, height, width; leading ones where there are fewer axes
    std::vector<Offset> nhood;

    std::size_t voxels() const { return shape[0] * shape[1] * shape[2]; }
    std::size_t edges() const { return voxels() * nhood.size(); }
};

// Calls f with an unsigned zero of the narrowest index type that fits: 32 bits but for huge volumes.
template <class F>
auto with_index(std::size_t nodes, std::size_t edges_per_node, F&& f) {
    if (Grid<std::uint32_t>::fits(nodes, edges_per_node)) return f(std::uint32_t{0});
    return f(std::uint64_t{0});
}

template <class Index>
Grid<Index> make_grid(const Volume& volume) {
    return {static_cast<Index>(volume.shape[0]), static_cast<Index>(volume.shape[1]),
            static_cast<Index>(volume.shape[2]), volume.nhood};
}

// Throws std::invalid_argument that names the argument where a value is NaN or, if they are given, outside of bounds.
template <class T, bool bounded>
void check_values(const T* values, std::size_t n, const char* name, int threads, T low, T high) {
    const auto wrong = [low, high](T value) {
        // One comparison of two is enough for the other purpose: comparisons with NaN are false.
        return bounded ? !(value >= low) | !(value <= high) : value != value;
    };
    // As wide as a value, so that compilers look at several at once.
    using Flag = std::conditional_t<sizeof(T) == sizeof(std::uint32_t), std::uint32_t, std::uint64_t>;
    std::mutex mutex;
    std::size_t first = n;
    T worst = 0;
    parallel_ranges(n, std::size_t{1} << 17, threads, [&](std::size_t begin, std::size_t end) {
        for (std::size_t block = begin; block < end;) {
            const std::size_t stop = std::min(end, block + 4096);
            Flag any = 0;
            for (std::size_t i = block; i < stop; ++i) any |= wrong(values[i]) ? Flag{1} : Flag{0};
            for (std::size_t i = block; any != 0 && i < stop; ++i) {
                const T value = values[i];
                if (!wrong(value)) continue;
                const std::lock_guard<std::mutex> lock(mutex);
                if (i < first) {
                    first = i;
                    worst = value;
                }
                return;
            }
            block = stop;
        }
    });
    if (first == n) return;
    const std::string at = " at flat index " + std::to_string(first);
    if (worst != worst) throw std::invalid_argument(std::string(name) + " must not contain NaN, got NaN" + at);
    std::ostringstream message;
    message.precision(std::numeric_limits<T>::max_digits10);
    message << name << " must hold values from " << low << " to " << high << ", got " << worst << at;
    throw std::invalid_argument(message.str());
}

template <class T>
void check_nan(const T* values, std::size_t n, const char* name, int threads) {
    if constexpr (std::is_floating_point_v<T>) check_values<T, false>(values, n, name, threads, 0, 0);
}

// What a loss can be computed from: the cross entropy of an affinity has a logarithm of it and of what it lacks of 1.
template <class T>
void check_loss_values(const T* aff, std::size_t n, const LossOptions& loss, int threads) {
    if (loss.pointwise == Pointwise::cross_entropy && !loss.from_logits) {
        check_values<T, true>(aff, n, "aff", threads, 0, 1);
    } else {
        check_nan(aff, n, "aff", threads);
    }
}

namespace detail {

// The labels that the passes work on.
template <class Index>
Labels<Index> labels_of_volume(const Volume& volume, LabelArray seg, const PairOptions& options) {
    auto labels = compact_labels<Index>(seg, volume.voxels(), options, options.threads);
    if (options.connect_labels) {
        const Volume nearest{volume.shape, {{-1, 0, 0}, {0, -1, 0}, {0, 0, -1}}};
        connect_labels(make_grid<Index>(nearest), labels, options.threads);
    }
    return labels;
}

// Numbers the parts of unsigned labels, of which there must be at most `most`. Calls check() where the highest bit of a label
// is set.
template <class Label>
void number_parts(const Volume& volume, const Label* seg, Label* connected, std::uint64_t most, int threads,
                  const std::function<void()>& check) {
    with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
        using Index = decltype(index);
        const Grid<Index> grid = make_grid<Index>(volume);
        LabelRuns<Index> runs(grid, threads);
        if (runs.join(seg)) check();
        const Index parts = runs.number();
        if (static_cast<std::uint64_t>(parts) > most) {
            throw std::invalid_argument("seg must have a dtype that holds the numbers of its " + std::to_string(parts) +
                                        " connected parts");
        }
        runs.write(connected);
        return 0;
    });
}

}  // namespace detail

// connected[v]: the number, from 1 in the order of their first voxels, of the part of its label that v belongs to; parts
// are what edges between equal labels connect. Background stays 0. Throws std::invalid_argument for negative labels and
// where Label cannot hold the number of parts.
template <class Label>
void connect_labels(const Volume& volume, const Label* seg, Label* connected, int threads) {
    using Bits = std::make_unsigned_t<Label>;
    const std::function<void()> check = [&] { check_labels(seg, volume.voxels(), "seg", threads); };
    detail::number_parts(volume, reinterpret_cast<const Bits*>(seg), reinterpret_cast<Bits*>(connected),
                         static_cast<std::uint64_t>(std::numeric_limits<Label>::max()), threads, check);
}

// pos[e], neg[e]: the positive and negative pairs that edge e decides.
template <class T>
void count_pairs(const Volume& volume, const T* aff, LabelArray seg, const PairOptions& options, std::int64_t* pos,
                 std::int64_t* neg) {
    check_nan(aff, volume.edges(), "aff", options.threads);
    with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
        using Index = decltype(index);
        auto labels = detail::labels_of_volume<Index>(volume, seg, options);
        CountSink<T, Index> sink(pos, neg, volume.edges());
        sink.clear(options.threads);
        count_on_grid<T, Index>(make_grid<Index>(volume), aff, std::move(labels), options, sink);
        return 0;
    });
}

// Returns the loss; grad[e] is its derivative by aff[e]. With `layout` channels_last, grad is written in that layout, and
// aff, still with the channels first, may lie in the memory of grad.
template <class T>
double malis_loss(const Volume& volume, const T* aff, LabelArray seg, const PairOptions& options,
                  const LossOptions& loss, T* grad, Layout layout = Layout::channels_first) {
    check_loss_values(aff, volume.edges(), loss, options.threads);
    return with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
        using Index = decltype(index);
        auto labels = detail::labels_of_volume<Index>(volume, seg, options);
        LossSink<T, Index> sink(grad, volume.voxels(), volume.nhood.size(), loss, layout, options.threads);
        sink.clear(options.threads);
        const double value = count_on_grid<T, Index>(make_grid<Index>(volume), aff, std::move(labels), options, sink);
        sink.finish(options.threads);
        return value;
    });
}

// The loss of every sample of a batch, samples in parallel. `layout` is that of aff, grad and the mask of edges.
template <class T>
void malis_loss_batch(const Volume& volume, std::size_t samples, const T* aff, LabelArray seg,
                      const PairOptions& options, const LossOptions& loss, double* losses, T* grad,
                      Layout layout = Layout::channels_first) {
    const std::size_t voxels = volume.voxels(), channels = volume.nhood.size(), edges = volume.edges();
    const auto sample = [&](std::size_t i, int threads) {
        PairOptions of_sample = options;
        of_sample.threads = threads;
        if (options.edge_mask != nullptr) of_sample.edge_mask += i * edges;
        if (options.unlabelled_mask != nullptr) of_sample.unlabelled_mask += i * voxels;
        const T* sample_aff = aff + i * edges;
        const LabelArray sample_seg = seg + i * voxels;
        T* sample_grad = grad + i * edges;
        if (layout == Layout::channels_first) {
            losses[i] = malis_loss(volume, sample_aff, sample_seg, of_sample, loss, sample_grad);
            return;
        }
        // The memory of the gradient holds the affinities until it is needed itself.
        Buffer<bool> first_mask;
        to_channels_first(sample_aff, voxels, channels, sample_grad, threads);
        if (of_sample.edge_mask != nullptr) {
            first_mask.resize(edges);
            to_channels_first(of_sample.edge_mask, voxels, channels, first_mask.data(), threads);
            of_sample.edge_mask = first_mask.data();
        }
        losses[i] = malis_loss(volume, sample_grad, sample_seg, of_sample, loss, sample_grad, layout);
    };
    // One thread a sample is the best division of work; what does not divide evenly is divided inside.
    const std::size_t threads = static_cast<std::size_t>(std::max(1, options.threads));
    const std::size_t whole = samples / threads * threads;
    parallel_for(whole, options.threads, [&](std::size_t i, std::size_t) { sample(i, 1); });
    for (std::size_t i = whole; i < samples; ++i) sample(i, options.threads);
}

namespace detail {

template <class T, class Index>
void count_on_list(const EdgeList<Index>& list, const T* weights, LabelArray seg, const PairOptions& options,
                   std::int64_t* pos, std::int64_t* neg) {
    check_nan(weights, list.edges, "weights", options.threads);
    auto labels = compact_labels<Index>(seg, list.nodes, options, options.threads);
    CountSink<T, Index> sink(pos, neg, list.edges);
    sink.clear(options.threads);
    const auto grid = list.wide1 != nullptr
                          ? recognise_grid(list.wide1, list.wide2, list.edges, list.nodes, options.threads)
                          : recognise_grid(list.narrow1, list.narrow2, list.edges, list.nodes, options.threads);
    const bool want_positive = pos != nullptr, want_negative = neg != nullptr;
    if (grid) {
        count_on_grid<T, Index>({static_cast<Index>(grid->shape[0]), static_cast<Index>(grid->shape[1]),
                                 static_cast<Index>(grid->shape[2]), grid->nhood},
                                weights, std::move(labels), options, sink, want_positive, want_negative);
        return;
    }
    count_on_graph<T, Index>(list, weights, std::move(labels), options, want_positive, want_negative, sink);
}

}  // namespace detail

// The same counts on an explicit graph: edge e joins node1[e] and node2[e]; one that leads outside joins nothing. Where
// pos or neg is null, these are not counted.
template <class T, class Node>
void count_edge_pairs(const Node* node1, const Node* node2, std::size_t edges, const T* weights, LabelArray seg,
                      std::size_t nodes, const PairOptions& options, std::int64_t* pos, std::int64_t* neg) {
    with_index(std::max(nodes, edges), 1, [&](auto index) {
        using Index = decltype(index);
        detail::count_on_list<T, Index>({node1, node2, edges, nodes}, weights, seg, options, pos, neg);
        return 0;
    });
}

// What follows takes affinities as float, double or std::uint8_t: bytes of 0 to 255 for 0 to 1, which give what the same
// affinities as float give. Thresholds are in 0 to 1.

// The scores of the components at every affinity as threshold.
template <class T>
RandCurve<AffinityValue<T>> rand_curve(const Volume& volume, const T* aff, LabelArray seg, int threads) {
    check_nan(aff, volume.edges(), "aff", threads);
    return with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
        using Index = decltype(index);
        const auto labels = compact_labels<Index>(seg, volume.voxels(), LabelOptions{}, threads);
        const Grid<Index> grid = make_grid<Index>(volume);
        return detail::rand_curve<AffinityValue<T>, Index>(grid, aff, labels, blocks_that_pay(grid), threads);
    });
}

// Node, std::int32_t or std::int64_t, has to hold the number of every voxel.
template <class Node, class T>
SpanningTree<AffinityValue<T>, Node> maximum_spanning_tree(const Volume& volume, const T* aff, int threads) {
    check_nan(aff, volume.edges(), "aff", threads);
    return with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
        using Index = decltype(index);
        return detail::spanning_tree<AffinityValue<T>, Node, Index>(make_grid<Index>(volume), aff, threads);
    });
}

namespace detail {

// Calls f with what says which edges connect: those of at least `threshold`, or without one those whose affinity is not
// about 0.
template <class T, class F>
auto with_connecting(std::optional<double> threshold, F&& f) {
    // In the precision of the affinities, as NumPy compares them: 0.7f reaches 0.7.
    if constexpr (std::is_same_v<T, std::uint8_t>) {
        return f(AtLeast<T>::value(threshold ? static_cast<float>(*threshold) : NotZero<float>::about_zero));
    } else {
        return threshold ? f(AtLeast<T>{static_cast<T>(*threshold)}) : f(NotZero<T>{});
    }
}

}  // namespace detail

// Connected components of the edges of at least `threshold`, or without one of those whose affinity is not about 0. seg
// holds 1.. by decreasing size afterwards; returns the number of voxels of every label, 0 included.
template <class T, class Label>
std::vector<std::int64_t> components(const Volume& volume, const T* aff, std::optional<double> threshold,
                                     std::int64_t size_thresh, Label* seg, int threads, Small small = Small::drop) {
    check_nan(aff, volume.edges(), "aff", threads);
    return with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
        const auto grid = make_grid<decltype(index)>(volume);
        return detail::with_connecting<T>(threshold, [&](auto connects) {
            return components(grid, aff, connects, size_thresh, seg, threads, small);
        });
    });
}

// The same of a chunk of a larger volume, of which edges lead out from the voxels `open`, whose components stay in any
// case. Index is the type that with_index() chooses.
template <class Index, class T>
ChunkComponents<Index> chunk_components(const Volume& volume, const T* aff, std::optional<double> threshold,
                                        const std::int64_t* open, std::size_t opens, std::int64_t size_thresh,
                                        int threads) {
    check_nan(aff, volume.edges(), "aff", threads);
    const auto grid = make_grid<Index>(volume);
    return detail::with_connecting<T>(threshold, [&](auto connects) {
        return chunk_components(detail::join_components(grid, aff, connects, threads), open, opens, size_thresh);
    });
}

// The maximin watershed without seeds; seg and the result as those of components().
template <class T, class Label>
std::vector<std::int64_t> watershed_basins(const Volume& volume, const T* aff, double threshold,
                                           std::int64_t size_thresh, Label* seg, int threads) {
    check_nan(aff, volume.edges(), "aff", threads);
    return with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
        using Index = decltype(index);
        using Value = AffinityValue<T>;
        return watershed_basins<Value, Index>(make_grid<Index>(volume), aff, static_cast<Value>(threshold), size_thresh,
                                              seg, threads);
    });
}

// The seeded maximin watershed along edges of at least `threshold`; seg enters with the seeds (0: none).
template <class T, class Label>
void watershed(const Volume& volume, const T* aff, double threshold, Label* seg, int threads) {
    check_nan(aff, volume.edges(), "aff", threads);
    check_labels(seg, volume.voxels(), "seeds", threads);
    with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
        using Index = decltype(index);
        using Value = AffinityValue<T>;
        watershed<Value, Index>(make_grid<Index>(volume), aff, static_cast<Value>(threshold), volume.voxels(), seg,
                                threads);
        return 0;
    });
}

// The same on an explicit graph, as that of count_edge_pairs().
template <class T, class Node, class Label>
void edge_watershed(const Node* node1, const Node* node2, std::size_t edges, const T* weights, std::size_t nodes,
                    Label* seg, int threads) {
    check_nan(weights, edges, "weights", threads);
    check_labels(seg, nodes, "seeds", threads);
    with_index(std::max(nodes, edges), 1, [&](auto index) {
        using Index = decltype(index);
        constexpr T every = -std::numeric_limits<T>::infinity();
        watershed<T, Index>(EdgeList<Index>{node1, node2, edges, nodes}, weights, every, nodes, seg, threads);
        return 0;
    });
}

#if !defined(MALIS_INSTANTIATE)
MALIS_PUBLIC_INSTANCES(extern, float)
MALIS_PUBLIC_INSTANCES(extern, double)
MALIS_STORED_INSTANCES(extern, std::uint8_t)
MALIS_ALL_LABEL_INSTANCES(extern)
MALIS_ALL_TREE_INSTANCES(extern)
#endif

}  // namespace malis
