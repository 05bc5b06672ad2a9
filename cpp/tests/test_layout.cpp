// What the frameworks hand over: channels last, and labels as floating point numbers.
#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "malis/malis.hpp"
#include "problems.hpp"

using namespace malis;
using namespace malis::test;

MALIS_TEST(channels_move_to_the_front) {
    Random random(3);
    for (const std::size_t channels : {1u, 2u, 3u, 4u, 7u, 12u}) {
        for (const std::size_t voxels : {1u, 5u, 511u, 512u, 513u, 100000u}) {
            std::vector<double> last(channels * voxels), expected(last.size());
            for (std::size_t v = 0; v < voxels; ++v) {
                for (std::size_t k = 0; k < channels; ++k)
                    expected[k * voxels + v] = last[v * channels + k] = random.real();
            }
            for (const int threads : {1, 3}) {
                std::vector<double> first(last.size(), -1.0);
                to_channels_first(last.data(), voxels, channels, first.data(), threads);
                CHECK_SAME(first, expected);
            }
        }
    }
}

namespace {

void check_channels_last(const Volume& volume, std::size_t samples, Seg kind) {
    Random random(4);
    LossOptions loss;
    loss.pointwise = Pointwise::cross_entropy;  // every edge that decides pairs has a slope
    const std::size_t voxels = volume.voxels(), channels = volume.nhood.size(), edges = volume.edges();
    std::vector<std::int32_t> seg;
    std::vector<float> first(samples * edges), last(samples * edges);
    std::vector<char> mask_first(samples * edges), mask_last(samples * edges);
    for (std::size_t i = 0; i < samples; ++i) {
        const auto labels = make_seg(volume, kind, random);
        seg.insert(seg.end(), labels.begin(), labels.end());
        for (std::size_t v = 0; v < voxels; ++v) {
            for (std::size_t k = 0; k < channels; ++k) {
                const std::size_t at = i * edges + k * voxels + v, to = i * edges + v * channels + k;
                first[at] = last[to] = static_cast<float>(random.real());
                mask_first[at] = mask_last[to] = random.chance(0.8);
            }
        }
    }
    for (const int threads : {1, 2, 4}) {
        for (const int choice : {0, 1, 2, 3, 4, 5}) {
            PairOptions options;
            options.threads = threads;
            options.constrain_positive = (choice & 1) == 0;  // without: edges that decide pairs of both kinds
            options.constrain_negative = (choice & 2) == 0;
            const bool masked = (choice & 4) != 0;
            std::vector<double> expected(samples), losses(samples);
            std::vector<float> grad(first.size(), -1.0f), grad_last(first.size(), -1.0f), moved(first.size());
            if (masked) options.edge_mask = reinterpret_cast<const bool*>(mask_first.data());
            malis_loss_batch(volume, samples, first.data(), seg.data(), options, loss, expected.data(), grad.data());
            if (masked) options.edge_mask = reinterpret_cast<const bool*>(mask_last.data());
            malis_loss_batch(volume, samples, last.data(), seg.data(), options, loss, losses.data(), grad_last.data(),
                             Layout::channels_last);
            CHECK_SAME(losses, expected);
            for (std::size_t i = 0; i < samples; ++i)
                to_channels_first(grad_last.data() + i * edges, voxels, channels, moved.data() + i * edges, 1);
            CHECK_SAME(moved, grad);
        }
    }
}

}  // namespace

MALIS_TEST(loss_of_channels_last) {
    const std::vector<Offset> nhood = {{0, 0, -1}, {0, -1, 0}, {-1, 0, 0}, {0, 2, -3}};
    check_channels_last({{3, 7, 9}, nhood}, 5, Seg::cells);
    check_channels_last({{33, 32, 34}, nhood}, 1, Seg::cells);  // large enough for several threads
    check_channels_last({{33, 32, 34}, nhood}, 1, Seg::single);
    check_channels_last({{33, 32, 34}, {{0, -3, 0}, {0, 0, -1}}}, 1, Seg::split);  // objects in pieces
}

namespace {

template <class T>
void check_integers(std::vector<T> values, bool whole) {
    for (const std::size_t padding : {0u, 3u, 200000u}) {  // on one thread and on several, at the end of a vector
        for (const int threads : {1, 3}) {
            std::vector<T> all(padding, T(7));
            all.insert(all.end(), values.begin(), values.end());
            std::vector<std::int32_t> integers(all.size(), -99);
            const Integers found = to_integers(all.data(), all.size(), integers.data(), threads);
            CHECK_EQUAL(found.whole, whole);
            if (!whole) continue;
            CHECK_SAME(std::vector<T>(integers.begin(), integers.end()), all);
            CHECK_EQUAL(static_cast<T>(found.largest), *std::max_element(all.begin(), all.end()));
        }
    }
}

template <class T>
void check_integers_of() {
    constexpr T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
    constexpr T end = T(2147483648.0);
    check_integers<T>({0, 1, 2, 65535, 16777216}, true);
    check_integers<T>({-T(0), -1, -end, 12}, true);  // that labels are not negative is checked later
    for (const T wrong : {T(0.5), T(1e-30), -T(2.5), end, -T(2) * end, T(1e30), inf, -inf, nan})
        check_integers<T>({1, 2, wrong, 3}, false);
}

}  // namespace

MALIS_TEST(labels_of_floats) {
    check_integers_of<float>();
    check_integers_of<double>();
    check_integers<double>({2147483647.0, -2147483648.0}, true);
    check_integers<float>({2147483520.0f}, true);  // the largest below 2^31
}
