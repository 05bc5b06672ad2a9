// What the library compiles once, in cpp/src: affinities of float and double, indices of 32 and 64 bits. Without this
// every file that calls it would compile all passes again. Functions that are declared so must be neither inline nor
// members that are defined within their class: those are compiled again wherever they could be inlined.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/affinity.hpp"
#include "malis/graph/edge_list.hpp"
#include "malis/graph/grid.hpp"
#include "malis/pairs/loss.hpp"
#include "malis/pairs/pairs.hpp"
#include "malis/segmentation/chunk_components.hpp"
#include "malis/segmentation/components.hpp"
#include "malis/segmentation/connect_labels.hpp"
#include "malis/segmentation/large_components.hpp"
#include "malis/segmentation/rand_curve.hpp"
#include "malis/segmentation/settle_counts.hpp"
#include "malis/segmentation/spanning_tree.hpp"
#include "malis/segmentation/watershed.hpp"
#include "malis/support/integers.hpp"

#define MALIS_COUNT_INSTANCES(prefix, T, Index)                                                                      \
    prefix template double count_on_grid(const Grid<Index>&, const T*, Labels<Index>, const PairOptions&,            \
                                         Sink<T, Index>&, bool, bool);                                               \
    prefix template double count_on_graph(const EdgeList<Index>&, const T*, Labels<Index>, const PairOptions&, bool, \
                                          bool, Sink<T, Index>&);

#define MALIS_SEGMENTATION_INSTANCES(prefix, T, Index)                                                              \
    prefix template Buffer<Index> detail::join_components(const Grid<Index>&, const T*, AtLeast<T>, int);           \
    prefix template Buffer<Index> detail::join_components(const Grid<Index>&, const T*, NotZero<T>, int);           \
    prefix template void detail::merge_small(const Grid<Index>&, Affinities<T>, Buffer<Index>&, std::int64_t, int); \
    prefix template Buffer<Index> detail::basins(const Grid<Index>&, Affinities<T>, T, int);                        \
    prefix template void detail::flood_from_seeds(const Grid<Index>&, Affinities<T>, Rank<T>, Buffer<Index>&, int); \
    prefix template void detail::flood_from_seeds(const EdgeList<Index>&, Affinities<T>, Rank<T>, Buffer<Index>&,   \
                                                  int);                                                             \
    prefix template RandCurve<T> detail::rand_curve(const Grid<Index>&, Affinities<T>, const Labels<Index>&,        \
                                                    std::optional<BlockShape>, int);                                \
    prefix template Buffer<TreeEdge<T, Index>> detail::spanning_tree_edges(const Grid<Index>&, Affinities<T>, int);

// For one type of affinities and one of indices.
#define MALIS_INSTANCES(prefix, T, Index)   \
    MALIS_COUNT_INSTANCES(prefix, T, Index) \
    MALIS_SEGMENTATION_INSTANCES(prefix, T, Index)

// For one type of indices, and labels of one unsigned type.
#define MALIS_SEED_INSTANCES(prefix, Index, Bits)                                           \
    prefix template Buffer<Index> detail::find_seeds<Index>(const Bits*, std::size_t, int); \
    prefix template void detail::label_from_seeds(const Buffer<Index>&, Bits*, int);

// For one type of indices.
#define MALIS_NUMBERING_INSTANCES(prefix, Index)                                                                  \
    prefix template void connect_labels(const Grid<Index>&, Labels<Index>&, int);                                 \
    prefix template Buffer<Index> detail::join_components(const Grid<Index>&, const std::uint8_t*,                \
                                                          AtLeast<std::uint8_t>, int);                            \
    prefix template std::vector<std::int64_t> number_components(Index*, std::size_t, std::int64_t, std::int32_t*, \
                                                                int);                                             \
    prefix template std::vector<std::int64_t> number_components(Index*, std::size_t, std::int64_t, std::int64_t*, \
                                                                int);                                             \
    prefix template ChunkComponents<Index> chunk_components(Buffer<Index>, const std::int64_t*, std::size_t,      \
                                                            std::int64_t);                                        \
    prefix template std::vector<std::int64_t> label_chunk(const ChunkComponents<Index>&, std::uint16_t*);         \
    prefix template std::vector<std::int64_t> label_chunk(const ChunkComponents<Index>&, std::uint32_t*);         \
    prefix template void list_components(const EdgeList<Index>&, const bool*, std::int64_t*);                     \
    prefix template void settle_edges(const EdgeList<Index>&, const bool*, Settled*);                             \
    MALIS_SEED_INSTANCES(prefix, Index, std::uint8_t)                                                             \
    MALIS_SEED_INSTANCES(prefix, Index, std::uint16_t)                                                            \
    MALIS_SEED_INSTANCES(prefix, Index, std::uint32_t)                                                            \
    MALIS_SEED_INSTANCES(prefix, Index, std::uint64_t)

// What is called with indices of 64 bits alone.
#define MALIS_WIDE_INSTANCES(prefix)                                                                                   \
    prefix template void seg_to_affgraph(const Grid<std::uint64_t>&, LabelArray, std::int32_t*, int);                  \
    prefix template void settle_counts(const EdgeList<std::uint64_t>&, const bool*, const NodeEntries&, std::uint64_t, \
                                       std::uint64_t, std::uint64_t, const SettledCounts&);

