// The positive pass over a volume: every object on its own.
//
// A component within an object carries one label, so its size is all that counts; and objects that fit the cache are
// solved in it, many at a time. A loss that is zero from some affinity on, as a hinge is, does not ask for the order of
// the edges above: these are all joined first, without sorting, and of an object that is well predicted hardly an edge
// is left.
//
// An object that an edge of unknown truth touches takes the order of all its edges, as how many pairs there are to be
// counted depends on it; and where such edges lead out of objects, something is left to be decided outside (outside.hpp).
// If none of its edges is known it has no counts, and only needs the order from the strongest edge that leads out of it on.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "malis/graph/grid.hpp"
#include "malis/graph/labels.hpp"
#include "malis/graph/select.hpp"
#include "malis/graph/unknown_edges.hpp"
#include "malis/pairs/divide.hpp"
#include "malis/pairs/object_scan.hpp"
#include "malis/pairs/objects.hpp"
#include "malis/pairs/outside.hpp"
#include "malis/pairs/regions.hpp"
#include "malis/pairs/sink.hpp"
#include "malis/support/buffer.hpp"
#include "malis/support/interrupt.hpp"
#include "malis/support/parallel.hpp"
#include "malis/support/prefetch.hpp"
#include "malis/tree/kruskal.hpp"
#include "malis/tree/label_histogram.hpp"
#include "malis/tree/open_parts.hpp"
#include "malis/tree/order.hpp"
#include "malis/tree/union_find.hpp"

namespace malis::detail {

// What a thread keeps from object to object.
template <class T, class Index>
struct ObjectWork {
    Buffer<Stretch<Index>> stretches, next;  // of the object at hand and of the next one
    KruskalScratch<T, Index> scratch;
    UnionFind<Index> sets;
    Buffer<Index> number;
    OpenParts<T, Index> open;
    Division<T, Index> division;
    int skip_joining = 0;  // so many objects more are not joined without an order
};

// Objects of at least this many voxels are worked on by all threads, one object after the other: their edges no longer fit
// the cache of one core, and a volume may hold too few of them to go round.
constexpr std::size_t large_object = std::size_t{1} << 18;

// Smaller ones are tasks for one thread, of at least this many voxels in all, so that handing out a task does not show
// beside its work. The division must not depend on the number of threads, so that neither do sums of floating point numbers.
constexpr std::size_t voxels_of_task = std::size_t{1} << 14;

// Joining without an order pays where it leaves at most one set for every four voxels. Were it one for every sixteen, the
// loss would take 145 instructions per edge in place of 119 (benchmarks/instructions.py). Where it left more sets than this,
// the next objects are sorted at once: those beside each other are usually predicted equally well or badly. Objects of
// the size of a task are always tried, as their small neighbours say little about them: crops of neurons of 48^3 took 1.4
// times as long while they were skipped as well.
constexpr std::size_t voxels_per_joined_set = 4;
constexpr int skipped_after_failure = 7;

template <class T, class Index>
class PositivePass {
  public:
    // Without `report` the pass only finds the regions, and calls nothing of the sink. Without `want_regions` those of
    // objects that edges of unknown truth touch are left out.
    PositivePass(const Grid<Index>& grid, const T* aff, const Labels<Index>& labels, const Objects<Index>& objects,
                 const UnknownEdges<Index>& unknown, int threads, Sink<T, Index>& sink, bool report, bool want_regions)
        : grid_(grid),
          aff_(aff),
          labels_(labels),
          objects_(objects),
          unknown_(unknown),
          threads_(threads),
          sink_(sink),
          report_(report),
          want_regions_(want_regions),
          written_(sink.written_by_positive()),
          cutoff_(report ? sink.positive_cutoff() : -infinity),
          ways_(grid),
          work_(static_cast<std::size_t>(std::max(1, threads))) {
        if (unknown.any()) touched_rows_ = rows_of_unknown_edges(grid, unknown);
    }

