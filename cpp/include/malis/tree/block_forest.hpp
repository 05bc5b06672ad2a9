// Maximum spanning trees of volumes, block by block.
//
// Kruskal's algorithm over a whole volume waits for memory at every edge and has one thread. Here a volume is divided
// into blocks that fit in cache, which are solved on their own, on all threads, and what they leave open is solved
// together afterwards.
//
//        block      block                 Edges of a block join its voxels in their order, as if there was nothing else.
//     +----------+----------+             That is right for a component as long as no edge that leaves the block (a
//     | a--b  c  | x     y  |             *face edge*) comes earlier than what joins it: it is *closed*, and just what
//     |       \  |          |             it is in the whole volume at that place of the order. From its strongest face
//     |        d-|-z        |             edge on it is *open*: there may be more of it outside.
//     +----------+----------+
//
// So, of an edge of a block that joins two of its components:
//
//     both closed        it is an edge of the whole's tree, and what it joins is known completely
//     one of them open   it is an edge of the whole's tree, as the strongest that leaves the closed one; what the open
//                        one holds by then is not known
//     both open          it is an edge of the whole's tree unless a way outside joins the two before
//
// An edge within a component of its block is in no tree. An open component is a *node* of the graph that remains, with
// the face edges and the edges of the last kind between nodes: some hundredths of the edges of the volume.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/grid.hpp"
#include "malis/graph/select.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/parallel.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/sort.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

struct BlockShape {
    std::size_t depth, height, width;
};

// The share of edges that has to lie within blocks.
constexpr double least_inside = 0.75;
// As the edges of a block have numbers of 32 bits, of which 15 are for the voxel.
constexpr std::size_t most_block_offsets = std::size_t{1} << 17;

namespace detail {

// Numbers of the voxels, and of the open components, of one block.
using Local = std::uint16_t;
constexpr std::size_t block_voxels = std::size_t{1} << 15;
constexpr Local no_node = static_cast<Local>(-1);

}  // namespace detail

// Blocks of at most 2^15 voxels, as near to cubes as the volume allows: these have the fewest face edges. Rows are as
// long as they can be without that, for what goes along rows.
inline BlockShape block_shape(std::size_t depth, std::size_t height, std::size_t width) {
    const auto bits_of = [](std::size_t n) {
        unsigned bits = 0;
        while ((std::size_t{1} << bits) < n) ++bits;
        return bits;
    };
    const unsigned most[3] = {bits_of(depth), bits_of(height), bits_of(width)};
    unsigned bits[3] = {0, 0, 0};
    for (unsigned left = 15; left > 0; --left) {
        int shortest = -1;
        for (int axis = 2; axis >= 0; --axis)
            if (bits[axis] < most[axis] && (shortest < 0 || bits[axis] < bits[shortest])) shortest = axis;
        if (shortest < 0) break;
        ++bits[shortest];
    }
    return {std::size_t{1} << bits[0], std::size_t{1} << bits[1], std::size_t{1} << bits[2]};
}

// Whether blocks pay: most edges have to lie within one.
template <class Index>
bool few_face_edges(const Grid<Index>& grid, BlockShape shape) {
    if (grid.steps.size() > most_block_offsets) return false;
    double inside = 0, all = 0;
    for (const auto& step : grid.steps) {
        if (!step.decides) continue;
        const auto share = [](std::int64_t offset, std::size_t size, std::size_t block) {
            const double o = static_cast<double>(offset < 0 ? -offset : offset);
            return block >= size ? 1.0 : std::max(0.0, 1 - o / static_cast<double>(block));
        };
        inside += share(step.offset.z, grid.depth, shape.depth) * share(step.offset.y, grid.height, shape.height) *
                  share(step.offset.x, grid.width, shape.width);
        all += 1;
    }
    return inside >= least_inside * all;
}

// The shape of blocks where these pay, none where they do not.
template <class Index>
std::optional<BlockShape> blocks_that_pay(const Grid<Index>& grid) {
    const BlockShape shape = block_shape(grid.depth, grid.height, grid.width);
    if (!few_face_edges(grid, shape)) return std::nullopt;
    return shape;
}

// A volume, divided into blocks.
//
// A voxel of a block has the number row << row_bits | x, with rows counted over y and then z, so that rows of a block
// may be shorter than those that numbers have room for, and an offset is a distance between numbers.
template <class T, class Index>
class Blocks {
  public:
    using Local = detail::Local;
    struct Block {
        Index z, y, x;  // its first voxel
        Index depth, height, width;
        std::size_t voxels() const { return static_cast<std::size_t>(depth) * height * width; }
    };

