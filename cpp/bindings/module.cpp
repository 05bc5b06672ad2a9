#include "numpy.hpp"

PYBIND11_MODULE(_core, m) {
    using namespace malis::bindings;
    m.doc() = "The compiled core of malis; see the functions of the package for the checked interface.";
    m.attr("__version__") = MALIS_VERSION;
    m.def("num_threads", &malis::num_threads);
    m.def("set_num_threads", &malis::set_num_threads, py::arg("n"));
    register_affinity(m);
    register_edge_pairs(m);
    register_loss(m);
    register_pairs(m);
    register_rand_curve(m);
    register_segmentation(m);
    register_settle(m);
    register_tree(m);
    register_xla(m);
}
