// What the bindings share: NumPy arrays as typed pointers, without copies, and the types that the library takes.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "malis/malis.hpp"
#include "without_gil.hpp"

namespace malis::bindings {

namespace py = pybind11;
using OptionalArray = std::optional<py::array>;

inline std::string describe(const py::array& array) {
    std::string shape;
    for (py::ssize_t i = 0; i < array.ndim(); ++i) shape += (i ? ", " : "") + std::to_string(array.shape(i));
    return "an array of shape (" + shape + (array.ndim() == 1 ? ",)" : ")") + " and dtype " +
           py::str(array.dtype()).cast<std::string>();
}

inline void check_contiguous(const py::array& array, const char* name) {
    if (!(array.flags() & py::array::c_style) || !(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) {
        throw py::value_error(std::string(name) + " must be C-contiguous and aligned");
    }
}

inline void check_shape(const py::array& array, const char* name, const std::vector<py::ssize_t>& shape) {
    if (std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()) == shape) return;
    std::string expected;
    for (std::size_t i = 0; i < shape.size(); ++i) expected += (i ? ", " : "") + std::to_string(shape[i]);
    throw py::value_error(std::string(name) + " must have shape (" + expected + (shape.size() == 1 ? ",)" : ")") +
                          ", got " + describe(array));
}

inline std::vector<py::ssize_t> shape_of(const py::array& array) {
    return {array.shape(), array.shape() + array.ndim()};
}

// A new array, aligned as TensorFlow wants the memory that it takes over without a copy.
template <class T>
py::array_t<T> make_array(const std::vector<py::ssize_t>& shape) {
    std::size_t size = 1;
    for (const py::ssize_t n : shape) size *= static_cast<std::size_t>(n);
    auto memory = std::make_unique<Buffer<T>>(size);
    T* const data = memory->data();
    const py::capsule owner(memory.get(), [](void* buffer) { delete static_cast<Buffer<T>*>(buffer); });
    memory.release();
    return py::array_t<T>(shape, data, owner);
}

// A pointer to the data of a boolean mask, or null.
inline const bool* mask_data(const OptionalArray& mask, const char* name, const std::vector<py::ssize_t>& shape) {
    if (!mask) return nullptr;
    if (!py::isinstance<py::array_t<bool>>(*mask))
        throw py::type_error(std::string(name) + " must have dtype bool, got " + describe(*mask));
    check_contiguous(*mask, name);
    check_shape(*mask, name, shape);
    return static_cast<const bool*>(mask->data());
}

template <class... Types, class F>
auto visit_types(const py::array& array, const char* name, const char* expected, F&& f) {
    check_contiguous(array, name);
    using First = std::tuple_element_t<0, std::tuple<Types...>>;
    using Result = decltype(f(static_cast<const First*>(nullptr)));
    std::optional<Result> result;
    (void)((py::isinstance<py::array_t<Types>>(array) ? (result = f(static_cast<const Types*>(array.data())), true)
                                                      : false) ||
           ...);
    if (!result) throw py::type_error(std::string(name) + " must have dtype " + expected + ", got " + describe(array));
    return std::move(*result);
}

template <class F>
auto visit_affinities(const py::array& array, const char* name, F&& f) {
    return visit_types<float, double>(array, name, "float32 or float64", std::forward<F>(f));
}

// The same for functions that take bytes of 0 to 255 for affinities of 0 to 1 as well.
template <class F>
auto visit_affinities_or_bytes(const py::array& array, const char* name, F&& f) {
    return visit_types<float, double, std::uint8_t>(array, name, "uint8, float32 or float64", std::forward<F>(f));
}

// Calls f with a pointer to labels of their own type.
template <class F>
auto visit_labels(const py::array& array, const char* name, F&& f) {
    return visit_types<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t,
                       std::uint64_t, std::int64_t>(array, name, "of 8 to 64 bit integers", std::forward<F>(f));
}

inline LabelArray label_array(const py::array& array, const char* name) {
    return visit_labels(array, name, [](const auto* labels) { return LabelArray(labels); });
}

// Nodes: 32 or 64 bits, read as unsigned, so that negative numbers lie outside of any graph.
template <class F>
auto visit_nodes(const py::array& node1, const py::array& node2, F&& f) {
    check_contiguous(node1, "node1");
    check_contiguous(node2, "node2");
    check_shape(node2, "node2", shape_of(node1));
    const char kind1 = node1.dtype().kind(), kind2 = node2.dtype().kind();
    const auto size = node1.dtype().itemsize();
    const auto integer = [](char kind) { return kind == 'i' || kind == 'u'; };
    if (!integer(kind1) || !integer(kind2) || size != node2.dtype().itemsize() || (size != 4 && size != 8))
        throw py::type_error("node1 and node2 must have one dtype of 32 or 64 bit integers, got " + describe(node1) +
                             " and " + describe(node2));
    if (size == 4)
        return f(static_cast<const std::uint32_t*>(node1.data()), static_cast<const std::uint32_t*>(node2.data()));
    return f(static_cast<const std::uint64_t*>(node1.data()), static_cast<const std::uint64_t*>(node2.data()));
}

// A volume from the spatial axes of an array, from axis `first` on, and a neighbourhood of shape (K, ndim).
inline Volume make_volume(const py::array& array, py::ssize_t first, const py::array_t<std::int64_t>& nhood) {
    const py::ssize_t ndim = array.ndim() - first;
    if (ndim < 1 || ndim > 3 || nhood.ndim() != 2 || nhood.shape(1) != ndim || nhood.shape(0) < 1)
        throw py::value_error("nhood must have shape (K, ndim) with 1 to 3 axes, got " + describe(nhood) + " for " +
                              describe(array));
    Volume volume{{1, 1, 1}, {}};
    for (py::ssize_t i = 0; i < ndim; ++i) {
        volume.shape[static_cast<std::size_t>(3 - ndim + i)] = static_cast<std::size_t>(array.shape(first + i));
        if (array.shape(first + i) < 1) throw py::value_error("volumes must not be empty, got " + describe(array));
    }
    const auto at = nhood.unchecked<2>();
    for (py::ssize_t k = 0; k < nhood.shape(0); ++k) {
        std::int64_t offset[3] = {0, 0, 0};
        for (py::ssize_t i = 0; i < ndim; ++i) offset[3 - ndim + i] = at(k, i);
        volume.nhood.push_back({offset[0], offset[1], offset[2]});
    }
    return volume;
}

// The volume of affinities (K, *shape), one channel for each offset.
inline Volume make_affinity_volume(const py::array& aff, const py::array_t<std::int64_t>& nhood) {
    const Volume volume = make_volume(aff, 1, nhood);
    if (aff.shape(0) != nhood.shape(0))
        throw py::value_error("aff must have one channel for each of the " + std::to_string(nhood.shape(0)) +
                              " offsets of nhood, got " + describe(aff));
    return volume;
}

// Calls f with a zero of the type of labels and voxel numbers: 32 bits as long as every voxel could have its own.
template <class F>
auto with_label(std::size_t nodes, F&& f) {
    if (nodes < (std::size_t{1} << 31)) return f(std::int32_t{0});
    return f(std::int64_t{0});
}

inline py::array_t<std::int64_t> as_array(const std::vector<std::int64_t>& values) {
    return py::array_t<std::int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

// An array that owns the buffer.
template <class T>
py::array_t<T> as_array(Buffer<T>&& values) {
    auto owned = std::make_unique<Buffer<T>>(std::move(values));
    const auto size = static_cast<py::ssize_t>(owned->size());
    if (size == 0) return py::array_t<T>(0);
    const T* data = owned->data();
    const py::capsule owner(owned.get(), [](void* buffer) { delete static_cast<Buffer<T>*>(buffer); });
    owned.release();
    return py::array_t<T>(size, data, owner);
}

// Work is divided into as many parts as there are threads: no more than can run at once.
inline int threads_or_default(std::optional<int> threads) {
    if (threads && *threads < 1)
        throw py::value_error("num_threads must be an integer of at least 1, got " + std::to_string(*threads));
    return std::min(threads ? *threads : num_threads(), available_cores());
}

void register_affinity(py::module_& m);
void register_edge_pairs(py::module_& m);
void register_loss(py::module_& m);
void register_pairs(py::module_& m);
void register_rand_curve(py::module_& m);
void register_segmentation(py::module_& m);
void register_settle(py::module_& m);
void register_tree(py::module_& m);
void register_xla(py::module_& m);

}  // namespace malis::bindings
