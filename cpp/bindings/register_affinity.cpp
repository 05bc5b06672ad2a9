#include "numpy.hpp"

namespace malis::bindings {

namespace {

py::array affinities_of(const py::array& seg, const py::array_t<std::int64_t>& nhood, std::optional<int> threads) {
    const Volume volume = make_volume(seg, 0, nhood);
    const int n = threads_or_default(threads);
    auto shape = shape_of(seg);
    shape.insert(shape.begin(), nhood.shape(0));
    const LabelArray labels = label_array(seg, "seg");
    py::array_t<std::int32_t> aff(shape);
    std::int32_t* data = aff.mutable_data();
    {
        const WithoutGil released;
        seg_to_affgraph(make_grid<std::uint64_t>(volume), labels, data, n);
    }
    return static_cast<py::array>(aff);
}

}  // namespace

void register_affinity(py::module_& m) {
    m.def("seg_to_affgraph", &affinities_of, py::arg("seg"), py::arg("nhood"), py::kw_only(), py::arg("num_threads"));
}

}  // namespace malis::bindings
