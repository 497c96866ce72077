// The end of a graph that gives labels (Resize, ArgMax and Cast, or the last two where nothing is resized), replaced by
// the operator LabelHead of the domain `searchkit`. The rule, and the model that comes out, byte for byte, are those of
// `with_label_head` in the Python package.
#ifndef SKR_SRC_LABEL_TAIL_H
#define SKR_SRC_LABEL_TAIL_H

#include <optional>
#include <string>
#include <string_view>

namespace skr {

// A model that has passed the gate, with the operator at its end; nothing where it does not end so: the resize must be
// linear and to sizes that the model states, ArgMax over the classes, Cast to uint8, and nothing else may read what is
// between them. Throws `Failure` (damaged) where a part that the gate does not look into is no message of protobuf.
std::optional<std::string> with_label_head(std::string_view model, std::string_view where);

}  // namespace skr
#endif