    // Returns the loss, and puts the components of the objects into `regions`.
    double run(ObjectRegions<T, Index>& regions) {
        regions_.count.assign(objects_.labels(), 0);
        regions_.split.resize(work_.size());
        double expected = 0;
        for (Index l = 1; l < objects_.labels(); ++l)
            if (is_object(l)) expected += static_cast<double>(pairs_of(objects_.voxels[l]));
        if (report_) sink_.expect_positive(expected);
        const Result all = solve_all();
        regions = std::move(regions_);
        if (!report_) return 0;
        const double found = static_cast<double>(all.pairs);
        return found != expected ? all.loss * sink_.correct_positive(expected, found, threads_) : all.loss;
    }

  private:
    static constexpr T infinity = std::numeric_limits<T>::infinity();

    struct Result {
        double loss = 0;
        std::uint64_t pairs = 0;
    };

    // Unlabelled voxels carry a number as an object does, but are in no positive pair.
    bool is_object(Index l) const { return objects_.voxels[l] > 0 && !labels_.is_unlabelled(l); }

    // Objects order[begin] to order[end - 1], for one thread.
    struct Task {
        std::size_t begin, end;
    };

    // The objects of at least one voxel. As they follow each other in the volume, so that neighbours find the rows that
    // they share in cache; by label where there are too many small ones for an order to pay.
    std::vector<Index> object_order() const {
        constexpr Index voxels_worth_order = 64;
        std::vector<Index> order;
        for (Index l = 1; l < objects_.labels(); ++l)
            if (is_object(l) || (objects_.voxels[l] > 0 && want_regions_)) order.push_back(l);
        if (order.size() < grid_.voxels / voxels_worth_order) {
            std::sort(order.begin(), order.end(), [&](Index a, Index b) {
                return objects_.runs[objects_.first_run[a]].v < objects_.runs[objects_.first_run[b]].v;
            });
        }
        return order;
    }

    // Divides the objects into tasks and large ones.
    std::vector<Task> divide(const std::vector<Index>& order, std::vector<Index>& large) const {
        std::vector<Task> tasks;
        std::size_t begin = 0, load = 0;
        for (std::size_t i = 0; i < order.size(); ++i) {
            const Index voxels = objects_.voxels[order[i]];
            const bool is_large = voxels >= large_object;
            if (is_large) large.push_back(order[i]);
            if (is_large || load >= voxels_of_task) {
                if (begin < i) tasks.push_back({begin, i});
                begin = is_large ? i + 1 : i;
                load = 0;
            }
            if (!is_large) load += voxels + 1;
        }
        if (begin < order.size()) tasks.push_back({begin, order.size()});
        return tasks;
    }

    Result solve_all() {
        const std::vector<Index> order = object_order();
        std::vector<Index> large;
        const std::vector<Task> tasks = divide(order, large);
        std::vector<Result> results(tasks.size() + large.size());
        if (unknown_.any()) {
            regions_.growths.resize(results.size());
            links_.resize(results.size());
            parts_.resize(results.size());
            node_.reset(grid_.voxels);
        }
        parallel_for(tasks.size(), threads_, [&](std::size_t task, std::size_t thread) {
            ObjectWork<T, Index>& work = work_[thread];
            for (std::size_t i = tasks[task].begin; i < tasks[task].end; ++i) {
                if (i == tasks[task].begin) prepare(order[i], work.stretches);
                if (i + 1 < tasks[task].end) prepare(order[i + 1], work.next);
                solve(order[i], task, thread, 1, results[task]);
                std::swap(work.stretches, work.next);
            }
        });
        for (std::size_t i = 0; i < large.size(); ++i) {
            find_stretches(grid_, objects_, large[i], work_[0].stretches);
            solve(large[i], tasks.size() + i, 0, threads_, results[tasks.size() + i]);
        }
        if (unknown_.any()) {
            Result outside;
            join_outside<T>(grid_, aff_, labels_, objects_, unknown_, touched_rows_, parts_,
                            merge_lists(links_, threads_), node_, threads_,
                            [&](Rank<T> rank, Index edge, std::uint64_t pairs) {
                                outside.loss += sink_.positive(rank, edge, pairs, 0);
                                outside.pairs += pairs;
                            });
            results.push_back(outside);
        }
        Result all;
        for (const Result& result : results) {  // in the order of tasks: the same sum on any number of threads
            all.loss += result.loss;
            all.pairs += result.pairs;
        }
        return all;
    }

