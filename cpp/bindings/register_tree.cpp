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

// Calls f with a view of the arrays of a tree over `nodes` nodes.
template <class F>
auto visit_tree(std::int64_t nodes, const py::array& affinities, const py::array& node1, const py::array& node2,
                F&& f) {
    if (affinities.ndim() != 1)
        throw py::value_error("tree.affinities must have one axis, got " + describe(affinities));
    if (nodes < 1) throw py::value_error("tree.shape must hold at least one voxel, got " + std::to_string(nodes));
    check_shape(node1, "tree.node1", shape_of(affinities));
    check_shape(node2, "tree.node2", shape_of(affinities));
    return visit_affinities(affinities, "tree.affinities", [&](const auto* values) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(values)>>;
        return visit_types<std::int32_t, std::int64_t>(node1, "tree.node1", "int32 or int64", [&](const auto* first) {
            using Node = std::remove_const_t<std::remove_pointer_t<decltype(first)>>;
            return visit_types<Node>(node2, "tree.node2", "that of tree.node1", [&](const Node* second) {
                return f(TreeView<T, Node>{values, first, second, static_cast<std::size_t>(affinities.size()),
                                           static_cast<std::size_t>(nodes)});
            });
        });
    });
}

py::list segmentations_of_tree(const std::vector<py::ssize_t>& shape, const py::array& affinities,
                               const py::array& node1, const py::array& node2, const std::vector<double>& thresholds,
                               std::int64_t size_thresh, std::optional<int> threads) {
    std::int64_t nodes = 1;
    for (const py::ssize_t n : shape) nodes *= n;
    const int n = threads_or_default(threads);
    return visit_tree(nodes, affinities, node1, node2, [&](const auto& tree) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(tree.affinities)>>;
        return with_label(tree.nodes, [&](auto label) {
            using Label = decltype(label);
            // In the precision of the affinities, as NumPy compares them.
            const std::vector<T> at(thresholds.begin(), thresholds.end());
            std::vector<py::array_t<Label>> segs;
            std::vector<Label*> data;
            for (std::size_t i = 0; i < at.size(); ++i) {
                segs.emplace_back(shape);
                data.push_back(segs.back().mutable_data());
            }
            std::vector<std::vector<std::int64_t>> sizes;
            {
                const WithoutGil released;
                sizes = with_index(tree.nodes, 1, [&](auto index) {
                    return segment_tree<decltype(index)>(tree, at, size_thresh, data, n);
                });
            }
            py::list results;
            for (std::size_t i = 0; i < at.size(); ++i) results.append(py::make_tuple(segs[i], as_array(sizes[i])));
            return results;
        });
    });
}

py::array smaller_sizes_of_tree(std::int64_t nodes, const py::array& affinities, const py::array& node1,
                                const py::array& node2) {
    return visit_tree(nodes, affinities, node1, node2, [&](const auto& tree) {
        using Node = std::remove_const_t<std::remove_reference_t<decltype(*tree.node1)>>;
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
    return visit_tree(nodes, affinities, node1, node2, [&](const auto& tree) {
        py::array_t<double> rows(std::vector<py::ssize_t>{static_cast<py::ssize_t>(tree.nodes) - 1, 4});
        double* data = rows.mutable_data();
        {
            const WithoutGil released;
            with_index(tree.nodes, 1, [&](auto index) {
                linkage<decltype(index)>(tree, highest, data);
                return 0;
            });
        }
        return static_cast<py::array>(rows);
    });
}

py::tuple large_components_of_tree(std::int64_t nodes, const py::array& affinities, const py::array& node1,
                                   const py::array& node2, const std::vector<double>& thresholds,
                                   std::int64_t min_size) {
    return visit_tree(nodes, affinities, node1, node2, [&](const auto& tree) {
        using T = std::remove_cv_t<std::remove_pointer_t<decltype(tree.affinities)>>;
        using Node = std::remove_cv_t<std::remove_pointer_t<decltype(tree.node1)>>;
        const std::vector<T> at(thresholds.begin(), thresholds.end());
        LargeComponents<Node> found;
        {
            const WithoutGil released;
            with_index(tree.nodes, 1, [&](auto index) {
                found = large_components<decltype(index)>(tree, at, min_size);
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
