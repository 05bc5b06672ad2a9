#include "numpy.hpp"
#include "options.hpp"

namespace malis::bindings {

namespace {

py::tuple pair_counts(const py::array& aff, const py::array& seg, const py::array_t<std::int64_t>& nhood,
                      const OptionalArray& edge_mask, const OptionalArray& unlabelled_mask,
                      const py::kwargs& keywords) {
    const Volume volume = make_volume(seg, 0, nhood);
    auto shape = shape_of(seg);
    PairOptions options = pair_options(Keywords(keywords));
    options.unlabelled_mask = mask_data(unlabelled_mask, "unlabelled_mask", shape);
    shape.insert(shape.begin(), nhood.shape(0));
    check_shape(aff, "aff", shape);
    options.edge_mask = mask_data(edge_mask, "edge_mask", shape);
    const LabelArray labels = label_array(seg, "seg");
    return visit_affinities(aff, "aff", [&](const auto* affinities) {
        py::array_t<std::int64_t> pos(shape), neg(shape);
        std::int64_t* pos_data = pos.mutable_data();
        std::int64_t* neg_data = neg.mutable_data();
        {
            const WithoutGil released;
            count_pairs(volume, affinities, labels, options, pos_data, neg_data);
        }
        return py::tuple(py::make_tuple(pos, neg));
    });
}

}  // namespace

void register_pairs(py::module_& m) {
    m.def("pair_counts", &pair_counts, py::arg("aff"), py::arg("seg"), py::arg("nhood"), py::kw_only(),
          py::arg("edge_mask"), py::arg("unlabelled_mask"));
}

}  // namespace malis::bindings
