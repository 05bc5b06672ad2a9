#include "numpy.hpp"

#include "malis/segmentation/settle_counts.hpp"

namespace malis::bindings {

namespace {

py::array settled_edges(const py::array& node1, const py::array& node2, const py::array& terminal) {
    if (terminal.ndim() != 1) throw py::value_error("terminal must have one axis, got " + describe(terminal));
    const bool* mask = mask_data(terminal, "terminal", shape_of(terminal));
    py::array_t<std::uint8_t> kinds(shape_of(node1));
    auto* data = reinterpret_cast<Settled*>(kinds.mutable_data());
    return visit_nodes(node1, node2, [&](const auto* first, const auto* second) {
        {
            const WithoutGil released;
            const auto n = static_cast<std::size_t>(terminal.size()), edges = static_cast<std::size_t>(node1.size());
            with_index(std::max(n, edges), 1, [&](auto index) {
                settle_edges(EdgeList<decltype(index)>{first, second, edges, n}, mask, data);
                return 0;
            });
        }
        return static_cast<py::array>(kinds);
    });
}

using Int64 = py::array_t<std::int64_t, py::array::c_style>;

py::tuple settled_counts(const py::array& node1, const py::array& node2, const py::array& terminal, const Int64& node,
                         const Int64& label, const Int64& voxels, std::int64_t unlabelled,
                         std::optional<std::int64_t> foreground) {
    if (terminal.ndim() != 1) throw py::value_error("terminal must have one axis, got " + describe(terminal));
    const bool* mask = mask_data(terminal, "terminal", shape_of(terminal));
    check_shape(label, "label", shape_of(node));
    check_shape(voxels, "voxels", shape_of(node));
    const NodeEntries entries{node.data(), label.data(), voxels.data(), static_cast<std::size_t>(node.size())};
    const auto n = static_cast<std::size_t>(terminal.size()), edges = static_cast<std::size_t>(node1.size());
    std::int64_t labels = unlabelled;
    for (std::size_t i = 0; i < entries.size; ++i) {
        if (entries.node[i] < 0 || entries.node[i] >= terminal.size() || entries.label[i] < 1 || entries.voxels[i] < 1)
            throw py::value_error("entries must name nodes, labels and voxels that exist, got node " +
                                  std::to_string(entries.node[i]));
        labels = std::max(labels, entries.label[i]);
    }
    py::array_t<std::uint8_t> kinds(shape_of(node1));
    Int64 pos(node1.size()), neg(node1.size()), joint(foreground ? node1.size() : 0), segments(joint.size());
    const SettledCounts found{reinterpret_cast<Settled*>(kinds.mutable_data()), pos.mutable_data(), neg.mutable_data(),
                              foreground ? joint.mutable_data() : nullptr, segments.mutable_data()};
    visit_nodes(node1, node2, [&](const auto* first, const auto* second) {
        const WithoutGil released;
        using Index = std::uint64_t;  // numbers of voxels, which may be more than 32 bits hold in few nodes
        settle_counts<Index>(EdgeList<Index>{first, second, edges, n}, mask, entries, static_cast<Index>(labels),
                             static_cast<Index>(unlabelled), static_cast<std::uint64_t>(foreground.value_or(0)), found);
    });
    return py::make_tuple(kinds, pos, neg, joint, segments);
}

// Entropy of the sizes of labels, and joint - what a sum of changes amounts to, in bits.
py::tuple entropy_of_sizes(const Int64& sizes, std::int64_t foreground) {
    const detail::Entropies entropies(static_cast<std::uint64_t>(foreground));
    std::int64_t sum = 0;
    for (py::ssize_t i = 0; i < sizes.size(); ++i) sum += entropies(static_cast<std::uint64_t>(sizes.data()[i]));
    return py::make_tuple(sum, entropies.value(1));
}

}  // namespace

void register_settle(py::module_& m) {
    m.def("settle_edges", &settled_edges, py::arg("node1"), py::arg("node2"), py::arg("terminal"));
    m.def("settle_counts", &settled_counts, py::arg("node1"), py::arg("node2"), py::arg("terminal"), py::kw_only(),
          py::arg("node"), py::arg("label"), py::arg("voxels"), py::arg("unlabelled"), py::arg("foreground"));
    m.def("entropy_of_sizes", &entropy_of_sizes, py::arg("sizes"), py::arg("foreground"));
}

}  // namespace malis::bindings