// For labels of one type.
#define MALIS_LABEL_INSTANCES(prefix, Label) \
    prefix template void connect_labels(const Volume&, const Label*, Label*, int);

#define MALIS_ALL_LABEL_INSTANCES(prefix)        \
    MALIS_LABEL_INSTANCES(prefix, std::uint8_t)  \
    MALIS_LABEL_INSTANCES(prefix, std::int8_t)   \
    MALIS_LABEL_INSTANCES(prefix, std::uint16_t) \
    MALIS_LABEL_INSTANCES(prefix, std::int16_t)  \
    MALIS_LABEL_INSTANCES(prefix, std::uint32_t) \
    MALIS_LABEL_INSTANCES(prefix, std::int32_t)  \
    MALIS_LABEL_INSTANCES(prefix, std::uint64_t) \
    MALIS_LABEL_INSTANCES(prefix, std::int64_t)

// What malis.hpp offers for affinities that are stored as T, bytes among them, and labels or nodes of one type.
#define MALIS_STORED_INSTANCES_OF(prefix, T, Label)                                                                    \
    prefix template std::vector<std::int64_t> components(const Volume&, const T*, std::optional<double>, std::int64_t, \
                                                         Label*, int, Small);                                          \
    prefix template std::vector<std::int64_t> watershed_basins(const Volume&, const T*, double, std::int64_t, Label*,  \
                                                               int);                                                   \
    prefix template SpanningTree<AffinityValue<T>, Label> maximum_spanning_tree<Label, T>(const Volume&, const T*, int);

#define MALIS_STORED_INSTANCES(prefix, T)              \
    MALIS_STORED_INSTANCES_OF(prefix, T, std::int32_t) \
    MALIS_STORED_INSTANCES_OF(prefix, T, std::int64_t) \
    prefix template RandCurve<AffinityValue<T>> rand_curve(const Volume&, const T*, LabelArray, int);

// What reads a tree, with labels of one type.
#define MALIS_TREE_INSTANCES(prefix, Index, Label)                                     \
    prefix template std::vector<std::vector<std::int64_t>> segment_tree<Index, Label>( \
        const TreeView&, const std::vector<double>&, std::int64_t, const std::vector<Label*>&, int);

// What reads a tree, for nodes of one type.
#define MALIS_NODE_INSTANCES(prefix, Index, Node)                                                                    \
    prefix template LargeComponents<Node> large_components<Index, Node>(const TreeView&, const std::vector<double>&, \
                                                                        std::int64_t);                               \
    prefix template void smaller_sizes<Index, Node>(const TreeView&, Node*);

#define MALIS_ALL_TREE_INSTANCES(prefix)                                           \
    prefix template void linkage<std::uint32_t>(const TreeView&, double, double*); \
    prefix template void linkage<std::uint64_t>(const TreeView&, double, double*); \
    MALIS_TREE_INSTANCES(prefix, std::uint32_t, std::int32_t)                      \
    MALIS_TREE_INSTANCES(prefix, std::uint64_t, std::int32_t)                      \
    MALIS_TREE_INSTANCES(prefix, std::uint64_t, std::int64_t)                      \
    MALIS_NODE_INSTANCES(prefix, std::uint32_t, std::int32_t)                      \
    MALIS_NODE_INSTANCES(prefix, std::uint32_t, std::int64_t)                      \
    MALIS_NODE_INSTANCES(prefix, std::uint64_t, std::int32_t)                      \
    MALIS_NODE_INSTANCES(prefix, std::uint64_t, std::int64_t)

// What malis.hpp offers, which chooses the type of indices.
#define MALIS_PUBLIC_INSTANCES(prefix, T)                                                                              \
    MALIS_STORED_INSTANCES(prefix, T)                                                                                  \
    prefix template void check_values<T, false>(const T*, std::size_t, const char*, int, T, T);                        \
    prefix template void check_values<T, true>(const T*, std::size_t, const char*, int, T, T);                         \
    prefix template Integers to_integers(const T*, std::size_t, std::int32_t*, int);                                   \
    prefix template void count_pairs(const Volume&, const T*, LabelArray, const PairOptions&, std::int64_t*,           \
                                     std::int64_t*);                                                                   \
    prefix template double malis_loss(const Volume&, const T*, LabelArray, const PairOptions&, const LossOptions&, T*, \
                                      Layout);                                                                         \
    prefix template void malis_loss_batch(const Volume&, std::size_t, const T*, LabelArray, const PairOptions&,        \
                                          const LossOptions&, double*, T*, Layout);                                    \
    prefix template void detail::count_on_list(const EdgeList<std::uint32_t>&, const T*, LabelArray,                   \
                                               const PairOptions&, std::int64_t*, std::int64_t*);                      \
    prefix template void detail::count_on_list(const EdgeList<std::uint64_t>&, const T*, LabelArray,                   \
                                               const PairOptions&, std::int64_t*, std::int64_t*);

namespace malis {

#if !defined(MALIS_INSTANTIATE)
MALIS_INSTANCES(extern, float, std::uint32_t)
MALIS_INSTANCES(extern, float, std::uint64_t)
MALIS_INSTANCES(extern, double, std::uint32_t)
MALIS_INSTANCES(extern, double, std::uint64_t)
MALIS_NUMBERING_INSTANCES(extern, std::uint32_t)
MALIS_NUMBERING_INSTANCES(extern, std::uint64_t)
MALIS_WIDE_INSTANCES(extern)
#endif

}  // namespace malis
