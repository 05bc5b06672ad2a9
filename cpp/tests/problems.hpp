// Random volumes of every kind that the library treats in its own way.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"

namespace malis::test {

class Random {
  public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}
    std::uint64_t bits() { return engine_(); }
    std::size_t below(std::size_t n) { return static_cast<std::size_t>(engine_() % n); }
    std::int64_t between(std::int64_t low, std::int64_t high) {
        return low + static_cast<std::int64_t>(below(static_cast<std::size_t>(high - low + 1)));
    }
    double real() { return static_cast<double>(engine_() >> 11) * 0x1p-53; }
    double noise() { return real() + real() + real() - 1.5; }  // of mean 0 and deviation 1/2
    bool chance(double p) { return real() < p; }

  private:
    std::mt19937_64 engine_;
};

enum class Seg { random, cells, touching, split, single, background, distinct };
constexpr Seg all_segs[] = {Seg::random, Seg::cells,      Seg::touching, Seg::split,
                            Seg::single, Seg::background, Seg::distinct};

enum class Aff { uniform, noisy, ties, equal, special };
constexpr Aff all_affs[] = {Aff::uniform, Aff::noisy, Aff::ties, Aff::equal, Aff::special};

inline std::vector<std::int32_t> make_seg(const Volume& volume, Seg kind, Random& random) {
    const std::size_t n = volume.voxels();
    const auto height = volume.shape[1], width = volume.shape[2];
    std::vector<std::int32_t> seg(n, 0);
    if (kind == Seg::background) return seg;
    if (kind == Seg::single || kind == Seg::random || kind == Seg::distinct) {
        for (std::size_t v = 0; v < n; ++v)
            seg[v] = kind == Seg::single     ? 5
                     : kind == Seg::distinct ? static_cast<std::int32_t>(n - v)
                                             : static_cast<std::int32_t>(random.below(4));
        return seg;
    }
    // Voronoi cells; `cells` have background where two of them are about equally near, and labels of `split` occur in
    // several places.
    struct Point {
        double z, y, x;
    };
    std::vector<Point> points(2 + std::min<std::size_t>(n / 12, 40));
    for (Point& p : points)
        p = {random.real() * static_cast<double>(volume.shape[0]), random.real() * static_cast<double>(height),
             random.real() * static_cast<double>(width)};
    for (std::size_t v = 0; v < n; ++v) {
        const auto z = static_cast<double>(v / (height * width)), y = static_cast<double>(v / width % height),
                   x = static_cast<double>(v % width);
        double nearest = 1e30, second = 1e30;
        std::size_t cell = 0;
        for (std::size_t i = 0; i < points.size(); ++i) {
            const Point& p = points[i];
            const double d = std::sqrt((p.z - z) * (p.z - z) + (p.y - y) * (p.y - y) + (p.x - x) * (p.x - x));
            if (d < nearest) {
                second = nearest;
                nearest = d;
                cell = i;
            } else if (d < second) {
                second = d;
            }
        }
        seg[v] = kind == Seg::cells && second - nearest < 0.8 ? 0
                 : kind == Seg::split                         ? static_cast<std::int32_t>(cell % 3)
                                                              : static_cast<std::int32_t>(cell + 1);
    }
    return seg;
}

template <class T>
std::vector<T> make_aff(const Volume& volume, const std::vector<std::int32_t>& seg, Aff kind, Random& random) {
    std::vector<T> aff(volume.edges());
    std::vector<std::int32_t> truth(volume.edges());
    seg_to_affgraph(make_grid<std::uint64_t>(volume), seg.data(), truth.data(), 1);
    constexpr T special[] = {T(0),
                             -T(0),
                             T(1),
                             T(0.5),
                             -T(2.5),
                             std::numeric_limits<T>::infinity(),
                             T(1e30),
                             -T(1e30),
                             T(-1),
                             -std::numeric_limits<T>::infinity(),
                             std::numeric_limits<T>::denorm_min(),
                             -std::numeric_limits<T>::denorm_min(),
                             std::numeric_limits<T>::max(),
                             std::numeric_limits<T>::lowest()};
    for (std::size_t e = 0; e < aff.size(); ++e) {
        switch (kind) {
            case Aff::uniform: aff[e] = static_cast<T>(random.real()); break;
            case Aff::noisy:
                aff[e] = static_cast<T>(std::min(1.0, std::max(0.0, 0.2 + 0.6 * truth[e] + 0.4 * random.noise())));
                break;
            case Aff::ties: aff[e] = static_cast<T>(random.below(5)) / 4; break;
            case Aff::equal: aff[e] = T(0.5); break;
            case Aff::special: aff[e] = special[random.below(std::size(special))]; break;
        }
    }
    return aff;
}

inline std::vector<Offset> nearest_neighbours() { return {{-1, 0, 0}, {0, -1, 0}, {0, 0, -1}}; }

// Forward and backward, long, beyond the volume, twice the same, its opposite, and the zero offset.
inline std::vector<Offset> random_nhood(const std::array<std::size_t, 3>& shape, Random& random) {
    if (random.chance(0.3)) return nearest_neighbours();
    std::vector<Offset> nhood;
    for (std::size_t k = 1 + random.below(5); k > 0; --k) {
        Offset o{};
        std::int64_t* at[3] = {&o.z, &o.y, &o.x};
        for (std::size_t i = 0; i < 3; ++i) {
            const auto reach = static_cast<std::int64_t>(std::min<std::size_t>(shape[i], random.chance(0.7) ? 1 : 4));
            *at[i] = random.chance(0.5) ? 0 : random.between(-reach, reach);
        }
        nhood.push_back(o);
    }
    if (random.chance(0.3)) nhood.push_back(nhood.front());
    if (random.chance(0.3)) nhood.push_back({-nhood.back().z, -nhood.back().y, -nhood.back().x});
    return nhood;
}

// Calls f(volume, seg, kind of affinities) for small volumes of every kind.
template <class F>
void each_small_volume(Random& random, F&& f) {
    for (std::size_t i = 0; i < 150; ++i) {
        const std::array<std::size_t, 3> shape{1 + random.below(5), 1 + random.below(7), 1 + random.below(12)};
        const Volume volume{shape, random_nhood(shape, random)};
        const auto seg = make_seg(volume, all_segs[i % std::size(all_segs)], random);
        context = "volume " + std::to_string(i);
        f(volume, seg, all_affs[i / 7 % std::size(all_affs)]);
    }
}

using Mask = std::unique_ptr<bool[]>;

inline Mask make_mask(std::size_t n, double p, Random& random) {
    Mask mask(new bool[n]);
    for (std::size_t i = 0; i < n; ++i) mask[i] = random.chance(p);
    return mask;
}

// All combinations of the options without masks.
inline std::vector<PairOptions> all_options() {
    std::vector<PairOptions> all;
    for (int i = 0; i < 8; ++i) {
        PairOptions options;
        options.constrain_positive = i & 1;
        options.constrain_negative = i & 2;
        options.ignore_background = i & 4;
        all.push_back(options);
    }
    return all;
}

inline std::string describe(const PairOptions& options) {
    return std::string("constrain_positive=") + (options.constrain_positive ? "1" : "0") +
           " constrain_negative=" + (options.constrain_negative ? "1" : "0") +
           " ignore_background=" + (options.ignore_background ? "1" : "0") +
           " edge_mask=" + (options.edge_mask != nullptr ? "1" : "0") +
           " unlabelled_mask=" + (options.unlabelled_mask != nullptr ? "1" : "0") +
           " threads=" + std::to_string(options.threads);
}

}  // namespace malis::test