    Blocks(const Grid<Index>& grid, Affinities<T> aff, BlockShape shape)
        : grid(grid),
          aff(aff),
          depth_(static_cast<Index>(std::min<std::size_t>(shape.depth, grid.depth))),
          height_(static_cast<Index>(std::min<std::size_t>(shape.height, grid.height))),
          width_(static_cast<Index>(std::min<std::size_t>(shape.width, grid.width))),
          along_z_(count(grid.depth, depth_)),
          along_y_(count(grid.height, height_)),
          along_x_(count(grid.width, width_)) {
        while ((std::size_t{1} << row_bits) < width_) ++row_bits;
    }

    std::size_t size() const { return static_cast<std::size_t>(along_z_) * along_y_ * along_x_; }
    Block operator[](std::size_t i) const {
        const Index x = static_cast<Index>(i % along_x_), rows = static_cast<Index>(i / along_x_);
        const Index y = rows % along_y_, z = rows / along_y_;
        Block b{z * depth_, y * height_, x * width_, depth_, height_, width_};
        b.depth = std::min<Index>(b.depth, grid.depth - b.z);
        b.height = std::min<Index>(b.height, grid.height - b.y);
        b.width = std::min<Index>(b.width, grid.width - b.x);
        return b;
    }
    // How many numbers the voxels of a block may have: some numbers have no voxel.
    std::size_t numbers(const Block& b) const { return static_cast<std::size_t>(b.depth * b.height) << row_bits; }

    std::size_t block_of(Index z, Index y, Index x) const {
        return (static_cast<std::size_t>(z / depth_) * along_y_ + y / height_) * along_x_ + x / width_;
    }
    // The number of a voxel in its block.
    Local number(Index z, Index y, Index x) const {
        const Index first_y = y / height_ * height_;
        const Index height = std::min<Index>(height_, grid.height - first_y);
        return static_cast<Local>(((z % depth_ * height + (y - first_y)) << row_bits) | (x % width_));
    }

    // Calls f(row, z, y) for every row of a block: its number and where it lies in the volume.
    template <class F>
    static void each_row(const Block& b, F&& f) {
        Index row = 0;
        for (Index z = b.z; z < b.z + b.depth; ++z)
            for (Index y = b.y; y < b.y + b.height; ++y) f(row++, z, y);
    }

    // Calls f(v, edge, z, y, x) for every edge of offset k that leaves the block: the number of its voxel inside and where
    // the other lies. Either the edges that voxels inside own, or with `incoming` those of voxels outside.
    template <class F>
    void each_face_edge(const Block& b, std::size_t k, bool incoming, F&& f) const {
        const auto& step = grid.steps[k];
        if (!step.decides) return;
        const std::int64_t sign = incoming ? -1 : 1;
        const std::int64_t dz = sign * step.offset.z, dy = sign * step.offset.y, dx = sign * step.offset.x;
        const Index channel = static_cast<Index>(k) * grid.voxels;
        each_row(b, [&](Index row, Index z, Index y) {
            const std::int64_t oz = static_cast<std::int64_t>(z) + dz, oy = static_cast<std::int64_t>(y) + dy;
            if (oz < 0 || oy < 0 || oz >= static_cast<std::int64_t>(grid.depth) ||
                oy >= static_cast<std::int64_t>(grid.height))
                return;
            const auto within = [](std::int64_t at, Index begin, Index size) {
                const auto from = static_cast<std::int64_t>(begin), count = static_cast<std::int64_t>(size);
                return at >= from && at < from + count;
            };
            const bool inside = within(oz, b.z, b.depth) && within(oy, b.y, b.height);
            const std::int64_t first = b.x, last = static_cast<std::int64_t>(b.x) + b.width;
            const auto stretch = [&](std::int64_t from, std::int64_t to) {  // x of the voxels inside
                from = std::max<std::int64_t>({from, first, -dx});
                to = std::min<std::int64_t>({to, last, static_cast<std::int64_t>(grid.width) - dx});
                for (std::int64_t x = from; x < to; ++x) {
                    const Index v = (z * grid.height + y) * grid.width + static_cast<Index>(x);
                    const Index edge = channel + (incoming ? v - step.distance : v);
                    f(static_cast<Local>((row << row_bits) | static_cast<Index>(x - first)), edge,
                      static_cast<Index>(oz), static_cast<Index>(oy), static_cast<Index>(x + dx));
                }
            };
            if (!inside) {
                stretch(first, last);
            } else {
                stretch(first, std::min(last, first - dx));
                stretch(std::max(first, last - dx), last);
            }
        });
    }

