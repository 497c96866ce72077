#include "onnx_gate.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "error.h"
#include "protobuf_wire.h"

namespace skr {
namespace {

constexpr std::size_t kMaxModelBytes = (std::size_t{1} << 31) - 1;  // what protobuf itself can hold
constexpr std::uint64_t kMaxWeights = 500'000'000;
constexpr std::string_view kOperators[] = {
    "Add", "ArgMax", "AveragePool", "Cast", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace",
    "DequantizeLinear", "Elu", "Equal", "HardSigmoid", "HardSwish", "LeakyRelu", "MaxPool", "Mul", "PRelu",
    "QuantizeLinear", "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Sub", "Tanh",
    "Transpose", "Unsqueeze"};

class Gate {
 public:
  explicit Gate(std::string_view where) : reader_(where) {}

  void model(std::string_view data);

 private:
  [[noreturn]] void refuse(const std::string &problem) const { reader_.refuse(problem); }

  [[noreturn]] void unknown(const char *what, const Field &field) const {
    refuse(std::string(what) + " with a field " + std::to_string(field.number) + " of wire type " +
           std::to_string(field.wire));
  }

  void opset(std::string_view data);
  void graph(std::string_view data);
  void node(std::string_view data);
  void attribute(std::string_view data);
  void weights(std::string_view data);
  void multiply_dims(const Field &field, std::uint64_t &count) const;
  void multiply(std::uint64_t side, std::uint64_t &count) const;

  WireReader reader_;
};

// Numbers are those of onnx.proto.
void Gate::model(std::string_view data) {
  if (data.size() > kMaxModelBytes) refuse("too large");
  int graphs = 0, opsets = 0;
  reader_.each(data, [&](const Field &field) {
    const bool number = (field.number == 1 || field.number == 5) && field.wire == kVarint;
    const bool text = field.wire == kBytes && (field.number == 2 || field.number == 3 || field.number == 4 ||
                                               field.number == 6 || field.number == 14);
    if (field.number == 7 && field.wire == kBytes) {
      if (++graphs > 1) refuse("more than one graph");
      graph(field.bytes);
    } else if (field.number == 8 && field.wire == kBytes) {
      if (++opsets > 1) refuse("not of the standard operator set alone");
      opset(field.bytes);
    } else if (!number && !text) {
      unknown("a model", field);
    }
  });
  if (graphs != 1 || opsets != 1) refuse("no graph, or no operator set");
}

void Gate::opset(std::string_view data) {
  reader_.each(data, [&](const Field &field) {
    const bool version = field.number == 2 && field.wire == kVarint;
    if (version || (field.number == 1 && field.wire == kBytes && field.bytes.empty())) return;
    refuse("not of the standard operator set alone");
  });
}

// Fields: 1 nodes, 2 name, 5 weights, 10 text, 11 inputs, 12 outputs, 13 shapes of what is between.
void Gate::graph(std::string_view data) {
  int inputs = 0, outputs = 0, nodes = 0;
  reader_.each(data, [&](const Field &field) {
    if (field.wire != kBytes) unknown("a graph", field);
    switch (field.number) {
      case 1: ++nodes, node(field.bytes); return;
      case 5: weights(field.bytes); return;
      case 11: ++inputs; return;
      case 12: ++outputs; return;
      case 2:
      case 10:
      case 13: return;
      default: unknown("a graph", field);
    }
  });
  if (inputs != 1 || outputs != 1 || nodes == 0) refuse("not one input and one output with nodes between them");
}

// Fields: 1 inputs, 2 outputs, 3 name, 4 operator, 5 attributes, 6 text, 7 domain, 9 metadata.
void Gate::node(std::string_view data) {
  int operators = 0, outputs = 0;
  reader_.each(data, [&](const Field &field) {
    if (field.wire != kBytes) unknown("a node", field);
    switch (field.number) {
      case 2: ++outputs; return;
      case 4:
        ++operators;
        if (!is_operator(field.bytes)) refuse("operator " + shown(field.bytes) + " is not allowed");
        return;
      case 5: attribute(field.bytes); return;
      case 7:
        if (!field.bytes.empty()) refuse("operator of the domain " + shown(field.bytes));
        return;
      case 1:
      case 3:
      case 6:
      case 9: return;
      default: unknown("a node", field);
    }
  });
  if (operators != 1 || outputs != 1) refuse("a node without one operator and one output");
}

// Fields: 1 name, 2 float, 3 integer, 4 text, 7 floats, 8 integers, 9 texts, 13 text, 20 type. No tensor, no graph.
void Gate::attribute(std::string_view data) {
  reader_.each(data, [&](const Field &field) {
    switch (field.number) {
      case 1:
      case 2:
      case 3:
      case 4:
      case 7:
      case 8:
      case 9:
      case 13:
      case 20: return;
      default: unknown("an attribute", field);
    }
  });
}

void Gate::multiply(std::uint64_t side, std::uint64_t &count) const {
  if (side > kMaxWeights || side * count > kMaxWeights) refuse("weights of a huge shape");
  count *= side;
}

void Gate::multiply_dims(const Field &field, std::uint64_t &count) const {
  if (field.wire == kVarint) return multiply(field.value, count);
  if (field.wire != kBytes) unknown("weights", field);
  for (std::string_view packed = field.bytes; !packed.empty();) multiply(reader_.varint(packed), count);
}

// Bytes of an element of a data type; 0 for one that no export has.
std::uint64_t bytes_of(std::uint64_t type) {
  switch (type) {
    case 2:  // uint8
    case 3:  // int8
    case 9:  // bool
      return 1;
    case 10:  // float16
      return 2;
    case 1:  // float32
    case 6:  // int32
      return 4;
    case 7:  // int64
      return 8;
    default: return 0;
  }
}

// Fields: 1 dimensions, 2 type, 8 name, 9 bytes, 12 text, 14 where the data lies: 0 is here.
void Gate::weights(std::string_view data) {
  std::uint64_t elements = 1, type = 0, held = 0;
  int types = 0, raws = 0;
  reader_.each(data, [&](const Field &field) {
    if (field.number == 1) return multiply_dims(field, elements);
    if (field.number == 2 && field.wire == kVarint) {
      type = field.value, ++types;
    } else if (field.number == 9 && field.wire == kBytes) {
      held = field.bytes.size(), ++raws;
    } else if (field.number == 13 || field.number == 14) {
      if (field.number == 13 || field.wire != kVarint || field.value != 0) refuse("weights in another file");
    } else if (field.wire != kBytes || (field.number != 8 && field.number != 12)) {
      unknown("weights", field);
    }
  });
  if (types != 1 || raws > 1 || bytes_of(type) == 0) refuse("weights of another type");
  if (held != elements * bytes_of(type)) refuse("weights of another length than their shape");
}

}  // namespace

bool is_operator(std::string_view name) {
  return std::binary_search(std::begin(kOperators), std::end(kOperators), name);
}

void check_onnx(std::string_view model, std::string_view where) { Gate(where).model(model); }

}  // namespace skr
