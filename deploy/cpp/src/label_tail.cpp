#include "label_tail.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "protobuf_wire.h"

namespace skr {
namespace {

using Shape = std::vector<std::int64_t>;

// Numbers of fields and of types are those of onnx.proto.
constexpr std::uint32_t kGraph = 7, kOpsets = 8;                                                // of a model
constexpr std::uint32_t kNodes = 1, kWeights = 5, kInputs = 11, kOutputs = 12, kBetween = 13;   // of a graph
constexpr std::uint64_t kInt64 = 7, kUint8 = 2, kIntegerAttribute = 2, kTextAttribute = 3;

struct Attribute {
  std::string_view name, text;
  std::int64_t integer = 0;
  std::uint64_t type = 0;
};

struct Node {
  std::vector<std::string_view> inputs, outputs;
  std::string_view kind, domain;
  std::vector<Attribute> attributes;
};

// A tensor whose shape the model states; the shape is empty where a side is not known.
struct Stated {
  std::string_view name;
  Shape shape;
};

struct Weights {
  std::string_view name, bytes;
  std::uint64_t type = 0;
};

struct Graph {
  std::vector<Node> nodes;
  std::vector<Weights> weights;
  std::vector<Stated> inputs, outputs, between;

  Shape shape_of(std::string_view name) const;
  // The place of the node that makes a tensor which nothing else reads, if it is of this kind; else -1.
  std::ptrdiff_t producer(std::string_view name, std::string_view kind) const;
  Shape integers(std::string_view name) const;
};

// The nodes to replace, by their places, and what takes their place.
struct Tail {
  std::set<std::size_t> nodes;
  std::string_view logits, labels;
  std::int64_t height = 0, width = 0;
  bool aligned = false;
};

class Reader {
 public:
  explicit Reader(std::string_view where) : wire_(where) {}

  Graph graph(std::string_view message) {
    Graph graph;
    wire_.each(message, [&](const Field &field) {
      switch (field.number) {
        case kNodes: graph.nodes.push_back(node(field.bytes)); return;
        case kWeights: graph.weights.push_back(weights(field.bytes)); return;
        case kInputs: graph.inputs.push_back(stated(field.bytes)); return;
        case kOutputs: graph.outputs.push_back(stated(field.bytes)); return;
        case kBetween: graph.between.push_back(stated(field.bytes)); return;
        default: return;
      }
    });
    return graph;
  }

  WireReader &wire() { return wire_; }

 private:
  Node node(std::string_view message) {
    Node node;
    wire_.each(message, [&](const Field &field) {
      switch (field.number) {
        case 1: node.inputs.push_back(field.bytes); return;
        case 2: node.outputs.push_back(field.bytes); return;
        case 4: node.kind = field.bytes; return;
        case 5: node.attributes.push_back(attribute(field.bytes)); return;
        case 7: node.domain = field.bytes; return;
        default: return;
      }
    });
    return node;
  }

  Attribute attribute(std::string_view message) {
    Attribute attribute;
    wire_.each(message, [&](const Field &field) {
      if (field.number == 1) attribute.name = field.bytes;
      if (field.number == 3) attribute.integer = static_cast<std::int64_t>(field.value);
      if (field.number == 4) attribute.text = field.bytes;
      if (field.number == 20) attribute.type = field.value;
    });
    return attribute;
  }

  Weights weights(std::string_view message) {
    Weights weights;
    wire_.each(message, [&](const Field &field) {
      if (field.number == 2) weights.type = field.value;
      if (field.number == 8) weights.name = field.bytes;
      if (field.number == 9) weights.bytes = field.bytes;
    });
    return weights;
  }

  // 2 type, in which 1 tensor, in which 2 shape, in which 1 dimensions.
  Stated stated(std::string_view message) {
    Stated stated;
    wire_.each(message, [&](const Field &field) {
      if (field.number == 1) stated.name = field.bytes;
      if (field.number == 2) stated.shape = shape(inner(inner(field.bytes, 1), 2));
    });
    return stated;
  }

  std::string_view inner(std::string_view message, std::uint32_t number) {
    std::string_view found;
    wire_.each(message, [&](const Field &field) {
      if (field.number == number) found = field.bytes;
    });
    return found;
  }

