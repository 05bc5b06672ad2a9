#include "numpy.hpp"

#include "malis/segmentation/large_components.hpp"

namespace malis::bindings {

namespace {

py::tuple tree_of_grid(const py::array& aff, const py::array_t<std::int64_t>& nhood, std::optional<int> threads) {
    const Volume volume = make_affinity_volume(aff, nhood);
    const int n = threads_or_default(threads);
    return visit_affinities_or_bytes(aff, "aff", [&](const auto* affinities) {
        using T = AffinityValue<std::remove_const_t<std::remove_pointer_t<decltype(affinities)>>>;
        return with_label(volume.voxels(), [&](auto node) {
            SpanningTree<T, decltype(node)> tree;
            {
                const WithoutGil released;
                tree = maximum_spanning_tree<decltype(node)>(volume, affinities, n);
            }
            return py::tuple(py::make_tuple(as_array(std::move(tree.edges)), as_array(std::move(tree.affinities)),
                                            as_array(std::move(tree.node1)), as_array(std::move(tree.node2))));
        });
    });
}

TreeView view_of_tree(std::int64_t nodes, const py::array& affinities, const py::array& node1, const py::array& node2) {
    if (affinities.ndim() != 1)
        throw py::value_error("tree.affinities must have one axis, got " + describe(affinities));
    if (nodes < 1) throw py::value_error("tree.shape must hold at least one voxel, got " + std::to_string(nodes));
    check_shape(node1, "tree.node1", shape_of(affinities));
    check_shape(node2, "tree.node2", shape_of(affinities));
    return visit_affinities(affinities, "tree.affinities", [&](const auto* values) {
        return visit_types<std::int32_t, std::int64_t>(node1, "tree.node1", "int32 or int64", [&](const auto* first) {
            using Node = std::remove_const_t<std::remove_pointer_t<decltype(first)>>;
            return visit_types<Node>(node2, "tree.node2", "that of tree.node1", [&](const Node* second) {
                return TreeView(values, first, second, static_cast<std::size_t>(affinities.size()),
                                static_cast<std::size_t>(nodes));
            });
        });
    });
}

// Calls f with a zero of the type of the nodes of a tree, which has been checked.
template <class F>
auto with_node_of(const py::array& node1, F&& f) {
    if (node1.itemsize() == sizeof(std::int32_t)) return f(std::int32_t{0});
    return f(std::int64_t{0});
}

py::list segmentations_of_tree(const std::vector<py::ssize_t>& shape, const py::array& affinities,
                               const py::array& node1, const py::array& node2, const std::vector<double>& thresholds,
                               std::int64_t size_thresh, std::optional<int> threads) {
    std::int64_t nodes = 1;
    for (const py::ssize_t n : shape) nodes *= n;
    const int n = threads_or_default(threads);
    const TreeView tree = view_of_tree(nodes, affinities, node1, node2);
    return with_label(tree.nodes, [&](auto label) {
        using Label = decltype(label);
        std::vector<py::array_t<Label>> segs;
        std::vector<Label*> data;
        for (std::size_t i = 0; i < thresholds.size(); ++i) {
            segs.emplace_back(shape);
            data.push_back(segs.back().mutable_data());
        }
        std::vector<std::vector<std::int64_t>> sizes;
        {
            const WithoutGil released;
            // Labels of 64 bits are those of so many nodes that their indices have as many.
            if constexpr (std::is_same_v<Label, std::int64_t>) {
                sizes = segment_tree<std::uint64_t>(tree, thresholds, size_thresh, data, n);
            } else {
                sizes = with_index(tree.nodes, 1, [&](auto index) {
                    return segment_tree<decltype(index)>(tree, thresholds, size_thresh, data, n);
                });
            }
        }
        py::list results;
        for (std::size_t i = 0; i < segs.size(); ++i) results.append(py::make_tuple(segs[i], as_array(sizes[i])));
        return results;
    });
}

py::array smaller_sizes_of_tree(std::int64_t nodes, const py::array& affinities, const py::array& node1,
                                const py::array& node2) {
    const TreeView tree = view_of_tree(nodes, affinities, node1, node2);
    return with_node_of(node1, [&](auto node) {
        using Node = decltype(node);
        py::array_t<Node> sizes(static_cast<py::ssize_t>(tree.size));
        Node* data = sizes.mutable_data();
        {
            const WithoutGil released;
            with_index(tree.nodes, 1, [&](auto index) {
                smaller_sizes<decltype(index)>(tree, data);
                return 0;
            });
        }
        return static_cast<py::array>(sizes);
    });
}

py::array linkage_of_tree(std::int64_t nodes, const py::array& affinities, const py::array& node1,
                          const py::array& node2, double highest) {
    const TreeView tree = view_of_tree(nodes, affinities, node1, node2);
    py::array_t<double> rows(std::vector<py::ssize_t>{static_cast<py::ssize_t>(tree.nodes) - 1, 4});
    double* data = rows.mutable_data();
    {
        const WithoutGil released;
        with_index(tree.nodes, 1, [&](auto index) {
            linkage<decltype(index)>(tree, highest, data);
            return 0;
        });
    }
    return rows;
}

py::tuple large_components_of_tree(std::int64_t nodes, const py::array& affinities, const py::array& node1,
                                   const py::array& node2, const std::vector<double>& thresholds,
                                   std::int64_t min_size) {
    const TreeView tree = view_of_tree(nodes, affinities, node1, node2);
    return with_node_of(node1, [&](auto node) {
        using Node = decltype(node);
        LargeComponents<Node> found;
        {
            const WithoutGil released;
            with_index(tree.nodes, 1, [&](auto index) {
                found = large_components<decltype(index), Node>(tree, thresholds, min_size);
                return 0;
            });
        }
        return py::tuple(py::make_tuple(as_array(std::move(found.nodes)), as_array(std::move(found.components)),
                                        as_array(found.begins), as_array(found.into), as_array(found.when)));
    });
}

}  // namespace

void register_tree(py::module_& m) {
    m.def("maximum_spanning_tree", &tree_of_grid, py::arg("aff"), py::arg("nhood"), py::kw_only(),
          py::arg("num_threads"));
    m.def("segment_tree", &segmentations_of_tree, py::arg("shape"), py::arg("affinities"), py::arg("node1"),
          py::arg("node2"), py::arg("thresholds"), py::kw_only(), py::arg("size_thresh"), py::arg("num_threads"));
    m.def("linkage", &linkage_of_tree, py::arg("nodes"), py::arg("affinities"), py::arg("node1"), py::arg("node2"),
          py::kw_only(), py::arg("highest"));
    m.def("smaller_sizes", &smaller_sizes_of_tree, py::arg("nodes"), py::arg("affinities"), py::arg("node1"),
          py::arg("node2"));
    m.def("large_components", &large_components_of_tree, py::arg("nodes"), py::arg("affinities"), py::arg("node1"),
          py::arg("node2"), py::arg("thresholds"), py::arg("min_size"));
}

}  // namespace malis::bindings