    // The rank of the first edge that leaves the block from each voxel, by number; `never` where there is none.
    void find_first_face_edges(const Block& b, Buffer<Rank<T>>& first) const {
        first.reset(numbers(b));
        std::fill(first.begin(), first.end(), never);
        for (std::size_t k = 0; k < grid.steps.size(); ++k) {
            for (const bool incoming : {false, true}) {
                each_face_edge(b, k, incoming, [&](Local v, Index edge, Index, Index, Index) {
                    // Before `never` whatever is read, or there would be no node for it.
                    first[v] = std::min({first[v], to_rank(aff[edge]), never - 1});
                });
            }
        }
    }

    static constexpr Rank<T> never = std::numeric_limits<Rank<T>>::max();  // later than any affinity

    const Grid<Index>& grid;
    const Affinities<T> aff;
    unsigned row_bits = 0;

  private:
    static Index count(Index size, Index block) { return (size + block - 1) / block; }
    Index depth_, height_, width_;
    Index along_z_, along_y_, along_x_;
};

// One block at a time: its edges in order, as far as they join components of it.
template <class T, class Index>
class BlockKruskal {
  public:
    using Local = detail::Local;
    using Block = typename Blocks<T, Index>::Block;

    explicit BlockKruskal(const Blocks<T, Index>& blocks) : blocks_(blocks) {}

    void begin(const Block& block) {
        block_ = block;
        sets.reset(blocks_.numbers(block));
        left_ = block.voxels();
        first_of_row_.clear();
        Blocks<T, Index>::each_row(block, [&](Index, Index z, Index y) {
            first_of_row_.push_back((z * blocks_.grid.height + y) * blocks_.grid.width + block.x);
        });
        distance_.clear();
        for (const auto& step : blocks_.grid.steps) {
            distance_.push_back(
                static_cast<std::int32_t>((step.offset.z * static_cast<std::int64_t>(block.height) + step.offset.y) *
                                              (std::int64_t{1} << blocks_.row_bits) +
                                          step.offset.x));
        }
    }

    const Block& block() const { return block_; }

    // Where a voxel and an edge of the block are in the volume.
    Index voxel(std::uint32_t v) const {
        return first_of_row_[v >> blocks_.row_bits] + (v & ((1u << blocks_.row_bits) - 1));
    }
    Index edge(std::uint32_t e) const {
        return static_cast<Index>(e >> bits) * blocks_.grid.voxels + voxel(e & (detail::block_voxels - 1));
    }

    // Calls on_join(rank, edge, v, u, a, b) for every edge, in order, of which the ends v and u are in different sets a
    // and b. It has to join them. Edges of a rank above `last` may be left out.
    template <class OnJoin>
    void run(OnJoin&& on_join, Rank<T> last = std::numeric_limits<Rank<T>>::max()) {
        constexpr Rank<T> all = std::numeric_limits<Rank<T>>::max();
        if (left_ < 2) return;
        // As in kruskal(): the strongest edges first, about as many as there are voxels, then those of the others that
        // still lead from one component to another.
        const Rank<T> first = std::min(last, threshold());
        collect<detail::Strength::strong>(first);
        merge(on_join);
        if (first == last || first == all || left_ < 2) return;
        collect<detail::Strength::weak>(first);
        while (!keys_.empty() && left_ > 1) {
            const Rank<T> next = std::min(last, next_threshold());
            later_.reset(keys_.size() + 1);
            std::size_t now = 0, later = 0;
            for (std::size_t i = 0; i < keys_.size(); ++i) {
                const Key<T> key = keys_[i];
                const bool is_now = key.rank() <= next;
                keys_[now] = key;
                now += is_now;
                later_[later] = key;
                later += !is_now;
            }
            keys_.resize(now);
            later_.resize(later);
            merge(on_join);
            if (next == last) return;
            std::size_t kept = 0;
            keys_.reset(later + 1);
            for (std::size_t i = 0; i < later; ++i) {
                const Key<T> key = later_[i];
                const std::uint32_t v = key.at() & (detail::block_voxels - 1);
                keys_[kept] = key;
                kept += sets.find(static_cast<Local>(v)) != sets.find(other(key.at()));
            }
            keys_.resize(kept);
        }
    }

