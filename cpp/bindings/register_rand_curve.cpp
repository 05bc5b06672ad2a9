#include "numpy.hpp"

namespace malis::bindings {

namespace {

py::tuple curve_of_grid(const py::array& aff, const py::array& seg, const py::array_t<std::int64_t>& nhood,
                        std::optional<int> threads) {
    const Volume volume = make_volume(seg, 0, nhood);
    auto shape = shape_of(seg);
    shape.insert(shape.begin(), nhood.shape(0));
    check_shape(aff, "aff", shape);
    const int n = threads_or_default(threads);
    const LabelArray labels = label_array(seg, "seg");
    return visit_affinities_or_bytes(aff, "aff", [&](const auto* affinities) {
        using T = AffinityValue<std::remove_const_t<std::remove_pointer_t<decltype(affinities)>>>;
        RandCurve<T> curve;
        {
            const WithoutGil released;
            curve = rand_curve(volume, affinities, labels, n);
        }
        return py::tuple(py::make_tuple(as_array(std::move(curve.thresholds)),
                                        static_cast<double>(curve.best_threshold), curve.true_pairs, curve.foreground,
                                        as_array(std::move(curve.first)), as_array(std::move(curve.true_positives)),
                                        as_array(std::move(curve.false_positives)),
                                        as_array(std::move(curve.voi_split)), as_array(std::move(curve.voi_merge))));
    });
}

}  // namespace

void register_rand_curve(py::module_& m) {
    m.def("rand_curve", &curve_of_grid, py::arg("aff"), py::arg("seg"), py::arg("nhood"), py::kw_only(),
          py::arg("num_threads"));
}

}  // namespace malis::bindings