    // Finds the edges of the next object, and asks for their affinities, which are read sixteen at a time, while the
    // object at hand is solved: rows are too short for the hardware to see a pattern in them.
    void prepare(Index l, Buffer<Stretch<Index>>& stretches) const {
        constexpr std::size_t most_prefetched = std::size_t{1}
                                                << 12;  // two lines each: as many as a second cache holds
        find_stretches(grid_, objects_, l, stretches);
        if (stretches.size() > most_prefetched) return;
        for (const Stretch<Index>& s : stretches) {
            malis::prefetch(aff_ + s.edge);
            malis::prefetch(aff_ + std::min<Index>(s.edge + 15, grid_.edges() - 1));
        }
    }

    // Solves an object whose stretches are at hand, with the work of one thread.
    void solve(Index l, std::size_t task, std::size_t thread, int threads, Result& result) {
        ObjectWork<T, Index>& work = work_[thread];
        const Index n = objects_.voxels[l];
        if (unknown_.any() && (!is_object(l) || is_touched(l))) return solve_touched(l, task, thread, threads, result);
        regions_.count[l] = n > 0 ? 1 : 0;
        if (n < 2) return;
        UnionFind<Index>& sets = work.sets;
        const ObjectScan<T, Index> source(grid_, aff_, work.stretches, threads);
        MergeAndReport merge{sink_, written_, sets, thread, result};
        if (join_strong_edges(source, n, threads, work)) {
            in_steps(n, [&](Index begin, Index end) {
                for (Index i = begin; i < end; ++i)
                    if (sets.find(i) == i) result.pairs += pairs_of(sets.size(i));
            });
            if (cutoff_ > -infinity && sets.sets() > 1)
                kruskal_below<T, Index>(cutoff_, source, sets, work.scratch, threads, merge);
        } else {
            sets.reset(n, threads);
            kruskal<T, Index>(source, sets, work.scratch, threads, merge);
        }
        if (sets.sets() == 1) return;
        regions_.count[l] = static_cast<Index>(sets.sets());
        keep_regions(l, work, threads, regions_.split[thread]);
    }

    // Joins components of an object that edges of unknown truth do not touch.
    struct MergeAndReport {
        Sink<T, Index>& sink;
        const WrittenByEdge written;
        UnionFind<Index>& sets;
        const std::size_t thread;
        Result& result;

        bool operator()(const Record<T, Index>& r, Index a, Index b) {
            const std::uint64_t pairs = static_cast<std::uint64_t>(sets.size(a)) * sets.size(b);
            sets.link(a, b);
            result.loss += sink.positive(r.rank, r.edge, pairs, thread);
            result.pairs += pairs;
            return sets.sets() > 1;
        }
        MALIS_INLINE void prefetch_edge(Index edge) const { written.prefetch(edge); }
    };

    // Whether an edge of unknown truth touches an object.
    bool is_touched(Index l) const {
        bool touched = false;
        ways_.each_edge_of(
            grid_, objects_, l, [&](Index row) { return !touched && touched_rows_[row] != 0; },
            [&](Index edge, Index, Index, Index, Index count) { touched |= unknown_.select(edge, count) != 0; });
        return touched;
    }