    // To be called by on_join.
    Local link(Local a, Local b) {
        --left_;
        return sets.link(a, b);
    }

    UnionFind<Local> sets;

  private:
    static constexpr unsigned bits = 15;

    Local other(std::uint32_t e) const {
        return static_cast<Local>(static_cast<std::int32_t>(e & (detail::block_voxels - 1)) + distance_[e >> bits]);
    }

    // Calls f(k, edge, v, u, count) for edges of offset k within the block: edge + i of the volume, from voxel v + i to u + i.
    template <class F>
    void each_stretch(F&& f) const {
        const auto& grid = blocks_.grid;
        for (std::size_t k = 0; k < grid.steps.size(); ++k) {
            if (!grid.steps[k].decides) continue;
            const auto& offset = grid.steps[k].offset;
            const auto range = [](std::int64_t offset, std::int64_t size, std::int64_t& from, std::int64_t& to) {
                from = std::max<std::int64_t>(0, -offset);
                to = std::min<std::int64_t>(size, size - offset);
            };
            std::int64_t z0, z1, y0, y1, x0, x1;
            range(offset.z, block_.depth, z0, z1);
            range(offset.y, block_.height, y0, y1);
            range(offset.x, block_.width, x0, x1);
            if (x0 >= x1) continue;
            const Index channel = static_cast<Index>(k) * grid.voxels + static_cast<Index>(x0);
            for (std::int64_t z = z0; z < z1; ++z) {
                for (std::int64_t y = y0; y < y1; ++y) {
                    const std::size_t row = static_cast<std::size_t>(z * static_cast<std::int64_t>(block_.height) + y);
                    const std::uint32_t v =
                        static_cast<std::uint32_t>((row << blocks_.row_bits) + static_cast<std::size_t>(x0));
                    f(k, channel + first_of_row_[row], v,
                      static_cast<std::uint32_t>(static_cast<std::int32_t>(v) + distance_[k]),
                      static_cast<std::size_t>(x1 - x0));
                }
            }
        }
    }

    // Collects the keys of ranks up to `first`, or those of the ranks that follow. Affinities are read twice, and another
    // thread may change them in between: ranks are kept on their side all the same, so that on_join gets them in order.
    template <detail::Strength strength>
    void collect(Rank<T> first) {
        using detail::Strength;
        constexpr Rank<T> all = std::numeric_limits<Rank<T>>::max();
        const T threshold = first == all ? -std::numeric_limits<T>::infinity() : from_rank<T>(first);
        const Local* const root = sets.roots();
        typename Affinities<T>::Room room;
        const T* const aff_end = blocks_.aff.readable_end(blocks_.grid.edges(), room);
        std::size_t size = 0;
        each_stretch([&](std::size_t k, Index edge, std::uint32_t v, std::uint32_t u, std::size_t count) {
            if (size + count > keys_.capacity()) {
                keys_.resize(size);
                keys_.reserve(size + count);
            }
            Key<T>* to = keys_.data() + size;
            const std::uint32_t e = static_cast<std::uint32_t>(k << bits) + v;
            for (std::size_t i = 0; i < count; i += 64) {
                const std::size_t n = std::min<std::size_t>(64, count - i);
                const T* const aff = blocks_.aff.read(edge + i, n, room);
                std::uint64_t selected = strength == Strength::strong
                                             ? detail::select_passing<Strength::strong>(aff, aff_end, threshold, n)
                                             : detail::select_different<Strength::weak>(root + v + i, root + u + i, aff,
                                                                                        aff_end, threshold, n);
                for (; selected != 0; selected &= selected - 1) {
                    const unsigned at = detail::lowest_bit(selected);
                    const Rank<T> rank = to_rank(aff[at]);
                    const Rank<T> kept =
                        strength == Strength::strong ? std::min(rank, first) : std::max(rank, first + 1);
                    *to++ = Key<T>(kept, e + static_cast<unsigned>(i) + at);
                }
            }
            size = static_cast<std::size_t>(to - keys_.data());
        });
        keys_.resize(size);
    }

