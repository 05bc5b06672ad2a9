#include "numpy.hpp"

#include <algorithm>

namespace malis::bindings {

namespace {

// Calls segment(volume, affinities, seg) -> sizes, and returns the arrays of both.
template <class Segment>
py::tuple segment_volume(const py::array& aff, const py::array_t<std::int64_t>& nhood, Segment&& segment) {
    const Volume volume = make_affinity_volume(aff, nhood);
    auto shape = shape_of(aff);
    shape.erase(shape.begin());
    return with_label(volume.voxels(), [&](auto label) {
        using Label = decltype(label);
        py::array_t<Label> seg(shape);
        Label* data = seg.mutable_data();
        const std::vector<std::int64_t> sizes = visit_affinities_or_bytes(aff, "aff", [&](const auto* affinities) {
            const WithoutGil released;
            return segment(volume, affinities, data);
        });
        return py::tuple(py::make_tuple(seg, as_array(sizes)));
    });
}

py::tuple volume_components(const py::array& aff, const py::array_t<std::int64_t>& nhood,
                            std::optional<double> threshold, std::int64_t size_thresh, bool merge_small,
                            std::optional<int> threads) {
    const int n = threads_or_default(threads);
    const Small small = merge_small ? Small::merge : Small::drop;
    return segment_volume(aff, nhood, [&](const Volume& volume, const auto* affinities, auto* seg) {
        return components(volume, affinities, threshold, size_thresh, seg, n, small);
    });
}

py::tuple components_of_chunk(const py::array& aff, const py::array_t<std::int64_t>& nhood,
                              const py::array_t<std::int64_t, py::array::c_style>& open,
                              std::optional<double> threshold, std::int64_t size_thresh, std::optional<int> threads) {
    const Volume volume = make_affinity_volume(aff, nhood);
    auto shape = shape_of(aff);
    shape.erase(shape.begin());
    const int n = threads_or_default(threads);
    const std::int64_t* const voxels = open.data();
    const auto opens = static_cast<std::size_t>(open.size());
    for (std::size_t i = 0; i < opens; ++i)
        if (voxels[i] < 0 || static_cast<std::size_t>(voxels[i]) >= volume.voxels())
            throw py::value_error("open must name voxels of the chunk, got " + std::to_string(voxels[i]));
    return visit_affinities_or_bytes(aff, "aff", [&](const auto* affinities) {
        return with_index(volume.voxels(), volume.nhood.size(), [&](auto index) {
            const auto find = [&] {
                const WithoutGil released;
                return chunk_components<decltype(index)>(volume, affinities, threshold, voxels, opens, size_thresh, n);
            };
            const auto found = find();
            const auto write = [&](auto label) {
                py::array_t<decltype(label)> seg(shape);
                auto* const data = seg.mutable_data();
                std::vector<std::int64_t> first;
                {
                    const WithoutGil released;
                    first = label_chunk(found, data);
                }
                return py::tuple(py::make_tuple(seg, as_array(found.sizes), as_array(first)));
            };
            return found.sizes.size() <= (std::size_t{1} << 16) ? write(std::uint16_t{0}) : write(std::uint32_t{0});
        });
    });
}

py::tuple volume_basins(const py::array& aff, const py::array_t<std::int64_t>& nhood, double threshold,
                        std::int64_t size_thresh, std::optional<int> threads) {
    const int n = threads_or_default(threads);
    return segment_volume(aff, nhood, [&](const Volume& volume, const auto* affinities, auto* seg) {
        return watershed_basins(volume, affinities, threshold, size_thresh, seg, n);
    });
}

py::array connected_labels(const py::array& seg, const py::array_t<std::int64_t>& nhood, std::optional<int> threads) {
    const Volume volume = make_volume(seg, 0, nhood);
    const int n = threads_or_default(threads);
    return visit_labels(seg, "seg", [&](const auto* labels) {
        using Label = std::remove_const_t<std::remove_pointer_t<decltype(labels)>>;
        py::array_t<Label> connected = make_array<Label>(shape_of(seg));
        Label* data = connected.mutable_data();
        {
            const WithoutGil released;
            connect_labels(volume, labels, data, n);
        }
        return static_cast<py::array>(connected);
    });
}

// Calls flood(seg), which holds the seeds, and returns its array.
template <class Flood>
py::array flood_seeds(const py::array& seeds, Flood&& flood) {
    return visit_labels(seeds, "seeds", [&](const auto* labels) {
        using Label = std::remove_const_t<std::remove_pointer_t<decltype(labels)>>;
        py::array_t<Label> seg(shape_of(seeds));
        Label* data = seg.mutable_data();
        std::copy(labels, labels + seeds.size(), data);
        flood(data);
        return static_cast<py::array>(seg);
    });
}

py::array volume_watershed(const py::array& aff, const py::array& seeds, const py::array_t<std::int64_t>& nhood,
                           double threshold, std::optional<int> threads) {
    const Volume volume = make_volume(seeds, 0, nhood);
    auto shape = shape_of(seeds);
    shape.insert(shape.begin(), nhood.shape(0));
    check_shape(aff, "aff", shape);
    const int n = threads_or_default(threads);
    return flood_seeds(seeds, [&](auto* seg) {
        visit_affinities_or_bytes(aff, "aff", [&](const auto* affinities) {
            const WithoutGil released;
            watershed(volume, affinities, threshold, seg, n);
            return true;
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

py::array edge_watershed_of(const py::array& node1, const py::array& node2, const py::array& weights,
                            const py::array& seeds, std::optional<int> threads) {
    check_shape(weights, "weights", shape_of(node1));
    const int n = threads_or_default(threads);
    const auto nodes = static_cast<std::size_t>(seeds.size()), edges = static_cast<std::size_t>(node1.size());
    return flood_seeds(seeds, [&](auto* seg) {
        visit_affinities(weights, "weights", [&](const auto* affinities) {
            visit_nodes(node1, node2, [&](const auto* first, const auto* second) {
                const WithoutGil released;
                edge_watershed(first, second, edges, affinities, nodes, seg, n);
            });
            return true;
        });
    });
}

}  // namespace

void register_segmentation(py::module_& m) {
    m.def("components", &volume_components, py::arg("aff"), py::arg("nhood"), py::kw_only(), py::arg("threshold"),
          py::arg("size_thresh"), py::arg("merge_small"), py::arg("num_threads"));
    m.def("chunk_components", &components_of_chunk, py::arg("aff"), py::arg("nhood"), py::arg("open"), py::kw_only(),
          py::arg("threshold"), py::arg("size_thresh"), py::arg("num_threads"));
    m.def("watershed_basins", &volume_basins, py::arg("aff"), py::arg("nhood"), py::kw_only(), py::arg("threshold"),
          py::arg("size_thresh"), py::arg("num_threads"));
    m.def("connect_labels", &connected_labels, py::arg("seg"), py::arg("nhood"), py::kw_only(), py::arg("num_threads"));
    m.def("watershed", &volume_watershed, py::arg("aff"), py::arg("seeds"), py::arg("nhood"), py::kw_only(),
          py::arg("threshold"), py::arg("num_threads"));
    m.def("edge_components", &edge_components, py::arg("n"), py::arg("node1"), py::arg("node2"), py::arg("connected"));
    m.def("edge_watershed", &edge_watershed_of, py::arg("node1"), py::arg("node2"), py::arg("weights"),
          py::arg("seeds"), py::kw_only(), py::arg("num_threads"));
}

}  // namespace malis::bindings
