#include "numpy.hpp"
#include "options.hpp"

namespace malis::bindings {

namespace {

py::tuple edge_pair_counts(const py::array& node1, const py::array& node2, const py::array& weights,
                           const py::array& seg, const OptionalArray& edge_mask, const OptionalArray& unlabelled_mask,
                           bool want_positive, bool want_negative, const py::kwargs& keywords) {
    if (seg.ndim() != 1 || seg.size() < 1) throw py::value_error("seg must have one axis, got " + describe(seg));
    if (node1.ndim() != 1) throw py::value_error("node1 must have one axis, got " + describe(node1));
    check_shape(weights, "weights", shape_of(node1));
    PairOptions options = pair_options(Keywords(keywords));
    options.unlabelled_mask = mask_data(unlabelled_mask, "unlabelled_mask", shape_of(seg));
    options.edge_mask = mask_data(edge_mask, "edge_mask", shape_of(node1));
    const std::size_t nodes = static_cast<std::size_t>(seg.size()), edges = static_cast<std::size_t>(node1.size());
    const LabelArray labels = label_array(seg, "seg");
    return visit_affinities(weights, "weights", [&](const auto* affinities) {
        py::array_t<std::int64_t> pos(want_positive ? node1.size() : 0), neg(want_negative ? node1.size() : 0);
        std::int64_t* pos_data = want_positive ? pos.mutable_data() : nullptr;
        std::int64_t* neg_data = want_negative ? neg.mutable_data() : nullptr;
        visit_nodes(node1, node2, [&](const auto* first, const auto* second) {
            const WithoutGil released;
            count_edge_pairs(first, second, edges, affinities, labels, nodes, options, pos_data, neg_data);
        });
        return py::tuple(py::make_tuple(pos, neg));
    });
}

}  // namespace

void register_edge_pairs(py::module_& m) {
    m.def("edge_pair_counts", &edge_pair_counts, py::arg("node1"), py::arg("node2"), py::arg("weights"), py::arg("seg"),
          py::kw_only(), py::arg("edge_mask"), py::arg("unlabelled_mask"), py::arg("want_positive"),
          py::arg("want_negative"));
}

}  // namespace malis::bindings