  // A dimension is 1 a number or 2 a name.
  Shape shape(std::string_view message) {
    Shape shape;
    wire_.each(message, [&](const Field &field) {
      if (field.number != 1) return;
      std::int64_t side = 0;
      wire_.each(field.bytes, [&](const Field &part) {
        if (part.number == 1 || part.number == 2) side = static_cast<std::int64_t>(part.value);
      });
      shape.push_back(side);
    });
    return std::count(shape.begin(), shape.end(), 0) == 0 ? shape : Shape{};
  }

  WireReader wire_;
};

Shape Graph::shape_of(std::string_view name) const {
  for (const auto *tensors : {&outputs, &between, &inputs}) {
    for (const Stated &tensor : *tensors) {
      if (tensor.name == name) return tensor.shape;
    }
  }
  return {};
}

std::ptrdiff_t Graph::producer(std::string_view name, std::string_view kind) const {
  std::ptrdiff_t readers = 0, found = -1;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node &node = nodes[i];
    readers += std::count(node.inputs.begin(), node.inputs.end(), name);
    const bool makes = std::count(node.outputs.begin(), node.outputs.end(), name) > 0;
    if (makes && found < 0) found = static_cast<std::ptrdiff_t>(i);
  }
  if (readers > 1 || found < 0) return -1;
  const Node &node = nodes[static_cast<std::size_t>(found)];
  return node.kind == kind && node.domain.empty() ? found : -1;
}

Shape Graph::integers(std::string_view name) const {
  for (const Weights &weights_ : weights) {
    if (weights_.name != name) continue;
    Shape values(weights_.type == kInt64 ? weights_.bytes.size() / sizeof(std::int64_t) : 0);
    if (!values.empty()) std::memcpy(values.data(), weights_.bytes.data(), values.size() * sizeof(std::int64_t));
    return values;
  }
  return {};
}

const Attribute *find(const Node &node, std::string_view name) {
  const auto named = [&](const Attribute &attribute) { return attribute.name == name; };
  const auto found = std::find_if(node.attributes.begin(), node.attributes.end(), named);
  return found == node.attributes.end() ? nullptr : &*found;
}

// What is not stated has the value that ONNX gives it.
std::int64_t integer(const Node &node, std::string_view name, std::int64_t unstated) {
  const Attribute *found = find(node, name);
  if (!found) return unstated;
  return found->type == kIntegerAttribute ? found->integer : -1;
}

std::string_view text(const Node &node, std::string_view name, std::string_view unstated) {
  const Attribute *found = find(node, name);
  if (!found) return unstated;
  return found->type == kTextAttribute ? found->text : std::string_view{};
}

bool is_over_classes(const Node &best) {
  const bool first = integer(best, "select_last_index", 0) == 0;
  return first && integer(best, "axis", 0) == 1 && integer(best, "keepdims", 1) == 0;
}

bool is_linear(const Node &resize) {
  return text(resize, "mode", "nearest") == "linear" && integer(resize, "antialias", 0) == 0;
}

// Whether a resize is to stated N, C, H, W of which the first two stay, between corners that the operator knows.
bool set_corners(const Graph &graph, const Node &resize, Tail &tail) {
  const auto &inputs = resize.inputs;
  if (inputs.size() != 4 || !inputs[1].empty() || !inputs[2].empty() || find(resize, "axes")) return false;
  const Shape sizes = graph.integers(inputs[3]), before = graph.shape_of(inputs[0]);
  if (sizes.size() != 4 || before.size() < 2 || sizes[0] != before[0] || sizes[1] != before[1]) return false;
  const std::string_view corners = text(resize, "coordinate_transformation_mode", "half_pixel");
  tail.aligned = corners == "align_corners";
  return tail.aligned || corners == "half_pixel";
}

std::optional<Tail> find_tail(const Graph &graph) {
  if (graph.outputs.size() != 1) return {};
  const Shape labels = graph.outputs[0].shape;
  Tail tail;
  tail.labels = graph.outputs[0].name;
  const auto add = [&](std::string_view name, std::string_view kind) -> const Node * {
    const std::ptrdiff_t place = graph.producer(name, kind);
    return place < 0 ? nullptr : &graph.nodes[*tail.nodes.insert(static_cast<std::size_t>(place)).first];
  };
  const Node *cast = labels.size() == 3 ? add(tail.labels, "Cast") : nullptr;
  if (!cast || integer(*cast, "to", 0) != static_cast<std::int64_t>(kUint8) || cast->inputs.empty()) return {};
  const Node *best = add(cast->inputs[0], "ArgMax");
  if (!best || !is_over_classes(*best) || best->inputs.empty()) return {};
  tail.logits = best->inputs[0];
  const std::ptrdiff_t before_best = graph.producer(tail.logits, "Resize");
  const bool resized = before_best >= 0 && is_linear(graph.nodes[static_cast<std::size_t>(before_best)]);
  if (resized) {
    const Node &resize = *add(tail.logits, "Resize");
    if (!set_corners(graph, resize, tail)) return {};
    tail.logits = resize.inputs[0];
  }
  const Shape before = graph.shape_of(tail.logits);
  tail.height = labels[1], tail.width = labels[2];
  if (before.size() != 4 || before[0] != labels[0]) return {};
  if (!resized && (before[2] != tail.height || before[3] != tail.width)) return {};
  return tail;
}

void put_integer(std::string &node, std::string_view name, std::int64_t value) {
  std::string attribute;
  put_bytes(attribute, 1, name);
  put_number(attribute, 3, static_cast<std::uint64_t>(value));
  put_number(attribute, 20, kIntegerAttribute);
  put_bytes(node, 5, attribute);
}

std::string head_of(const Tail &tail) {
  std::string node;
  put_bytes(node, 1, tail.logits);
  put_bytes(node, 2, tail.labels);
  put_bytes(node, 4, "LabelHead");
  put_integer(node, "align_corners", tail.aligned);
  put_integer(node, "height", tail.height);
  put_integer(node, "width", tail.width);
  put_bytes(node, 7, "searchkit");
  return node;
}

// Names of all that is read or made by the nodes that stay.
std::set<std::string_view> names_in_use(const Graph &graph, const Tail &tail) {
  std::set<std::string_view> names = {tail.logits};
  for (std::size_t i = 0; i < graph.nodes.size(); ++i) {
    if (tail.nodes.count(i) > 0) continue;
    names.insert(graph.nodes[i].inputs.begin(), graph.nodes[i].inputs.end());
    names.insert(graph.nodes[i].outputs.begin(), graph.nodes[i].outputs.end());
  }
  return names;
}

// The graph's message with the head for its last node, without what only the tail read or made.
std::string changed(std::string_view message, const Graph &graph, const Tail &tail, WireReader &wire) {
  const std::set<std::string_view> used = names_in_use(graph, tail);
  std::string result;
  result.reserve(message.size() + 256);
  std::size_t node = 0, weights = 0, between = 0;
  wire.each(message, [&](const Field &field) {
    bool stays = true;
    if (field.number == kNodes) stays = tail.nodes.count(node++) == 0;
    if (field.number == kWeights) stays = used.count(graph.weights[weights++].name) > 0;
    if (field.number == kBetween) stays = used.count(graph.between[between++].name) > 0;
    if (stays) result += field.whole;
    if (field.number == kNodes && node == graph.nodes.size()) put_bytes(result, kNodes, head_of(tail));
  });
  return result;
}

}  // namespace

std::optional<std::string> with_label_head(std::string_view model, std::string_view where) {
  Reader reader(where);
  std::string_view message;
  reader.wire().each(model, [&](const Field &field) {
    if (field.number == kGraph) message = field.bytes;
  });
  const Graph graph = reader.graph(message);
  const std::optional<Tail> tail = find_tail(graph);
  if (!tail) return {};
  std::string opset;
  put_bytes(opset, 1, "searchkit");
  put_number(opset, 2, 1);
  std::string result;
  result.reserve(model.size() + 256);
  reader.wire().each(model, [&](const Field &field) {
    if (field.number == kGraph) {
      put_bytes(result, kGraph, changed(message, graph, *tail, reader.wire()));
    } else {
      result += field.whole;
    }
    if (field.number == kOpsets) put_bytes(result, kOpsets, opset);
  });
  return result;
}

}  // namespace skr
