// The core without Python, for profilers: one call per run on synthetic cells.
//
//     micro [size] [threads] [repetitions] [what]
//
// What: loss, pairs, components, unconstrained; or the loss with a slab of an eighth of the volume in a mask (edge_mask,
// unlabelled), or with other options (margin_0, cross_entropy, background).
//
// Cells are Voronoi cells of a jittered lattice with a background of one voxel between them; affinities are
// 0.2 + 0.6 * truth plus noise of 0.2, clipped. Under `valgrind --tool=callgrind` the instruction count of a run is
// repeatable: benchmarks/instructions.py guards it.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "malis/malis.hpp"

namespace {

struct Random {
    std::uint64_t state;
    std::uint64_t next() {  // splitmix64
        std::uint64_t z = (state += 0x9E3779B97F4A7C15ull);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
    double normal() {  // sum of uniforms: near enough to normal for affinities
        double s = 0;
        for (int i = 0; i < 12; ++i) s += uniform();
        return s - 6;
    }
};

std::vector<std::int32_t> cells(std::size_t n) {
    const double spacing = 12.6;  // 2000 voxels
    const int m = static_cast<int>(std::ceil(static_cast<double>(n) / spacing)) + 2;
    std::vector<double> seed(static_cast<std::size_t>(m * m * m) * 3);
    Random random{7};
    for (double& s : seed) s = random.uniform();
    const auto voronoi = [&](int z, int y, int x) {
        const int at[3] = {z, y, x};
        int cell[3];
        for (int i = 0; i < 3; ++i) cell[i] = static_cast<int>(at[i] / spacing) + 1;
        double best = 1e30;
        int label = 0;
        for (int i = cell[0] - 1; i <= cell[0] + 1; ++i)
            for (int j = cell[1] - 1; j <= cell[1] + 1; ++j)
                for (int k = cell[2] - 1; k <= cell[2] + 1; ++k) {
                    if (i >= m || j >= m || k >= m) continue;
                    const int c = (i * m + j) * m + k;
                    const double* s = &seed[static_cast<std::size_t>(c) * 3];
                    const double dz = (i - 1 + s[0]) * spacing - z, dy = (j - 1 + s[1]) * spacing - y,
                                 dx = (k - 1 + s[2]) * spacing - x;
                    const double d = dz * dz + dy * dy + dx * dx;
                    if (d < best) best = d, label = c + 1;
                }
        return label;
    };
    std::vector<std::int32_t> all(n * n * n), seg(n * n * n);
    const int size = static_cast<int>(n);
    std::size_t v = 0;
    for (int z = 0; z < size; ++z)
        for (int y = 0; y < size; ++y)
            for (int x = 0; x < size; ++x, ++v) all[v] = voronoi(z, y, x);
    v = 0;
    for (std::size_t z = 0; z < n; ++z)
        for (std::size_t y = 0; y < n; ++y)
            for (std::size_t x = 0; x < n; ++x, ++v) {
                const bool border = (z + 1 < n && all[v + n * n] != all[v]) || (y + 1 < n && all[v + n] != all[v]) ||
                                    (x + 1 < n && all[v + 1] != all[v]);
                seg[v] = border ? 0 : all[v];
            }
    return seg;
}

}  // namespace

int main(int argc, char** argv) {
    const std::size_t n = argc > 1 ? static_cast<std::size_t>(std::atoi(argv[1])) : 128;
    const int threads = argc > 2 ? std::atoi(argv[2]) : 1;
    const int repetitions = argc > 3 ? std::atoi(argv[3]) : 5;
    const std::string what = argc > 4 ? argv[4] : "loss";
    const malis::Volume volume{{n, n, n}, {{-1, 0, 0}, {0, -1, 0}, {0, 0, -1}}};
    const std::vector<std::int32_t> seg = cells(n);
    std::vector<std::int32_t> truth(volume.edges());
    malis::seg_to_affgraph(malis::make_grid<std::uint32_t>(volume), seg.data(), truth.data(), 1);
    std::vector<float> aff(volume.edges());
    Random random{1};
    for (std::size_t e = 0; e < aff.size(); ++e)
        aff[e] = static_cast<float>(std::min(1.0, std::max(0.0, 0.2 + 0.6 * truth[e] + 0.2 * random.normal())));
    malis::PairOptions options;
    options.threads = threads;
    if (what == "unconstrained") options.constrain_positive = options.constrain_negative = false;
    const std::size_t slab = volume.voxels() / 8;
    const std::unique_ptr<bool[]> known(new bool[volume.edges()]), unlabelled(new bool[volume.voxels()]);
    for (std::size_t e = 0; e < volume.edges(); ++e) known[e] = e % volume.voxels() >= slab;
    for (std::size_t v = 0; v < volume.voxels(); ++v) unlabelled[v] = v < slab;
    if (what == "edge_mask") options.edge_mask = known.get();
    if (what == "unlabelled") options.unlabelled_mask = unlabelled.get();
    if (what == "background") options.ignore_background = false;
    malis::LossOptions of_loss;
    if (what == "margin_0") of_loss.margin = 0;
    if (what == "cross_entropy") of_loss.pointwise = malis::Pointwise::cross_entropy;
    std::vector<float> grad(what == "pairs" || what == "components" ? 0 : volume.edges());
    std::vector<std::int64_t> pos(what == "pairs" ? volume.edges() : 0), neg(pos.size());
    std::vector<std::int32_t> components(what == "components" ? volume.voxels() : 0);
    std::vector<double> seconds;
    double result = 0;
    for (int i = 0; i < repetitions; ++i) {
        const auto start = std::chrono::steady_clock::now();
        if (what == "pairs") {
            malis::count_pairs(volume, aff.data(), seg.data(), options, pos.data(), neg.data());
            result = static_cast<double>(*std::max_element(pos.begin(), pos.end()));
        } else if (what == "components") {
            const auto sizes =
                malis::components<float, std::uint32_t>(malis::make_grid<std::uint32_t>(volume), aff.data(),
                                                        malis::AtLeast<float>{0.6f}, 1, components.data(), threads);
            result = static_cast<double>(sizes.size());
        } else {
            result = malis::malis_loss(volume, aff.data(), seg.data(), options, of_loss, grad.data());
        }
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    std::sort(seconds.begin(), seconds.end());
    std::printf("%s %zu^3, %d threads: median %.1f ms, best %.1f ms, result %.12g\n", what.c_str(), n, threads,
                1e3 * seconds[seconds.size() / 2], 1e3 * seconds[0], result);
    return 0;
}
