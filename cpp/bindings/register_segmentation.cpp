#include "numpy.hpp"

#include <cmath>

namespace malis::bindings {

namespace {

// Calls segment(grid, affinities, seg) -> sizes, and returns the arrays of both.
template <class Segment>
py::tuple segment_grid(const py::array& aff, const py::array_t<std::int64_t>& nhood, int threads, Segment&& segment) {
    const Volume volume = make_affinity_volume(aff, nhood);
    auto shape = shape_of(aff);
    shape.erase(shape.begin());
    return visit_affinities(aff, "aff", [&](const auto* affinities) {
        return with_label(volume.voxels(), [&](auto label) {
            using Label = decltype(label);
            py::array_t<Label> seg(shape);
            Label* data = seg.mutable_data();
            std::vector<std::int64_t> sizes;
            {
                const WithoutGil released;
                check_nan(affinities, volume.edges(), "aff", threads);
                sizes = with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
                    return segment(make_grid<decltype(index)>(volume), affinities, data);
                });
            }
            return py::tuple(py::make_tuple(seg, as_array(sizes)));
        });
    });
}

py::tuple grid_components(const py::array& aff, const py::array_t<std::int64_t>& nhood,
                          std::optional<double> threshold, std::int64_t size_thresh, bool merge_small,
                          std::optional<int> threads) {
    const int n = threads_or_default(threads);
    const Small small = merge_small ? Small::merge : Small::drop;
    return segment_grid(aff, nhood, n, [&](const auto& grid, const auto* affinities, auto* seg) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(affinities)>>;
        if (threshold) {
            // In the precision of the affinities, as NumPy compares them: 0.7f reaches 0.7.
            const T t = static_cast<T>(*threshold);
            return components(grid, affinities, [t](T a) { return a >= t; }, size_thresh, seg, n, small);
        }
        return components(grid, affinities, [](T a) { return std::fabs(a) > T(1e-5); }, size_thresh, seg, n, small);
    });
}

py::tuple grid_basins(const py::array& aff, const py::array_t<std::int64_t>& nhood, double threshold,
                      std::int64_t size_thresh, std::optional<int> threads) {
    const int n = threads_or_default(threads);
    return segment_grid(aff, nhood, n, [&](const auto& grid, const auto* affinities, auto* seg) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(affinities)>>;
        return watershed_basins(grid, affinities, static_cast<T>(threshold), size_thresh, seg, n);
    });
}

py::array grid_watershed(const py::array& aff, const py::array& seeds, const py::array_t<std::int64_t>& nhood,
                         std::optional<int> threads) {
    const Volume volume = make_volume(seeds, 0, nhood);
    auto shape = shape_of(seeds);
    shape.insert(shape.begin(), nhood.shape(0));
    check_shape(aff, "aff", shape);
    const int n = threads_or_default(threads);
    return visit_affinities(aff, "aff", [&](const auto* affinities) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(affinities)>>;
        return visit_labels(seeds, "seeds", [&](const auto* labels) {
            using Label = std::remove_const_t<std::remove_pointer_t<decltype(labels)>>;
            py::array_t<Label> seg(shape_of(seeds));
            Label* data = seg.mutable_data();
            {
                const WithoutGil released;
                check_nan(affinities, volume.edges(), "aff", n);
                std::copy(labels, labels + volume.voxels(), data);
                with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
                    using Index = decltype(index);
                    watershed<T, Index>(make_grid<Index>(volume), affinities, volume.voxels(), data, n);
                    return 0;
                });
            }
            return static_cast<py::array>(seg);
        });
    });
}

py::array edge_components(std::int64_t nodes, const py::array& node1, const py::array& node2,
                          const py::array& connected) {
    if (nodes < 0) throw py::value_error("n must be at least 0, got " + std::to_string(nodes));
    const bool* mask = mask_data(connected, "connected", shape_of(node1));
    return visit_nodes(node1, node2, [&](const auto* first, const auto* second) {
        py::array_t<std::int64_t> seg(static_cast<py::ssize_t>(nodes));
        std::int64_t* data = seg.mutable_data();
        {
            const WithoutGil released;
            const auto n = static_cast<std::size_t>(nodes), edges = static_cast<std::size_t>(node1.size());
            with_index(std::max(n, edges), 1, [&](auto index) {
                using Index = decltype(index);
                list_components(EdgeList<Index>{first, second, edges, n}, mask, data);
                return 0;
            });
        }
        return static_cast<py::array>(seg);
    });
}

py::array edge_watershed(const py::array& node1, const py::array& node2, const py::array& weights,
                         const py::array& seeds, std::optional<int> threads) {
    check_shape(weights, "weights", shape_of(node1));
    const int n = threads_or_default(threads);
    const auto nodes = static_cast<std::size_t>(seeds.size()), edges = static_cast<std::size_t>(node1.size());
    return visit_nodes(node1, node2, [&](const auto* first, const auto* second) {
        return visit_affinities(weights, "weights", [&](const auto* affinities) {
            using T = std::remove_const_t<std::remove_pointer_t<decltype(affinities)>>;
            return visit_labels(seeds, "seeds", [&](const auto* labels) {
                using Label = std::remove_const_t<std::remove_pointer_t<decltype(labels)>>;
                py::array_t<Label> seg(seeds.size());
                Label* data = seg.mutable_data();
                {
                    const WithoutGil released;
                    check_nan(affinities, edges, "weights", n);
                    std::copy(labels, labels + nodes, data);
                    with_index(std::max(nodes, edges), 1, [&](auto index) {
                        using Index = decltype(index);
                        watershed<T, Index>(EdgeList<Index>{first, second, edges, nodes}, affinities, nodes,
                                            data, n);
                        return 0;
                    });
                }
                return static_cast<py::array>(seg);
            });
        });
    });
}

}  // namespace

void register_segmentation(py::module_& m) {
    m.def("components", &grid_components, py::arg("aff"), py::arg("nhood"), py::arg("threshold"),
          py::arg("size_thresh"), py::arg("merge_small"), py::arg("num_threads"));
    m.def("watershed_basins", &grid_basins, py::arg("aff"), py::arg("nhood"), py::arg("threshold"),
          py::arg("size_thresh"), py::arg("num_threads"));
    m.def("watershed", &grid_watershed, py::arg("aff"), py::arg("seeds"), py::arg("nhood"), py::arg("num_threads"));
    m.def("edge_components", &edge_components, py::arg("n"), py::arg("node1"), py::arg("node2"),
          py::arg("connected"));
    m.def("edge_watershed", &edge_watershed, py::arg("node1"), py::arg("node2"), py::arg("weights"),
          py::arg("seeds"), py::arg("num_threads"));
}

}  // namespace malis::bindings
