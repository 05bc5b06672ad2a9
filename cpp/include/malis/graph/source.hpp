// The interfaces between a graph and the algorithms that run over its edges. They are templates, so a compiler does not
// check them by name; this is the one place where they are written down.
//
// Source: the edges of a graph that take part in one pass. kruskal.hpp runs over it.
//     std::size_t chunks() const
//         How many pieces can be scanned independently of each other.
//     void scan(std::size_t chunk, Collector&) const
//         Hands the edges of one piece to a collector. Chunk after chunk, and within a chunk, edges come in the order of
//         their edge index: sorting relies on it to break ties.
//     double sample(Collector&) const
//         Hands a part of the edges to a collector, spread over the graph and the same at every call; returns how many
//         edges there are, about, for each one in that part.
//     GridScan (grid.hpp), EdgeListScan (edge_list.hpp) and ObjectScan (object_scan.hpp) are sources.
//
// Visit: which edges of a graph take part, and between which nodes. A scan over the graph itself asks it.
//     void row(edge, v, u, count, Collector&) const
//         For GridScan. Edges edge + i between voxels v + i and u + i, for i < count, all of one offset. Hands those that
//         take part to the collector, and may replace the voxels by other nodes, such as the regions that they are in.
//     void edge(edge, a, b, Collector&) const
//         For EdgeListScan, the same for one edge between nodes a and b.
//     A Visit compares affinities with `threshold` itself, by passes<Collector::strength>(affinity, threshold) or one of
//     the functions of select.hpp, so that edges which are not wanted cost no call.
//
// Collector: what becomes of the edges that a scan finds.
//     static constexpr Strength strength;  T threshold
//         Which affinities it takes (select.hpp). It is only handed edges whose affinity passes.
//     void reserve(std::size_t n)
//         Called before up to n edges are handed over.
//     void operator()(T affinity, Index edge, Index a, Index b)
//         Takes an edge between the nodes a and b.
//     void stretch(const T* aff, const T* aff_end, Index edge, Index a, Index b, Index count)
//         Only for ObjectScan, in place of the two above: of the edges edge + i between a + i and b + i, for i < count, with
//         affinities aff[i], takes those that pass. Affinities may be read up to aff_end.
//
// OnMerge: what an algorithm does for each edge of the spanning tree, as kruskal() finds them in order.
//     bool operator()(const Record<T, Index>& record, Index root_a, Index root_b)
//         The edge joins two sets, of which these are the roots. It has to join them (UnionFind::link), and returns
//         whether to go on.
//     void prefetch_root(Index root) const;  void prefetch_beyond(Index root) const
//         Optional, both or neither. Called some records ahead of a merge, in this order, so that memory which is kept for
//         a root, and memory that it leads to, is in cache by then.
//     void prefetch_edge(Index edge) const
//         Optional. Called some records ahead of one that may become a merge, where that writes to memory by the index of
//         its edge.
#pragma once
