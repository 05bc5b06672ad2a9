// Kruskal's algorithm over the edges within one block of a volume.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "malis/graph/affinities.hpp"
#include "malis/graph/select.hpp"
#include "malis/support/buffer.hpp"
#include "malis/tree/blocks.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/sort.hpp"
#include "malis/tree/union_find.hpp"

namespace malis {

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
    // and b. It has to join them. Edges of a rank above `last` are left out.
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

}  // namespace malis
