// Segments one picture: labels where the output's name ends in .pgm, the classes' colours else. `plain` runs the exported
// graph as it is, without the native label head.

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "ppm.h"
#include "searchkit/runtime.hpp"

namespace {

std::vector<std::uint8_t> coloured(const searchkit::Model &model, const std::vector<std::uint8_t> &labels) {
  std::vector<std::uint8_t> rgb;
  rgb.reserve(3 * labels.size());
  for (const std::uint8_t label : labels) {
    for (const std::uint8_t value : model.class_colour(label)) rgb.push_back(value);
  }
  return rgb;
}

void print_shares(const searchkit::Model &model, const std::vector<std::uint8_t> &labels) {
  std::vector<std::size_t> counts(256);
  for (const std::uint8_t label : labels) ++counts[label];
  for (int label = 0; label < model.info().classes; ++label) {
    const std::size_t count = counts[static_cast<std::size_t>(label)];
    if (count == 0) continue;
    const double share = 100.0 * static_cast<double>(count) / static_cast<double>(labels.size());
    std::printf("%5.1f %%  %s\n", share, model.class_name(label).c_str());
  }
}

void segment(const std::string &bundle, const std::string &from, const std::string &to,
             const searchkit::Options &options) {
  const searchkit::Model model(bundle, options);
  if (!model.info().trained) std::fprintf(stderr, "this bundle was exported without weights: its labels mean nothing\n");
  const Picture picture = read_ppm(from);
  searchkit::Segmenter segmenter(model);
  const auto labels = segmenter.run({picture.rgb.data(), picture.height, picture.width, 3 * picture.width});
  const bool plain = to.size() > 4 && to.compare(to.size() - 4, 4, ".pgm") == 0;
  write_pnm(to, picture.height, picture.width, plain ? labels : coloured(model, labels));
  print_shares(model, labels);
}

}  // namespace

int main(int argc, char **argv) {
  if (argc < 4 || argc > 6 || (argc == 6 && std::string(argv[5]) != "plain")) {
    std::fprintf(stderr, "usage: segment_picture BUNDLE PICTURE.ppm OUTPUT.ppm|OUTPUT.pgm [THREADS [plain]]\n");
    return 2;
  }
  searchkit::Options options;
  if (argc > 4) options.threads = std::atoi(argv[4]);
  options.plain_graph = argc > 5;
  try {
    segment(argv[1], argv[2], argv[3], options);
    return 0;
  } catch (const searchkit::Error &error) {
    std::fprintf(stderr, "error (%s): %s\n", skr_code_text(error.code()), error.what());
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  }
  return 1;
}