    // Sorts the keys and takes them in order.
    template <class OnJoin>
    void merge(OnJoin& on_join) {
        const std::size_t n = keys_.size();
        if (n == 0) return;
        sorted_.reset(6 * n);
        detail::sort_keys<T>(detail::KeyItems<T>{keys_.data()}, n, sorted_.data(), counts_);
        for (std::size_t i = 0; i < n; ++i) {
            const std::uint32_t e = sorted_[i].at();
            const Local v = static_cast<Local>(e & (detail::block_voxels - 1)), u = other(e);
            const Local a = sets.find(v), b = sets.find(u);
            if (a != b) on_join(sorted_[i].rank(), e, v, u, a, b);
        }
    }

    // The rank to which edges are taken at first: that of the last block, where it would have been right for that one.
    Rank<T> threshold() {
        samples_.clear();
        std::size_t edges = 0, stretches = 0;
        each_stretch([&](std::size_t, Index, std::uint32_t, std::uint32_t, std::size_t count) {
            edges += count;
            ++stretches;
        });
        const std::size_t skip = 1 + stretches / 64;
        std::size_t at = skip / 2;
        each_stretch([&](std::size_t, Index edge, std::uint32_t, std::uint32_t, std::size_t count) {
            if (at++ % skip != 0) return;
            for (std::size_t i = 0; i < count; ++i) samples_.push_back(to_rank(blocks_.aff[edge + i]));
        });
        if (static_cast<double>(edges) < 1.7 * static_cast<double>(left_) || samples_.empty())
            return std::numeric_limits<Rank<T>>::max();
        return quantile(static_cast<double>(edges));
    }

    Rank<T> next_threshold() {
        if (keys_.size() < 96 || static_cast<double>(keys_.size()) < 3.5 * static_cast<double>(left_))
            return std::numeric_limits<Rank<T>>::max();
        samples_.clear();
        const std::size_t step = 1 + keys_.size() / 256;
        for (std::size_t i = step / 2; i < keys_.size(); i += step) samples_.push_back(keys_[i].rank());
        return quantile(static_cast<double>(keys_.size()));
    }

    Rank<T> quantile(double edges) {
        const double at = 1.1 * static_cast<double>(left_) / edges * static_cast<double>(samples_.size());
        if (at >= static_cast<double>(samples_.size())) return std::numeric_limits<Rank<T>>::max();
        Rank<T>* const nth = samples_.begin() + static_cast<std::size_t>(at);
        std::nth_element(samples_.begin(), nth, samples_.end());
        return *nth;
    }

    const Blocks<T, Index>& blocks_;
    Block block_{};
    std::size_t left_ = 0;  // components of voxels
    std::vector<Index> first_of_row_;
    std::vector<std::int32_t> distance_;  // per offset, between numbers of voxels
    Buffer<Key<T>> keys_, later_, sorted_;
    Buffer<std::uint32_t> counts_;
    Buffer<Rank<T>> samples_;
};

// What is left of a block: an edge between two nodes, or between a node and a part that has no number of its own, of
// `voxels` voxels of label `b`.
template <class T, class Index>
struct ForestLink {
    Rank<T> rank;
    Index edge;
    Index a, b;
    Index voxels;  // 0: b is a node
    bool before(const ForestLink& other) const {
        return rank < other.rank || (rank == other.rank && edge < other.edge);
    }
};

