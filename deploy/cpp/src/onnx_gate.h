// What a model must be before ONNX Runtime sees a byte of it: one self-contained graph of the operators that searchkit's
// exporter writes. Read on the wire of protobuf, field by field; a field that is not known here is refused, above all
// weights in other files, functions, graphs inside attributes and operators of other domains.
//
// Unlike the Python package's gate this one does not work out the shapes between the nodes, and so does not bound the
// memory that a model may want.
#ifndef SKR_SRC_ONNX_GATE_H
#define SKR_SRC_ONNX_GATE_H

#include <string_view>

namespace skr {

// Throws `Failure` (damaged).
void check_onnx(std::string_view model, std::string_view where);

// Whether searchkit's exporter writes this operator.
bool is_operator(std::string_view name);

}  // namespace skr
#endif
