// The options of counting and of the loss: each is read here by its name, wherever a call gets its options from.
//
// `Reader` has flag(name), real(name), optional_integer(name) and pointwise(). What Python calls keyword arguments is read
// by Keywords; JAX's calls have a reader of their own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "malis/pairs/loss.hpp"
#include "malis/pairs/options.hpp"
#include "numpy.hpp"

namespace malis::bindings {

class Keywords {
  public:
    explicit Keywords(const py::kwargs& values) : values_(values) {}
    bool flag(const char* name) const { return at(name).cast<bool>(); }
    double real(const char* name) const { return at(name).cast<double>(); }
    std::optional<std::int64_t> optional_integer(const char* name) const {
        return at(name).cast<std::optional<std::int64_t>>();
    }
    Pointwise pointwise() const { return at("pointwise").cast<Pointwise>(); }

  private:
    py::object at(const char* name) const {
        if (!values_.contains(name)) throw py::type_error(std::string("the option ") + name + " is missing");
        return values_[name];
    }
    const py::kwargs& values_;
};

// Everything but the masks, which are arrays.
template <class Reader>
PairOptions pair_options(const Reader& reader) {
    PairOptions options;
    options.constrain_positive = reader.flag("constrain_positive");
    options.constrain_negative = reader.flag("constrain_negative");
    options.ignore_background = reader.flag("ignore_background");
    options.ignore_label = reader.optional_integer("ignore_label");
    const std::optional<std::int64_t> threads = reader.optional_integer("num_threads");
    options.threads = threads_or_default(threads ? std::make_optional(static_cast<int>(*threads)) : std::nullopt);
    return options;
}

// Those of counting that only the loss has.
template <class Reader>
PairOptions pair_options_of_loss(const Reader& reader) {
    PairOptions options = pair_options(reader);
    options.connect_labels = reader.flag("connect_labels");
    return options;
}

// Everything but the scale of the gradient, which is no option of the user.
template <class Reader>
LossOptions loss_options(const Reader& reader) {
    LossOptions options;
    options.margin = reader.real("margin");
    options.pos_loss_weight = reader.real("pos_loss_weight");
    options.normalize = reader.flag("normalize");
    options.pointwise = reader.pointwise();
    options.from_logits = reader.flag("from_logits");
    return options;
}

}  // namespace malis::bindings
