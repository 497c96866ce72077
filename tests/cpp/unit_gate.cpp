#include <cstdint>
#include <string>
#include <utility>

#include "check.h"
#include "onnx_gate.h"
#include "wire.h"

namespace {

using wire::bytes;
using wire::number;
using wire::varint;

// A model of one Relu; `in_graph`, `in_node` and `in_model` are added to it.
std::string model(const std::string &in_graph = "", const std::string &in_node = "", const std::string &in_model = "") {
  const std::string node = bytes(1, "a") + bytes(2, "b") + bytes(4, "Relu") + in_node;
  const std::string graph = bytes(1, node) + bytes(11, bytes(1, "a")) + bytes(12, bytes(1, "b")) + in_graph;
  return number(1, 10) + bytes(8, bytes(1, "") + number(2, 18)) + bytes(7, graph) + in_model;
}

std::string floats(std::uint64_t count, std::size_t held, const std::string &extra = "") {
  return bytes(5, number(1, count) + number(2, 1) + bytes(8, "w") + bytes(9, std::string(held, '\0')) + extra);
}

std::string refused(const std::string &data) {
  return check::refusal([&] { skr::check_onnx(data, "m"); });
}

void test_weights() {
  CHECK(refused(model(floats(4, 16))).empty());
  CHECK(refused(model(bytes(5, bytes(1, varint(2) + varint(2)) + number(2, 1) + bytes(9, std::string(16, '\0'))))).empty());
  CHECK(check::contains(refused(model(floats(4, 15))), "another length"));
  CHECK(check::contains(refused(model(floats(std::uint64_t{1} << 63, 0))), "huge"));
  CHECK(check::contains(refused(model(floats(500'000'001, 0))), "huge"));
  CHECK(check::contains(refused(model(floats(4, 16, bytes(13, bytes(1, "location"))))), "another file"));
  CHECK(check::contains(refused(model(floats(4, 16, number(14, 1)))), "another file"));
  CHECK(refused(model(floats(4, 16, number(14, 0)))).empty());
  CHECK(check::contains(refused(model(floats(4, 16, bytes(4, "0123")))), "weights with a field 4"));
  CHECK(check::contains(refused(model(floats(4, 16, bytes(3, "")))), "weights with a field 3"));
  CHECK(check::contains(refused(model(bytes(5, number(2, 8)))), "another type"));
}

void test_graph() {
  CHECK(refused(model()).empty());
  CHECK(check::contains(refused(model("", bytes(4, "Relu"))), "one operator"));
  CHECK(check::contains(refused(model(bytes(1, bytes(4, "Loop") + bytes(2, "c")))), "operator Loop"));
  CHECK(check::contains(refused(model(bytes(1, bytes(4, "Evil\x1b[2J") + bytes(2, "c")))), "Evil?[2J"));
  CHECK(check::contains(refused(model("", bytes(7, "com.microsoft"))), "com.microsoft"));
  CHECK(check::contains(refused(model("", bytes(5, bytes(1, "body") + bytes(6, "")))), "attribute with a field 6"));
  CHECK(check::contains(refused(model("", bytes(5, bytes(1, "value") + bytes(5, "")))), "attribute with a field 5"));
  CHECK(check::contains(refused(model("", bytes(5, bytes(21, "ref")))), "attribute with a field 21"));
  CHECK(check::contains(refused(model(bytes(15, ""))), "graph with a field 15"));
  CHECK(check::contains(refused(model(bytes(11, ""))), "one input"));
  CHECK(check::contains(refused(model("", "", bytes(25, ""))), "model with a field 25"));
  CHECK(check::contains(refused(model("", "", bytes(20, ""))), "model with a field 20"));
  CHECK(check::contains(refused(model("", "", bytes(7, ""))), "more than one graph"));
  CHECK(check::contains(refused(model("", "", bytes(8, bytes(1, "ai.onnx.ml")))), "standard operator set"));
}

void test_wire() {
  CHECK(check::contains(refused(""), "no graph"));
  CHECK(check::contains(refused(std::string(20, '\xff')), "ten bytes"));
  CHECK(check::contains(refused(std::string("\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11)), "inside a field"));
  CHECK(check::contains(refused(std::string(1, '\0')), "without a number"));
  CHECK(check::contains(refused("\x0b"), "wire type"));
  const std::string whole = model(floats(4, 16));
  for (std::size_t length = 0; length < whole.size(); ++length) CHECK(!refused(whole.substr(0, length)).empty());
}

}  // namespace

void test_gate() {
  test_weights();
  test_graph();
  test_wire();
}