namespace detail {

// A part of all links that is in order already; its nodes count from `base`.
template <class Item, class Index>
struct Stream {
    const Item* begin;
    const Item* end;
    Index base;
};

// In as much memory as it takes: lists that grow have written to twice as much.
template <class Item>
Buffer<Item> exact_copy(const Buffer<Item>& items) {
    Buffer<Item> copy(items.size());
    std::copy(items.begin(), items.end(), copy.begin());
    return copy;
}

// Sorts items by (rank, edge), which many are already.
template <class T, class Item>
void sort_by_order(Buffer<Item>& items, Buffer<Item>& scratch, SortScratch<T, std::uint32_t>& keys) {
    const std::size_t n = items.size();
    struct Ranks {
        const Item* items;
        Rank<T> rank(std::size_t i) const { return items[i].rank; }
        Key<T> key(std::size_t i) const { return {items[i].rank, static_cast<std::uint32_t>(i)}; }
    };
    keys.keys.reset(6 * n);
    sort_keys<T>(Ranks{items.data()}, n, keys.keys.data(), keys.counts);
    scratch.reset(n);
    for (std::size_t i = 0; i < n; ++i) scratch[i] = items[keys.keys[i].at()];
    std::swap(items, scratch);
    for (std::size_t i = 0; i < n;) {
        std::size_t j = i + 1;
        bool ordered = true;
        for (; j < n && items[j].rank == items[i].rank; ++j) ordered &= items[j - 1].edge < items[j].edge;
        if (!ordered)
            std::sort(items.begin() + i, items.begin() + j,
                      [](const Item& x, const Item& y) { return x.edge < y.edge; });
        i = j;
    }
}

// Streams, cut into pieces that follow each other in order and fit in cache.
template <class Item, class Index>
class CutStreams {
  public:
    // before(x, y) is the order; equal items stay together.
    template <class Before>
    CutStreams(const std::vector<Stream<Item, Index>>& streams, Before before, int threads) : streams_(streams) {
        // In cache, and long enough that there is less to cut than to merge.
        const std::size_t piece = std::max(std::size_t{1} << 13, 16 * streams.size()), step = piece / 16;
        for (const auto& s : streams) total_ += static_cast<std::size_t>(s.end - s.begin);
        const std::size_t pieces = total_ / piece + 1;
        std::vector<Item> samples;
        if (pieces > 1) {
            std::size_t skip = step / 2;
            for (const auto& s : streams) {
                const std::size_t size = static_cast<std::size_t>(s.end - s.begin);
                for (; skip < size; skip += step) samples.push_back(s.begin[skip]);
                skip -= size;
            }
            std::sort(samples.begin(), samples.end(), before);
        }
        cut_.resize((pieces + 1) * streams.size());
        parallel_ranges(streams.size(), 8, threads, [&](std::size_t first, std::size_t last) {
            for (std::size_t s = first; s < last; ++s) {
                const Item* at = streams[s].begin;
                for (std::size_t p = 0; p < pieces; ++p) {
                    if (p > 0) at = std::lower_bound(at, streams[s].end, samples[samples.size() * p / pieces], before);
                    cut_[p * streams.size() + s] = at;
                }
                cut_[pieces * streams.size() + s] = streams[s].end;
            }
        });
        start_.assign(pieces + 1, 0);
        for (std::size_t p = 0; p < pieces; ++p) {
            start_[p + 1] = start_[p];
            each_slice(p, [&](const Item* begin, const Item* end, Index) {
                start_[p + 1] += static_cast<std::size_t>(end - begin);
            });
        }
    }
    std::size_t pieces() const { return start_.size() - 1; }
    std::size_t total() const { return total_; }
    std::size_t start(std::size_t piece) const { return start_[piece]; }
    // Calls f(begin, end, base) for what each stream has of a piece.
    template <class F>
    void each_slice(std::size_t piece, F&& f) const {
        const std::size_t n = streams_.size();
        for (std::size_t s = 0; s < n; ++s) f(cut_[piece * n + s], cut_[(piece + 1) * n + s], streams_[s].base);
    }

  private:
    const std::vector<Stream<Item, Index>>& streams_;
    std::vector<const Item*> cut_;  // per piece and stream
    std::vector<std::size_t> start_;
    std::size_t total_ = 0;
};

// Merges streams; move(item, base) is what becomes of an item.
template <class T, class Item, class Index, class Move>
Buffer<Item> merge_streams(const std::vector<Stream<Item, Index>>& streams, int threads, Move&& move) {
    const CutStreams<Item, Index> cut(
        streams, [](const Item& x, const Item& y) { return x.before(y); }, threads);
    Buffer<Item> merged(cut.total());
    struct Work {
        Buffer<Item> items, scratch;
        SortScratch<T, std::uint32_t> keys;
    };
    std::vector<Work> work(static_cast<std::size_t>(std::max(1, threads)));
    parallel_for(cut.pieces(), threads, [&](std::size_t p, std::size_t thread) {
        Work& w = work[thread];
        w.items.reset(cut.start(p + 1) - cut.start(p));
        Item* to = w.items.data();
        cut.each_slice(p, [&](const Item* begin, const Item* end, Index base) {
            for (const Item* at = begin; at != end; ++at) *to++ = move(*at, base);
        });
        sort_by_order<T>(w.items, w.scratch, w.keys);
        std::copy(w.items.begin(), w.items.end(), merged.begin() + cut.start(p));
    });
    return merged;
}

// Lists of links as one list, in order.
template <class T, class Index>
Buffer<ForestLink<T, Index>> merge_lists(std::vector<Buffer<ForestLink<T, Index>>>& lists, int threads) {
    using Link = ForestLink<T, Index>;
    struct Scratch {
        Buffer<Link> moved;
        SortScratch<T, std::uint32_t> keys;
    };
    std::vector<Scratch> scratch(static_cast<std::size_t>(std::max(1, threads)));
    parallel_for(lists.size(), threads, [&](std::size_t i, std::size_t thread) {
        if (!lists[i].empty()) sort_by_order<T>(lists[i], scratch[thread].moved, scratch[thread].keys);
    });
    std::vector<Stream<Link, Index>> streams;
    for (const Buffer<Link>& list : lists)
        if (!list.empty()) streams.push_back({list.begin(), list.end(), Index{0}});
    return merge_streams<T>(streams, threads, [](const Link& link, Index) { return link; });
}

}  // namespace detail

