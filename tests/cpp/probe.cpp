// The inside of the library as a program, for comparisons with the Python package. Reads the standard input, whole, and
// writes the standard output.
//
//   probe canonical                    JSON -> its canonical spelling
//   probe sha256                       bytes -> digest
//   probe holds                        names, one a line -> 1 or 0, whether a bundle may hold them
//   probe operators                    names, one a line -> 1 or 0, whether the gate lets them through
//   probe tail                         model -> the model with the label head at its end; nothing where it has no such end
//   probe scale H W H' W'              RGB -> RGB
//   probe labels H W H' W'             bytes -> bytes
//   probe inside RULE H W H' W'        -> height and width

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "error.h"
#include "json.h"
#include "label_tail.h"
#include "manifest.h"
#include "onnx_gate.h"
#include "scaling.h"
#include "sha256.h"

namespace {

std::string each_line(const std::string &text, const std::function<bool(const std::string &)> &holds) {
  std::istringstream lines(text);
  std::string line, result;
  while (std::getline(lines, line)) result += holds(line) ? "1\n" : "0\n";
  return result;
}

std::string scaled(const std::string &data, const std::vector<long> &sides, bool labels) {
  const skr::Size from{sides.at(0), sides.at(1)}, to{sides.at(2), sides.at(3)};
  const std::int64_t channels = labels ? 1 : 3;
  if (static_cast<std::int64_t>(data.size()) != from.height * from.width * channels) std::abort();
  std::string result(static_cast<std::size_t>(to.height * to.width * channels), '\0');
  const auto *source = reinterpret_cast<const std::uint8_t *>(data.data());
  auto *target = reinterpret_cast<std::uint8_t *>(result.data());
  if (labels) {
    skr::LabelScaler(from, to).run(source, from.width, target, to.width);
  } else {
    skr::scale_picture({source, from.height, from.width, from.width * channels}, target, to, to, {});
  }
  return result;
}

std::string answer(const std::string &what, const std::string &data, const std::vector<std::string> &rest) {
  std::vector<long> sides;
  for (const std::string &text : rest) sides.push_back(std::atol(text.c_str()));
  if (what == "canonical") return skr::json::canonical(skr::json::parse(data, "stdin"), "", "stdin");
  if (what == "sha256") return skr::sha256(data);
  if (what == "holds") return each_line(data, [](const std::string &name) { return skr::may_hold(name); });
  if (what == "operators") return each_line(data, [](const std::string &name) { return skr::is_operator(name); });
  if (what == "tail") {
    skr::check_onnx(data, "stdin");
    return skr::with_label_head(data, "stdin").value_or("");
  }
  if (what == "scale") return scaled(data, sides, false);
  if (what == "labels") return scaled(data, sides, true);
  const skr::Size size = skr::inside(rest.at(0) == "letterbox", {sides.at(1), sides.at(2)}, {sides.at(3), sides.at(4)});
  return std::to_string(size.height) + " " + std::to_string(size.width);
}

}  // namespace

int main(int argc, char **argv) {
  std::ios::sync_with_stdio(false);
  const std::string data((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  try {
    const std::string result = answer(argc > 1 ? argv[1] : "", data, {argv + std::min(argc, 2), argv + argc});
    std::cout.write(result.data(), static_cast<std::streamsize>(result.size()));
    return 0;
  } catch (const skr::Failure &failure) {
    std::cerr << failure.what() << '\n';
    return 1;
  }
}