    // Solves an object that edges of unknown truth touch: finds its regions, and what its edges decide.
    void solve_touched(Index l, std::size_t task, std::size_t thread, int threads, Result& result) {
        ObjectWork<T, Index>& work = work_[thread];
        UnionFind<Index>& sets = work.sets;
        OpenParts<T, Index>& open = work.open;
        const Index n = objects_.voxels[l];
        const ObjectScan<T, Index> source(grid_, aff_, work.stretches, threads);
        const bool any_known = has_known_edge(work.stretches);
        open.exits.clear();
        const T joined_from =
            work.division.find_ways_out(grid_, aff_, labels_.of, objects_, unknown_, ways_, l, n, open.exits);
        // Without a known edge nothing is reported, but others may be joined by a way through the object.
        const bool counts = cutoff_ > -infinity && is_object(l) && (any_known || !open.exits.empty());
        // Then both take all edges, and as long as everything is closed, in any order.
        const bool together = counts && !any_known;
        if (want_regions_ || together) {
            sets.contract(n, threads, [&](Index* parent) {
                if (any_known) source.join(joined_from, unknown_, parent, n, threads);
                else source.join(joined_from, parent, n, threads);
            });
        }
        if (want_regions_) regions_.count[l] = 1;
        const bool divides = want_regions_ && sets.sets() > 1;
        if (divides && !together) {
            const Index regions = work.division.run(grid_, aff_, unknown_, l, work.stretches, joined_from, sets,
                                                    threads, regions_.growths[task]);
            keep_division(l, regions, work, regions_.split[thread]);
        }
        if (!counts) return;
        if (!together) sets.reset(n, threads);
        else if (divides) work.division.begin(sets, threads);
        const std::size_t first_link = links_[task].size();
        Reporting receive{*this, l, thread, result, links_[task]};
        open.begin(sets, threads);
        kruskal_from<T, Index>(together ? joined_from : std::numeric_limits<T>::quiet_NaN(), source, sets, work.scratch,
                               threads, [&](const Record<T, Index>& r, Index a, Index b) {
                                   open.merge(sets, r, a, b, receive, [&](Index x, Index y) {
                                       if (!together || !divides) return sets.link(x, y);
                                       return work.division.merge(sets, r, x, y, l, regions_.growths[task]);
                                   });
                                   return sets.sets() > 1;
                               });
        open.finish(sets, receive);
        if (together && divides) keep_division(l, work.division.finish(), work, regions_.split[thread]);
        if (!open.exits.empty()) keep_parts(l, task, first_link, open);
    }

    // Keeps the regions of a touched object.
    void keep_division(Index l, Index regions, ObjectWork<T, Index>& work,
                       typename ObjectRegions<T, Index>::Split& split) {
        regions_.count[l] = regions;
        if (regions == 1) return;
        Index* const region = add_split(l, split);
        work.division.each_node([region](Index i, Index r) { region[i] = r; });
    }

    // Numbers the parts of a touched object, of which the links begin with `first_link`.
    void keep_parts(Index l, std::size_t task, std::size_t first_link, OpenParts<T, Index>& open) {
        const Index base = next_part_.fetch_add(open.parts(), std::memory_order_relaxed);
        for (auto* link = links_[task].begin() + first_link; link != links_[task].end(); ++link) {
            link->a += base;
            if (link->voxels == 0) link->b += base;
        }
        for (Index part = 0; part < open.parts(); ++part)
            parts_[task].push_back({base + part, l, open.size_when_opened(part)});
        const Run<Index>* run = objects_.runs.data() + objects_.first_run[l];
        open.each_node([&](Index i, Index part) {
            if (i == run->first + run->length) ++run;
            node_[run->v + (i - run->first)] = base + part;
        });
    }

    bool has_known_edge(const Buffer<Stretch<Index>>& stretches) const {
        return std::any_of(stretches.begin(), stretches.end(), [&](const Stretch<Index>& s) {
            for (Index i = 0; i < s.count; i += 64) {
                const Index count = std::min<Index>(64, s.count - i);
                if (unknown_.select(s.edge + i, count) != lowest_bits(count)) return true;
            }
            return false;
        });
    }