namespace detail {

// Calls f(v, edge, other, u) for the face edges that voxels of block i own: the number of such a voxel, and the block and
// number of the voxel at the other end.
template <class T, class Index, class F>
void each_owned_face_edge(const Blocks<T, Index>& blocks, std::size_t i, F&& f) {
    const auto block = blocks[i];
    for (std::size_t k = 0; k < blocks.grid.steps.size(); ++k) {
        blocks.each_face_edge(block, k, false, [&](Local v, Index edge, Index z, Index y, Index x) {
            f(v, edge, blocks.block_of(z, y, x), blocks.number(z, y, x));
        });
    }
}

// All links in order: those of `streams`, in which nodes count from the base of a stream, and for every block i what
// find_face_links(i, links) lists, in any order and with the numbers of nodes themselves.
template <class T, class Index, class FindFaceLinks>
Buffer<ForestLink<T, Index>> merge_links(const Blocks<T, Index>& blocks,
                                         std::vector<Stream<ForestLink<T, Index>, Index>> streams, int threads,
                                         FindFaceLinks&& find_face_links) {
    using Link = ForestLink<T, Index>;
    struct Scratch {
        Buffer<Link> moved;
        SortScratch<T, std::uint32_t> keys;
    };
    std::vector<Scratch> scratch(static_cast<std::size_t>(std::max(1, threads)));
    std::vector<Buffer<Link>> faces(blocks.size());
    parallel_for(blocks.size(), threads, [&](std::size_t i, std::size_t t) {
        find_face_links(i, faces[i]);
        sort_by_order<T>(faces[i], scratch[t].moved, scratch[t].keys);
    });
    for (const auto& links : faces) streams.push_back({links.begin(), links.end(), Index{0}});
    return merge_streams<T>(streams, threads, [](Link link, Index base) {
        link.a += base;
        if (link.voxels == 0) link.b += base;
        return link;
    });
}

}  // namespace detail

// How a closed component is joined to an open one.
enum class Attached {
    dropped,  // nothing about it is needed later
    value,    // as a number of voxels of one label
    node      // it becomes a node
};

// The blocks of a volume, solved, and the graph that remains. `Carry` is what components carry; a thread has one:
//
//     begin(kruskal, thread)                  single voxels again
//     joined(rank, e, into, from)             edge e of the block has joined two closed components
//     attach(rank, e, b, label, voxels)       it joins closed b to an open one; returns how
//     open(root, node)                        a component of the block is node `node` of it from now on
//     end(block)                              all done
template <class T, class Index>
class BlockForest {
  public:
    using Link = ForestLink<T, Index>;
    using Local = detail::Local;

    BlockForest(const Grid<Index>& grid, Affinities<T> aff, BlockShape shape) : blocks(grid, aff, shape) {}

    template <class Carry>
    void solve(std::vector<Carry>& carries, int threads, Rank<T> last = std::numeric_limits<Rank<T>>::max()) {
        solved_.resize(blocks.size());
        std::vector<Work> work;
        for (std::size_t t = 0; t < carries.size(); ++t) work.emplace_back(blocks);
        parallel_for(blocks.size(), threads,
                     [&](std::size_t i, std::size_t t) { solve_block(i, work[t], carries[t], last); });
        nodes_ = 0;
        for (Solved& block : solved_) {
            block.base = nodes_;
            nodes_ += block.nodes;
        }
    }

