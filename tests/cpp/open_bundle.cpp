// Opens a bundle and, where that succeeds, segments a grey picture. Prints the code and the message; exit status 1 where
// it was refused. Anything else than 0 or 1 is a crash.

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "searchkit/runtime.hpp"

int main(int argc, char **argv) {
  try {
    searchkit::Options options;
    options.threads = 1;
    if (argc > 2) options.provider = static_cast<skr_provider>(std::atoi(argv[2]));
    const searchkit::Model model(argc > 1 ? argv[1] : "", options);
    searchkit::Segmenter segmenter(model);
    const std::vector<std::uint8_t> grey(40 * 50 * 3, 128);
    const auto labels = segmenter.run({grey.data(), 40, 50, 150});
    std::printf("ok %zu\n", labels.size());
    return 0;
  } catch (const searchkit::Error &error) {
    std::printf("%s: %s\n", skr_code_text(error.code()), error.what());
    return 1;
  }
}
