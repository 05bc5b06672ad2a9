// The loss as a custom call of XLA on the CPU: JAX calls it from compiled code, without Python and its lock.
#include "numpy.hpp"
#include "options.hpp"
#include "xla_ffi.hpp"

#include <cmath>
#include <new>
#include <optional>
#include <string_view>

namespace malis::bindings {

namespace {

class Attributes {
  public:
    explicit Attributes(const xla::Attributes& attributes) : attributes_(attributes) {}

    template <class T>
    T scalar(std::string_view name, xla::DataType dtype) const {
        const auto* scalar = static_cast<const xla::Scalar*>(find(name, xla::AttributeType::scalar));
        if (scalar->dtype != dtype) throw std::logic_error("attribute " + std::string(name) + " has another dtype");
        return *static_cast<const T*>(scalar->value);
    }

    bool flag(std::string_view name) const { return scalar<bool>(name, xla::DataType::pred); }
    double real(std::string_view name) const { return scalar<double>(name, xla::DataType::f64); }
    std::int64_t integer(std::string_view name) const { return scalar<std::int64_t>(name, xla::DataType::s64); }

    // An option that is None in Python is left out.
    std::optional<std::int64_t> optional_integer(std::string_view name) const {
        return has(name) ? std::make_optional(integer(name)) : std::nullopt;
    }

    Pointwise pointwise() const {
        return string("pointwise") == "cross_entropy" ? Pointwise::cross_entropy : Pointwise::squared_hinge;
    }

    std::string string(std::string_view name) const {
        const auto* span = static_cast<const xla::ByteSpan*>(find(name, xla::AttributeType::string));
        return {span->data, span->size};
    }

    std::pair<const std::int64_t*, std::size_t> integers(std::string_view name) const {
        const auto* array = static_cast<const xla::Array*>(find(name, xla::AttributeType::array));
        if (array->dtype != xla::DataType::s64)
            throw std::logic_error("attribute " + std::string(name) + " has another dtype");
        return {static_cast<const std::int64_t*>(array->data), array->size};
    }

  private:
    bool has(std::string_view name) const {
        for (std::int64_t i = 0; i < attributes_.size; ++i) {
            const xla::ByteSpan& span = *attributes_.names[i];
            if (std::string_view(span.data, span.size) == name) return true;
        }
        return false;
    }

    const void* find(std::string_view name, xla::AttributeType type) const {
        for (std::int64_t i = 0; i < attributes_.size; ++i) {
            const xla::ByteSpan& span = *attributes_.names[i];
            if (std::string_view(span.data, span.size) == name && attributes_.types[i] == type)
                return attributes_.values[i];
        }
        throw std::logic_error("attribute " + std::string(name) + " is missing or of another type");
    }