    // All links in order.
    Buffer<Link> links(int threads, Rank<T> last = std::numeric_limits<Rank<T>>::max()) const {
        std::vector<detail::Stream<Link, Index>> streams;
        for (const Solved& solved : solved_) streams.push_back({solved.links.begin(), solved.links.end(), solved.base});
        return detail::merge_links(blocks, std::move(streams), threads, [&](std::size_t i, Buffer<Link>& links) {
            detail::each_owned_face_edge(blocks, i, [&](Local v, Index edge, std::size_t other, Local u) {
                const Rank<T> rank = to_rank(blocks.aff[edge]);
                if (rank > last) return;
                links.push_back({rank, edge, solved_[i].base + solved_[i].node[v],
                                 solved_[other].base + solved_[other].node[u], 0});
            });
        });
    }

    std::size_t nodes() const { return nodes_; }
    Index base(std::size_t block) const { return solved_[block].base; }

    const Blocks<T, Index> blocks;

  private:
    struct Solved {
        Index nodes = 0, base = 0;
        Buffer<Local> node;  // per number of a voxel, where a face edge begins
        Buffer<Link> links;  // in order; nodes count from 0 within the block
    };
    struct Work {
        explicit Work(const Blocks<T, Index>& blocks) : kruskal(blocks) {}
        BlockKruskal<T, Index> kruskal;
        Buffer<Rank<T>> opens;  // per root: the rank of the first face edge
        Buffer<Local> number;   // per root: its node
        Buffer<Link> links;     // of the block at hand
    };

    template <class Carry>
    void solve_block(std::size_t i, Work& work, Carry& carry, Rank<T> last) {
        using detail::no_node;
        const auto block = blocks[i];
        Solved& solved = solved_[i];
        BlockKruskal<T, Index>& kruskal = work.kruskal;
        kruskal.begin(block);
        const std::size_t n = blocks.numbers(block);
        blocks.find_first_face_edges(block, work.opens);
        Rank<T>* const opens = work.opens.data();
        work.number.reset(n);
        std::fill(work.number.begin(), work.number.end(), no_node);
        solved.node.reset(n);
        std::fill(solved.node.begin(), solved.node.end(), no_node);
        Local* const node = solved.node.data();
        Local* const number = work.number.data();
        UnionFind<Local>& sets = kruskal.sets;
        Local next = 0;
        carry.begin(kruskal);
        const auto open = [&](Local root) {
            if (number[root] == no_node) {
                number[root] = next;
                sets.each_member(root, [&](Local v) { node[v] = next; });
                carry.open(root, next);
                ++next;
            }
            return number[root];
        };
        Buffer<Link>& links = work.links;
        links.clear();
        kruskal.run(
            [&](Rank<T> rank, std::uint32_t e, Local, Local, Local a, Local b) {
                const bool open_a = opens[a] <= rank, open_b = opens[b] <= rank;
                const Rank<T> opened = std::min(opens[a], opens[b]);
                if (!(open_a | open_b)) {
                    const Local into = kruskal.link(a, b);
                    opens[into] = opened;
                    carry.joined(rank, e, into, into == a ? b : a);
                    return;
                }
                Local to;
                if (open_a && open_b) {
                    to = open(a);
                    links.push_back({rank, kruskal.edge(e), to, open(b), 0});
                } else {
                    if (open_b) std::swap(a, b);
                    to = open(a);
                    Index label = 0, voxels = 0;
                    const Attached how = carry.attach(rank, e, b, label, voxels);
                    if (how == Attached::node) {
                        links.push_back({rank, kruskal.edge(e), to, open(b), 0});
                    } else {
                        if (how == Attached::value) links.push_back({rank, kruskal.edge(e), to, label, voxels});
                        sets.each_member(b, [&](Local v) { node[v] = to; });
                    }
                }
                const Local into = kruskal.link(a, b);
                opens[into] = opened;
                number[into] = to;
            },
            last);
        // What is closed to the end has face edges all the same.
        Index row_begin = 0;
        Blocks<T, Index>::each_row(block, [&](Index row, Index, Index) {
            row_begin = row << blocks.row_bits;
            for (Index v = row_begin; v < row_begin + block.width; ++v) {
                if (node[v] != no_node) continue;
                const Local root = sets.find(static_cast<Local>(v));
                if (opens[root] != blocks.never) open(root);
            }
        });
        solved.nodes = next;
        solved.links = detail::exact_copy(links);
        carry.end(i);
    }

    std::vector<Solved> solved_;
    Index nodes_ = 0;
};

}  // namespace malis
