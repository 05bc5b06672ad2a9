#include "numpy.hpp"
#include "options.hpp"

namespace malis::bindings {

namespace {

py::tuple loss_and_grad(const py::array& aff, const py::array& seg, const py::array_t<std::int64_t>& nhood,
                        const OptionalArray& edge_mask, const OptionalArray& unlabelled_mask, bool channels_last,
                        double scale, const py::kwargs& keywords) {
    const Volume volume = make_volume(seg, 1, nhood);
    auto shape = shape_of(seg);
    const Keywords reader(keywords);
    PairOptions options = pair_options_of_loss(reader);
    options.unlabelled_mask = mask_data(unlabelled_mask, "unlabelled_mask", shape);
    shape.insert(channels_last ? shape.end() : shape.begin() + 1, nhood.shape(0));
    check_shape(aff, "aff", shape);
    options.edge_mask = mask_data(edge_mask, "edge_mask", shape);
    LossOptions loss = loss_options(reader);
    loss.scale = scale;
    const std::size_t samples = static_cast<std::size_t>(seg.shape(0));
    const LabelArray labels = label_array(seg, "seg");
    return visit_affinities(aff, "aff", [&](const auto* affinities) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(affinities)>>;
        py::array_t<double> losses(static_cast<py::ssize_t>(samples));
        py::array_t<T> grad = make_array<T>(shape);
        double* losses_data = losses.mutable_data();
        T* grad_data = grad.mutable_data();
        {
            const WithoutGil released;
            malis_loss_batch(volume, samples, affinities, labels, options, loss, losses_data, grad_data,
                             channels_last ? Layout::channels_last : Layout::channels_first);
        }
        return py::tuple(py::make_tuple(losses, grad));
    });
}

// Value and slope of positive pairs, then of negative ones, for affinities whose counts are known.
py::tuple pair_terms(const py::array_t<double, py::array::c_style>& aff, const py::kwargs& keywords) {
    const PairTerms terms(loss_options(Keywords(keywords)));
    const auto shape = shape_of(aff);
    py::array_t<double> arrays[4] = {make_array<double>(shape), make_array<double>(shape), make_array<double>(shape),
                                     make_array<double>(shape)};
    double* to[4];
    for (std::size_t i = 0; i < 4; ++i) to[i] = arrays[i].mutable_data();
    const double* const from = aff.data();
    const std::size_t size = static_cast<std::size_t>(aff.size());
    {
        const WithoutGil released;
        in_steps(size, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const PairTerm positive = terms.positive(from[i]), negative = terms.negative(from[i]);
                to[0][i] = positive.value;
                to[1][i] = positive.slope;
                to[2][i] = negative.value;
                to[3][i] = negative.slope;
            }
        });
    }
    return py::make_tuple(arrays[0], arrays[1], arrays[2], arrays[3]);
}

// 32-bit integers, or None where a value is no such integer.
std::optional<py::array_t<std::int32_t>> whole_numbers(const py::array& values, std::optional<int> threads) {
    const int count = threads_or_default(threads);
    return visit_affinities(values, "values", [&](const auto* data) {
        py::array_t<std::int32_t> integers = make_array<std::int32_t>(shape_of(values));
        std::int32_t* const to = integers.mutable_data();
        const std::size_t size = static_cast<std::size_t>(values.size());
        Integers found;
        {
            const WithoutGil released;
            found = to_integers(data, size, to, count);
        }
        return found.whole ? std::make_optional(integers) : std::nullopt;
    });
}

}  // namespace

void register_loss(py::module_& m) {
    py::enum_<Pointwise>(m, "Pointwise")
        .value("squared_hinge", Pointwise::squared_hinge)
        .value("cross_entropy", Pointwise::cross_entropy);
    m.def("malis_loss", &loss_and_grad, py::arg("aff"), py::arg("seg"), py::arg("nhood"), py::kw_only(),
          py::arg("edge_mask"), py::arg("unlabelled_mask"), py::arg("channels_last"), py::arg("scale") = 1.0);
    m.def("pair_terms", &pair_terms, py::arg("aff"), py::kw_only());
    m.def("whole_numbers", &whole_numbers, py::arg("values"), py::kw_only(), py::arg("num_threads"));
}

}  // namespace malis::bindings