    // What the edges of one touched object decide (open_parts.hpp).
    struct Reporting {
        PositivePass& pass;
        Index label;
        std::size_t thread;
        Result& result;
        Buffer<ForestLink<T, Index>>& links;

        void closed(const Record<T, Index>& r, Index a, Index b) {
            if (pass.unknown_(r.edge)) return;
            const std::uint64_t pairs = static_cast<std::uint64_t>(a) * b;
            result.loss += pass.sink_.positive(r.rank, r.edge, pairs, thread);
            result.pairs += pairs;
        }
        void attached(const Record<T, Index>& r, Index part, Index a, Index b, bool alone) {
            if (alone) closed(r, a, b);
            else links.push_back({r.rank, r.edge, part, label, b});
        }
        void linked(const Record<T, Index>& r, Index part, Index other) {
            links.push_back({r.rank, r.edge, part, other, 0});
        }
        void grown(Rank<T> rank, Index part, Index voxels) {
            links.push_back({rank, no_edge<Index>, part, label, voxels});
        }
    };

    // Joins all edges from the cutoff on, where that is likely to pay; false where it was not tried or did not pay.
    bool join_strong_edges(const ObjectScan<T, Index>& source, Index n, int threads, ObjectWork<T, Index>& work) const {
        if (cutoff_ == infinity) return false;
        const bool joins_all = cutoff_ == -infinity;
        if (!joins_all && n < voxels_of_task && work.skip_joining-- > 0) return false;
        UnionFind<Index>& sets = work.sets;
        sets.contract(n, threads, [&](Index* parent) { source.join(cutoff_, parent, n, threads); });
        const bool joined = joins_all || sets.sets() <= n / voxels_per_joined_set + 1;
        work.skip_joining = joined ? 0 : skipped_after_failure;
        return joined;
    }

    // Keeps the region of every voxel of an object of several.
    void keep_regions(Index l, ObjectWork<T, Index>& work, int threads,
                      typename ObjectRegions<T, Index>::Split& split) const {
        const Index n = objects_.voxels[l];
        const Index* root = work.sets.roots(threads);
        work.number.reset(n);
        Index* const region = add_split(l, split);
        Index next = 0;
        in_steps(n, [&](Index begin, Index end) {
            for (Index i = begin; i < end; ++i)
                if (root[i] == i) work.number[i] = next++;
        });
        in_steps(n, [&](Index begin, Index end) {
            for (Index i = begin; i < end; ++i) region[i] = work.number[root[i]];
        });
    }

    // Room for the regions of the voxels of one more object.
    Index* add_split(Index l, typename ObjectRegions<T, Index>::Split& split) const {
        const std::size_t at = split.region.size(), n = objects_.voxels[l];
        split.objects.push_back({l, at});
        split.region.reserve(at + n);  // grows by more than is asked for, as one object follows the other
        split.region.resize(at + n);
        return split.region.data() + at;
    }

    const Grid<Index>& grid_;
    const T* aff_;
    const Labels<Index>& labels_;
    const Objects<Index>& objects_;
    const UnknownEdges<Index>& unknown_;
    const int threads_;
    Sink<T, Index>& sink_;
    const bool report_;
    const bool want_regions_;
    const WrittenByEdge written_;
    const T cutoff_;  // edges from here on are not reported; minus infinity: none are
    const WaysOut<Index> ways_;
    std::vector<char> touched_rows_;  // by edges of unknown truth
    std::vector<ObjectWork<T, Index>> work_;
    ObjectRegions<T, Index> regions_;
    // What is left to be decided outside of objects (outside.hpp), per task.
    std::vector<Buffer<ForestLink<T, Index>>> links_;
    std::vector<Buffer<OpenPart<Index>>> parts_;
    Buffer<Index> node_;  // per voxel of an object that has exits: its part
    std::atomic<Index> next_part_{0};
};

}  // namespace malis::detail
