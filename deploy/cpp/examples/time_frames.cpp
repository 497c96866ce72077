// Times one frame again and again when told to, so that another program can take turns with this one:
//
//   time_frames BUNDLE HEIGHT WIDTH THREADS native|plain < frame-and-commands
//
// The standard input begins with the frame, raw RGB of 8 bits. Each line after it is a number of runs. Each run is answered
// by a line of nanoseconds: the whole call, and of that the picture to input, ONNX Runtime, labels to the picture's size.
// `plain` runs the exported graph as it is, without the native label head.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "searchkit/runtime.hpp"

namespace {

using Clock = std::chrono::steady_clock;

struct Record {
  std::int64_t call_ns;
  searchkit::Times parts;
};

void take_turn(searchkit::Segmenter &segmenter, const searchkit::Picture &picture, const searchkit::LabelMap &labels,
               std::vector<Record> &records) {
  for (Record &record : records) {
    const auto start = Clock::now();
    segmenter.run(picture, labels);
    record.call_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
    record.parts = segmenter.last_times();
  }
  for (const Record &record : records) {
    std::printf("%lld %lld %lld %lld\n", static_cast<long long>(record.call_ns),
                static_cast<long long>(record.parts.fit_ns), static_cast<long long>(record.parts.session_ns),
                static_cast<long long>(record.parts.restore_ns));
  }
  std::fflush(stdout);
}

void serve(char **arguments) {
  const std::int64_t height = std::atol(arguments[2]), width = std::atol(arguments[3]);
  if (height < 1 || height > SKR_MAX_SIDE_PX || width < 1 || width > SKR_MAX_SIDE_PX) {
    throw std::invalid_argument("HEIGHT or WIDTH out of range");
  }
  searchkit::Options options;
  options.threads = std::atoi(arguments[4]);
  options.plain_graph = std::string(arguments[5]) == "plain";
  const searchkit::Model model(arguments[1], options);
  searchkit::Segmenter segmenter(model);
  std::vector<std::uint8_t> frame(static_cast<std::size_t>(height * width * 3));
  std::vector<std::uint8_t> labels(static_cast<std::size_t>(height * width));
  if (std::fread(frame.data(), 1, frame.size(), stdin) != frame.size()) throw std::runtime_error("no whole frame");
  long runs = 0;
  while (std::scanf("%ld", &runs) == 1) {
    if (runs < 1 || runs > 1'000'000) throw std::runtime_error("a turn of no sane length");
    std::vector<Record> records(static_cast<std::size_t>(runs));
    take_turn(segmenter, {frame.data(), height, width, 3 * width}, {labels.data(), height, width, width}, records);
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: time_frames BUNDLE HEIGHT WIDTH THREADS native|plain\n");
    return 2;
  }
  try {
    serve(argv);
    return 0;
  } catch (const searchkit::Error &error) {
    std::fprintf(stderr, "error (%s): %s\n", skr_code_text(error.code()), error.what());
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  }
  return 1;
}
