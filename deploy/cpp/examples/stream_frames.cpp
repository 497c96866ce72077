// Segments a stream of frames, raw RGB of 8 bits, and says how long frames took.
//
//   ffmpeg -i drive.mp4 -f rawvideo -pix_fmt rgb24 - | stream_frames BUNDLE 1024 2048
//   stream_frames BUNDLE 512 1024 --noise 200          # frames made here: how fast is it?
//
// Latency is from a frame's last byte to its last label; reading the frame is not in it.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "searchkit/runtime.hpp"

namespace {

struct Arguments {
  std::string bundle;
  std::int64_t height = 0, width = 0;
  long noise = 0;    // frames to make; 0: read them from the standard input
  long warm_up = 5;  // frames that are not counted
  int threads = 0;
  bool plain_graph = false;
};

Arguments parse(int argc, char **argv) {
  if (argc < 4 || argc % 2 != 0) throw std::invalid_argument("three arguments and pairs of options");
  Arguments result;
  result.bundle = argv[1];
  result.height = std::atol(argv[2]);
  result.width = std::atol(argv[3]);
  for (int i = 4; i < argc; i += 2) {
    const std::string name = argv[i];
    const long value = std::atol(argv[i + 1]);
    if (value < 0 || value > 1'000'000'000) throw std::invalid_argument(name + " out of range");
    if (name == "--noise") {
      result.noise = value;
    } else if (name == "--warm-up") {
      result.warm_up = value;
    } else if (name == "--threads") {
      result.threads = static_cast<int>(value);
    } else if (name == "--plain-graph") {
      result.plain_graph = value != 0;
    } else {
      throw std::invalid_argument("no such option: " + name);
    }
  }
  const auto sane = [](std::int64_t side) { return side >= 1 && side <= SKR_MAX_SIDE_PX; };
  if (!sane(result.height) || !sane(result.width)) throw std::invalid_argument("HEIGHT or WIDTH out of range");
  return result;
}

// The next frame, or false at the end of the stream.
class Source {
 public:
  explicit Source(long noise) : left_(noise), reads_(noise == 0) {}

  bool next(std::vector<std::uint8_t> &frame) {
    if (!reads_) return left_-- > 0 ? make(frame) : false;
    const std::size_t got = std::fread(frame.data(), 1, frame.size(), stdin);
    if (got != 0 && got != frame.size()) throw std::runtime_error("the stream ends inside a frame");
    return got != 0;
  }

 private:
  bool make(std::vector<std::uint8_t> &frame) {
    for (std::size_t i = 0; i + 4 <= frame.size(); i += 4) {
      const std::uint_fast32_t bits = random_();
      std::memcpy(frame.data() + i, &bits, 4);
    }
    return true;
  }

  long left_;
  bool reads_;
  std::mt19937 random_{0};
};

// The smallest value that is not below `share` of all.
double percentile(const std::vector<double> &sorted, double share) {
  const auto rank = static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1) + 0.5);
  return sorted[rank];
}

void print(const char *name, std::vector<double> times_ms) {
  if (times_ms.empty()) return;
  std::sort(times_ms.begin(), times_ms.end());
  std::printf("%-8s p50 %8.3f   p90 %8.3f   p99 %8.3f   max %8.3f ms\n", name, percentile(times_ms, 0.5),
              percentile(times_ms, 0.9), percentile(times_ms, 0.99), times_ms.back());
}

struct Records {
  std::vector<double> frame, fit, session, restore;
};

void run(const Arguments &arguments) {
  using Clock = std::chrono::steady_clock;
  searchkit::Options options;
  options.threads = arguments.threads;
  options.plain_graph = arguments.plain_graph;
  const searchkit::Model model(arguments.bundle, options);
  searchkit::Segmenter segmenter(model);
  std::vector<std::uint8_t> frame(static_cast<std::size_t>(arguments.height * arguments.width * 3));
  std::vector<std::uint8_t> labels(static_cast<std::size_t>(arguments.height * arguments.width));
  Source source(arguments.noise);
  Records records;
  for (long index = 0; source.next(frame); ++index) {
    const auto start = Clock::now();
    segmenter.run({frame.data(), arguments.height, arguments.width, 3 * arguments.width},
                  {labels.data(), arguments.height, arguments.width, arguments.width});
    const double took = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    if (index < arguments.warm_up) continue;
    const searchkit::Times times = segmenter.last_times();
    records.frame.push_back(took);
    records.fit.push_back(static_cast<double>(times.fit_ns) / 1e6);
    records.session.push_back(static_cast<double>(times.session_ns) / 1e6);
    records.restore.push_back(static_cast<double>(times.restore_ns) / 1e6);
  }
  std::printf("%zu frames of %dx%d, model %dx%d, ONNX Runtime %s\n", records.frame.size(),
              static_cast<int>(arguments.height), static_cast<int>(arguments.width), model.info().height,
              model.info().width, skr_onnxruntime_version());
  print("frame", records.frame);
  print("fit", records.fit);
  print("session", records.session);
  print("restore", records.restore);
}

}  // namespace

int main(int argc, char **argv) {
  Arguments arguments;
  try {
    arguments = parse(argc, argv);
  } catch (const std::invalid_argument &error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::fprintf(stderr,
                 "usage: stream_frames BUNDLE HEIGHT WIDTH [--noise FRAMES] [--warm-up FRAMES] [--threads N]"
                 " [--plain-graph 1]\n");
    return 2;
  }
  try {
    run(arguments);
    return 0;
  } catch (const searchkit::Error &error) {
    std::fprintf(stderr, "error (%s): %s\n", skr_code_text(error.code()), error.what());
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
  }
  return 1;
}