    const xla::Attributes& attributes_;
};

const xla::Buffer& buffer_at(const xla::Arguments& buffers, std::int64_t i) {
    if (i >= buffers.size) throw std::logic_error("too few buffers");
    return *static_cast<const xla::Buffer*>(buffers.values[i]);
}

std::size_t size_of(const xla::Buffer& buffer) {
    std::size_t size = 1;
    for (std::int64_t i = 0; i < buffer.rank; ++i) size *= static_cast<std::size_t>(buffer.dims[i]);
    return size;
}

// Labels that came as floats, as integers. With `rounded`, a label too large for its dtype to tell it from the next
// one is an error: frameworks that turn labels into floats may have merged objects.
template <class T>
std::vector<std::int64_t> as_integers(const xla::Buffer& buffer, std::int64_t limit) {
    const T* values = static_cast<const T*>(buffer.data);
    std::vector<std::int64_t> labels(size_of(buffer));
    bool whole = true, small = true;
    const T bound = static_cast<T>(limit > 0 ? static_cast<double>(limit) : 9223372036854775808.0);
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const T value = values[i];
        const bool fits = value > -bound && value < bound;  // false for NaN
        const std::int64_t label = fits ? static_cast<std::int64_t>(value) : 0;
        whole &= !fits || static_cast<T>(label) == value;
        small &= fits;
        labels[i] = label;
    }
    if (!small) {
        for (std::size_t i = 0; i < labels.size(); ++i) whole &= std::isfinite(values[i]);
    }
    if (!whole) throw std::invalid_argument("seg must hold integer labels, got fractions or non-finite values");
    if (!small)
        throw std::invalid_argument(limit > 0 ? "seg must hold labels below " + std::to_string(limit) +
                                                    ", as its floating point dtype rounds larger ones"
                                              : std::string("seg must hold labels below 2**63"));
    return labels;
}

// Nearly all labels are small integers: these are converted in one parallel pass.
template <class T, class F>
void visit_floats(const xla::Buffer& buffer, std::int64_t limit, int threads, F&& f) {
    Buffer<std::int32_t> integers(size_of(buffer));
    const Integers found = to_integers(static_cast<const T*>(buffer.data), integers.size(), integers.data(), threads);
    if (found.whole && (limit <= 0 || found.largest < limit)) {
        f(LabelArray(integers.data()));
    } else {
        f(LabelArray(as_integers<T>(buffer, limit).data()));
    }
}

template <class F>
void visit_labels(const xla::Buffer& buffer, std::int64_t limit, int threads, F&& f) {
    switch (buffer.dtype) {
        case xla::DataType::pred:
        case xla::DataType::u8: return f(static_cast<const std::uint8_t*>(buffer.data));
        case xla::DataType::s8: return f(static_cast<const std::int8_t*>(buffer.data));
        case xla::DataType::u16: return f(static_cast<const std::uint16_t*>(buffer.data));
        case xla::DataType::s16: return f(static_cast<const std::int16_t*>(buffer.data));
        case xla::DataType::u32: return f(static_cast<const std::uint32_t*>(buffer.data));
        case xla::DataType::s32: return f(static_cast<const std::int32_t*>(buffer.data));
        case xla::DataType::u64: return f(static_cast<const std::uint64_t*>(buffer.data));
        case xla::DataType::s64: return f(static_cast<const std::int64_t*>(buffer.data));
        case xla::DataType::f32: return visit_floats<float>(buffer, limit, threads, f);
        case xla::DataType::f64: return visit_floats<double>(buffer, limit, threads, f);
    }
    throw std::logic_error("seg has a dtype that is not taken");
}

template <class T>
void evaluate(const xla::CallFrame& frame) {
    const Attributes attributes(frame.attributes);
    const xla::Buffer& aff = buffer_at(frame.arguments, 0);
    const xla::Buffer& seg = buffer_at(frame.arguments, 1);
    const xla::Buffer& losses = buffer_at(frame.results, 0);
    const xla::Buffer& grad = buffer_at(frame.results, 1);

    const std::int64_t ndim = attributes.integer("ndim");
    const auto [offsets, length] = attributes.integers("nhood");
    if (ndim < 1 || ndim > 3 || seg.rank < ndim) throw std::logic_error("seg has too few axes");
    Volume volume{{1, 1, 1}, {}};
    for (std::int64_t i = 0; i < ndim; ++i)
        volume.shape[static_cast<std::size_t>(3 - ndim + i)] = static_cast<std::size_t>(seg.dims[seg.rank - ndim + i]);
    for (std::size_t k = 0; k < length / static_cast<std::size_t>(ndim); ++k) {
        std::int64_t offset[3] = {0, 0, 0};
        for (std::int64_t i = 0; i < ndim; ++i)
            offset[3 - ndim + i] = offsets[k * static_cast<std::size_t>(ndim) + static_cast<std::size_t>(i)];
        volume.nhood.push_back({offset[0], offset[1], offset[2]});
    }
    // Whatever axes vmap has put in front of the batch belong to the batch.
    const std::size_t samples = size_of(losses);
    if (size_of(seg) != samples * volume.voxels() || size_of(aff) != samples * volume.edges() ||
        size_of(grad) != size_of(aff) || losses.dtype != aff.dtype || grad.dtype != aff.dtype)
        throw std::logic_error("the shapes of the buffers do not go together");

    PairOptions options = pair_options_of_loss(attributes);
    std::int64_t next = 2;
    const auto mask = [&](const char* flag, std::size_t size) -> const bool* {
        if (!attributes.flag(flag)) return nullptr;
        const xla::Buffer& buffer = buffer_at(frame.arguments, next++);
        if (buffer.dtype != xla::DataType::pred || size_of(buffer) != size)
            throw std::logic_error("a mask has another shape or dtype");
        return static_cast<const bool*>(buffer.data);
    };
    options.edge_mask = mask("edge_mask", size_of(aff));
    options.unlabelled_mask = mask("unlabelled_mask", size_of(seg));
    LossOptions loss = loss_options(attributes);
    loss.scale = attributes.real("scale");

    std::vector<double> values(samples);
    const Layout layout = attributes.flag("channels_last") ? Layout::channels_last : Layout::channels_first;
    visit_labels(seg, attributes.integer("label_limit"), options.threads, [&](LabelArray labels) {
        malis_loss_batch(volume, samples, static_cast<const T*>(aff.data), labels, options, loss, values.data(),
                         static_cast<T*>(grad.data), layout);
    });
    std::copy(values.begin(), values.end(), static_cast<T*>(losses.data));
}

xla::Error* error(const xla::CallFrame& frame, xla::ErrorCode code, const std::string& message) {
    xla::ErrorCreateArgs args{sizeof(xla::ErrorCreateArgs), nullptr, message.c_str(), code};
    return frame.api->error_create(&args);
}

// What the library finds wrong in the values, under the names that the caller's arguments have.
std::string renamed(const xla::CallFrame& frame, std::string message) {
    const Attributes attributes(frame.attributes);
    for (const auto* name : {"aff", "seg"}) {
        if (message.rfind(std::string(name) + " ", 0) == 0)
            return attributes.string(std::string("name_of_") + name) + message.substr(3);
    }
    return message;
}

xla::Error* handle(xla::CallFrame* frame) noexcept {
    for (xla::Extension* extension = frame->extension_start; extension != nullptr; extension = extension->next) {
        if (extension->type != xla::kExtensionMetadata) continue;
        // XLA asks which version this handler was written for, and takes none newer than its own. Up to jaxlib 0.8 it
        // does not say which its own is, and all of these take the oldest.
        xla::ApiVersion& version = reinterpret_cast<xla::MetadataExtension*>(extension)->metadata->api_version;
        const int offered = frame->api != nullptr ? frame->api->api_version.minor_version : xla::kOldestMinorVersion;
        version.major_version = xla::kMajorVersion;
        version.minor_version = std::min(xla::kNewestMinorVersion, offered);
        return nullptr;
    }
    try {
        try {
            switch (buffer_at(frame->arguments, 0).dtype) {
                case xla::DataType::f32: evaluate<float>(*frame); return nullptr;
                case xla::DataType::f64: evaluate<double>(*frame); return nullptr;
                default: throw std::logic_error("aff has a dtype that is not taken");
            }
        } catch (const std::invalid_argument& problem) {
            return error(*frame, xla::ErrorCode::invalid_argument, renamed(*frame, problem.what()));
        }
    } catch (const std::bad_alloc&) {
        return error(*frame, xla::ErrorCode::resource_exhausted, "the MALIS loss ran out of memory");
    } catch (const std::exception& problem) {
        return error(*frame, xla::ErrorCode::internal, std::string("malis_loss: ") + problem.what());
    }
}

}  // namespace

void register_xla(py::module_& m) {
    m.def("xla_loss_handler", [] { return py::capsule(reinterpret_cast<void*>(&handle), "xla._CUSTOM_CALL_TARGET"); });
}

}  // namespace malis::bindings
