// searchkit runtime, C++17 interface: the C interface with destructors and exceptions.
//
// All of it is inline, so that no C++ type crosses the border of the library: it may be built by another compiler than
// its caller. What holds for threads, memory and sizes is written in `runtime.h`.
//
//   searchkit::Model model("bundle");
//   searchkit::Segmenter segmenter(model);           // one for each thread
//   segmenter.run({rgb, height, width, 3 * width}, {labels, height, width, width});
#ifndef SEARCHKIT_RUNTIME_HPP
#define SEARCHKIT_RUNTIME_HPP

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime.h"

namespace searchkit {

// uint8 RGB of the caller's, and where the caller wants the labels.
using Picture = skr_picture;
using LabelMap = skr_label_map;
using Info = skr_info;
using Times = skr_times;

// A refusal; `code` is one of `skr_code`.
class Error : public std::runtime_error {
 public:
  explicit Error(const skr_error &error) : std::runtime_error(error.message), code_(error.code) {}
  int code() const noexcept { return code_; }

 private:
  int code_;
};

struct Options {
  int threads = 0;              // of the CPU for one picture; 0 is ONNX Runtime's own default
  skr_provider provider = SKR_CPU;
  int device = 0;               // index of the GPU
  bool plain_graph = false;     // run the exported graph as it is, without the native label head at its end
};

// A bundle that was verified and loaded. Any number of threads may use one; moving it is cheap.
class Model {
 public:
  // Throws `Error`.
  explicit Model(const std::string &path, const Options &options = {}) {
    const std::uint64_t flags = options.plain_graph ? SKR_PLAIN_GRAPH : 0;
    const skr_options given{sizeof(skr_options), options.threads, options.provider, options.device, flags};
    skr_model *made = nullptr;
    skr_error error;
    if (skr_open(path.c_str(), &given, &made, &error) != SKR_OK) throw Error(error);
    handle_.reset(made);
    if (skr_describe(made, &info_, &error) != SKR_OK) throw Error(error);
  }

  const Info &info() const noexcept { return info_; }

  // Empty where there is no such class.
  std::string class_name(int label) const {
    const char *name = skr_class_name(handle_.get(), label);
    return name ? name : "";
  }

  std::array<std::uint8_t, 3> class_colour(int label) const noexcept {
    std::array<std::uint8_t, 3> rgb{};
    skr_class_colour(handle_.get(), label, rgb.data());
    return rgb;
  }

  const skr_model *handle() const noexcept { return handle_.get(); }

 private:
  struct Close {
    void operator()(skr_model *model) const noexcept { skr_close(model); }
  };
  std::unique_ptr<skr_model, Close> handle_;
  Info info_{};
};

// Buffers for one stream of pictures, for one thread at a time. Keeps what it needs of the model alive.
class Segmenter {
 public:
  // Throws `Error`.
  explicit Segmenter(const Model &model) {
    skr_segmenter *made = nullptr;
    skr_error error;
    if (skr_new_segmenter(model.handle(), &made, &error) != SKR_OK) throw Error(error);
    handle_.reset(made);
  }

  // The label of every pixel, into the caller's memory. Throws `Error`.
  void run(const Picture &picture, const LabelMap &labels) {
    skr_error error;
    if (skr_segment(handle_.get(), &picture, &labels, &error) != SKR_OK) throw Error(error);
  }

  // The same into memory of its own, height x width bytes. Throws `Error`.
  std::vector<std::uint8_t> run(const Picture &picture) {
    const bool sane = picture.height > 0 && picture.height <= SKR_MAX_SIDE_PX && picture.width > 0 &&
                      picture.width <= SKR_MAX_SIDE_PX;
    std::vector<std::uint8_t> labels(sane ? static_cast<std::size_t>(picture.height * picture.width) : 1);
    run(picture, LabelMap{labels.data(), picture.height, picture.width, picture.width});
    return labels;
  }

  Times last_times() const noexcept { return skr_last_times(handle_.get()); }

 private:
  struct Free {
    void operator()(skr_segmenter *segmenter) const noexcept { skr_free(segmenter); }
  };
  std::unique_ptr<skr_segmenter, Free> handle_;
};

}  // namespace searchkit
#endif
