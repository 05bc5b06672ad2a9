// What the library instantiates once, in cpp/src: affinities of float and double, indices of 32 and 64 bits. Without this
// every file that calls it would compile all passes again.
#pragma once

#include <cstdint>

#include "malis/edge_list.hpp"
#include "malis/grid.hpp"
#include "malis/loss.hpp"
#include "malis/pairs.hpp"
#include "malis/rand_curve.hpp"
#include "malis/segmentation.hpp"
#include "malis/tree.hpp"

#define MALIS_INSTANCES_OF_DECIDE(prefix, T, Index, Graph)                                                        \
    prefix template Buffer<detail::Decision<T, Index>> detail::decide<detail::Pass::positive, T, Index, Graph>(   \
        const Graph&, const T*, const Labels<Index>&, const PairOptions&, bool, bool, CountArrays);                                        \
    prefix template Buffer<detail::Decision<T, Index>> detail::decide<detail::Pass::negative, T, Index, Graph>(   \
        const Graph&, const T*, const Labels<Index>&, const PairOptions&, bool, bool, CountArrays);                                        \
    prefix template Buffer<detail::Decision<T, Index>> detail::decide<detail::Pass::unconstrained, T, Index, Graph>( \
        const Graph&, const T*, const Labels<Index>&, const PairOptions&, bool, bool, CountArrays);

#define MALIS_INSTANCES_OF_COUNT(prefix, T, Index, Sink) \
    prefix template class detail::ConstrainedCount<T, Index, Sink<T, Index>>;

#define MALIS_INSTANCES_OF_BLOCKS(prefix, T, Index)                                                                  \
    prefix template void detail::decide_on_blocks<T, Index>(const Grid<Index>&, const T*, const Labels<Index>&,     \
                                                            BlockShape, int, bool, bool,                            \
                                                            const detail::DeliverDecisions<T, Index>&);             \
    prefix template Buffer<TreeEdge<T, Index>> block_spanning_tree<T, Index>(const Grid<Index>&, const T*, BlockShape, int); \
    prefix template void block_watershed<T, Index>(const Grid<Index>&, const T*, BlockShape, const bool*, Index*, int); \
    prefix template Buffer<TreeEdge<T, Index>> detail::whole_spanning_tree<T, Index>(const Grid<Index>&, const T*, int);

#define MALIS_INSTANCES_OF_TREE(prefix, T, Index, Node)                                               \
    prefix template SpanningTree<T, Node> detail::spanning_tree<T, Node, Index>(const Grid<Index>&, const T*, int);

#define MALIS_INSTANCES_OF_SEGMENTATION(prefix, T, Index)                                                     \
    prefix template void detail::merge_small<T, Index>(const Grid<Index>&, const T*, Buffer<Index>&, std::int64_t, int); \
    prefix template Buffer<Index> detail::basins<T, Index>(const Grid<Index>&, const T*, T, int);                    \
    prefix template RandCurve<T> detail::rand_curve<T, Index>(const Grid<Index>&, const T*, const Labels<Index>&, int); \
    MALIS_INSTANCES_OF_TREE(prefix, T, Index, std::int32_t)                                                          \
    MALIS_INSTANCES_OF_TREE(prefix, T, Index, std::int64_t)

// Sinks and graphs for one type of affinities and one of indices.
#define MALIS_INSTANCES(prefix, T, Index)                          \
    MALIS_INSTANCES_OF_DECIDE(prefix, T, Index, Grid<Index>)       \
    MALIS_INSTANCES_OF_DECIDE(prefix, T, Index, EdgeList<Index>)   \
    MALIS_INSTANCES_OF_COUNT(prefix, T, Index, CountSink)          \
    MALIS_INSTANCES_OF_COUNT(prefix, T, Index, LossSink)           \
    MALIS_INSTANCES_OF_BLOCKS(prefix, T, Index)                    \
    MALIS_INSTANCES_OF_SEGMENTATION(prefix, T, Index)

namespace malis {

#if !defined(MALIS_INSTANTIATE)
MALIS_INSTANCES(extern, float, std::uint32_t)
MALIS_INSTANCES(extern, float, std::uint64_t)
MALIS_INSTANCES(extern, double, std::uint32_t)
MALIS_INSTANCES(extern, double, std::uint64_t)
#endif

}  // namespace malis
