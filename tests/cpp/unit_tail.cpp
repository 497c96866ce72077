// Which ends of a graph the label head takes the place of. That the result is Python's byte for byte is tested from there.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "check.h"
#include "label_tail.h"
#include "onnx_gate.h"
#include "wire.h"

namespace {

using wire::bytes;
using wire::number;

std::string shape(const std::string &name, const std::vector<std::uint64_t> &sides) {
  std::string all;
  for (const std::uint64_t side : sides) all += bytes(1, number(1, side));
  return bytes(1, name) + bytes(2, bytes(1, number(1, 1) + bytes(2, all)));
}

std::string integer(const std::string &name, std::uint64_t value) {
  return bytes(5, bytes(1, name) + number(3, value) + number(20, 2));
}

std::string text(const std::string &name, const std::string &value) {
  return bytes(5, bytes(1, name) + bytes(4, value) + number(20, 3));
}

std::string node(const std::string &kind, const std::vector<std::string> &inputs, const std::string &output,
                 const std::string &attributes = "") {
  std::string result;
  for (const std::string &input : inputs) result += bytes(1, input);
  return result + bytes(2, output) + bytes(4, kind) + attributes;
}

std::string sizes(const std::vector<std::uint64_t> &values) {
  std::string raw;
  for (const std::uint64_t value : values) {
    for (unsigned shift = 0; shift < 64; shift += 8) raw += static_cast<char>(value >> shift & 0xffU);
  }
  return number(1, values.size()) + number(2, 7) + bytes(8, "sizes") + bytes(9, raw);
}

// A graph that the head can finish, in parts that a test changes.
struct Parts {
  std::string how = text("mode", "linear") + text("coordinate_transformation_mode", "half_pixel");
  std::string which = integer("axis", 1) + integer("keepdims", 0);
  std::string to = integer("to", 2);
  std::vector<std::string> resize_inputs = {"logits", "", "", "sizes"};
  std::vector<std::uint64_t> target = {1, 3, 8, 12}, logits = {1, 3, 4, 6}, labels = {1, 8, 12};
  std::string more;  // of the graph

  std::string model() const {
    std::string graph = bytes(1, node("Relu", {"image"}, "logits"));
    graph += bytes(1, node("Resize", resize_inputs, "full", how));
    graph += bytes(1, node("ArgMax", {"full"}, "best", which));
    graph += bytes(1, node("Cast", {"best"}, "labels", to));
    graph += bytes(5, sizes(target)) + bytes(11, shape("image", logits)) + bytes(12, shape("labels", labels));
    graph += bytes(13, shape("logits", logits)) + bytes(13, shape("full", target)) + more;
    return number(1, 10) + bytes(7, graph) + bytes(8, bytes(1, "") + number(2, 18));
  }
};

std::string result_of(const std::function<void(Parts &)> &change) {
  Parts parts;
  change(parts);
  skr::check_onnx(parts.model(), "m");
  return skr::with_label_head(parts.model(), "m").value_or("");
}

std::string head(const std::string &input, std::uint64_t aligned) {
  const std::string attributes = integer("align_corners", aligned) + integer("height", 8) + integer("width", 12);
  return node("LabelHead", {input}, "labels", attributes) + bytes(7, "searchkit");
}

void test_what_is_left() {
  const std::string graph = bytes(1, node("Relu", {"image"}, "logits")) + bytes(1, head("logits", 0)) +
                            bytes(11, shape("image", {1, 3, 4, 6})) + bytes(12, shape("labels", {1, 8, 12})) +
                            bytes(13, shape("logits", {1, 3, 4, 6}));
  const std::string opsets = bytes(8, bytes(1, "") + number(2, 18)) + bytes(8, bytes(1, "searchkit") + number(2, 1));
  CHECK(result_of([](Parts &) {}) == number(1, 10) + bytes(7, graph) + opsets);
  CHECK(check::contains(result_of([](Parts &p) {
          p.how = text("mode", "linear") + text("coordinate_transformation_mode", "align_corners");
        }), head("logits", 1)));
  // The default of ONNX.
  CHECK(check::contains(result_of([](Parts &p) { p.how = text("mode", "linear"); }), head("logits", 0)));
}

// A resize that the head cannot do stays, where ArgMax is at the size of the labels.
void test_arg_max_alone() {
  const std::string kept = result_of([](Parts &p) { p.how = text("mode", "nearest"); });
  CHECK(check::contains(kept, head("full", 0)) && check::contains(kept, "Resize") && check::contains(kept, "sizes"));
}

void test_other_ends() {
  const auto refused = [](const std::function<void(Parts &)> &change) { return result_of(change).empty(); };
  const std::string linear = text("mode", "linear");
  CHECK(refused([&](Parts &p) { p.how = linear + text("coordinate_transformation_mode", "asymmetric"); }));
  CHECK(refused([&](Parts &p) { p.how = linear + integer("axes", 1); }));
  CHECK(refused([](Parts &p) { p.resize_inputs = {"logits", "", "sizes"}; }));
  CHECK(refused([](Parts &p) { p.resize_inputs = {"logits", "logits", "", "sizes"}; }));
  CHECK(refused([](Parts &p) { p.target = {1, 4, 8, 12}; }));
  CHECK(refused([](Parts &p) { p.target = {1, 3, 8}; }));
  CHECK(refused([](Parts &p) { p.which = integer("axis", 2) + integer("keepdims", 0); }));
  CHECK(refused([](Parts &p) { p.which = integer("keepdims", 0); }));
  CHECK(refused([](Parts &p) { p.which = integer("axis", 1); }));
  CHECK(refused([](Parts &p) { p.which += integer("select_last_index", 1); }));
  CHECK(refused([](Parts &p) { p.to = integer("to", 7); }));
  CHECK(refused([](Parts &p) { p.to = ""; }));
  CHECK(refused([](Parts &p) { p.labels = {1, 0, 12}; }));
  CHECK(refused([](Parts &p) { p.labels = {2, 8, 12}; }));
  CHECK(refused([](Parts &p) { p.logits = {1, 3, 0, 6}; }));
  CHECK(refused([](Parts &p) { p.more = bytes(1, node("Relu", {"best"}, "also")); }));
}

// What else is read stays; of the two nodes in front of it only the last is replaced.
void test_shared_logits() {
  const auto with_reader_of = [](const std::string &name) {
    return result_of([&](Parts &p) { p.more = bytes(1, node("Relu", {name}, "also")); });
  };
  CHECK(check::contains(with_reader_of("logits"), head("logits", 0)));
  CHECK(check::contains(with_reader_of("full"), head("full", 0)));
}

void test_parts_that_are_no_messages() {
  Parts parts;
  parts.more = bytes(13, "\x0a\x7f");
  const std::string refusal = check::refusal([&] { (void)skr::with_label_head(parts.model(), "m"); });
  CHECK(check::contains(refusal, "ends inside a field"));
}

}  // namespace

void test_tail() {
  test_what_is_left();
  test_arg_max_alone();
  test_other_ends();
  test_shared_logits();
  test_parts_that_are_no_messages();
}
