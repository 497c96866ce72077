#include "segmenter.h"

#include <chrono>
#include <cstring>

#include "bundle.h"
#include "error.h"
#include "onnx_gate.h"

namespace skr {
namespace {

constexpr std::int64_t kChannels = 3;

void copy_rows(const std::uint8_t *from, std::int64_t from_row, std::uint8_t *to, std::int64_t to_row,
               std::int64_t bytes, std::int64_t rows) {
  if (from_row == bytes && to_row == bytes) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes * rows));
    return;
  }
  for (std::int64_t y = 0; y < rows; ++y) {
    std::memcpy(to + y * to_row, from + y * from_row, static_cast<std::size_t>(bytes));
  }
}

void check_sides(std::int64_t height, std::int64_t width, std::int64_t row_bytes, std::int64_t channels,
                 const char *what) {
  if (height < 1 || width < 1 || height > SKR_MAX_SIDE_PX || width > SKR_MAX_SIDE_PX) {
    fail(SKR_USAGE, std::string(what) + " with a side that is not from 1 to " + std::to_string(SKR_MAX_SIDE_PX) + " px");
  }
  if (row_bytes < width * channels) fail(SKR_USAGE, std::string(what) + " whose rows overlap");
}

void check_pair(const skr_picture &picture, const skr_label_map &labels) {
  if (!picture.data || !labels.data) fail(SKR_USAGE, "a picture or a label map without data");
  check_sides(picture.height, picture.width, picture.row_bytes, kChannels, "a picture");
  check_sides(labels.height, labels.width, labels.row_bytes, 1, "a label map");
  if (picture.height != labels.height || picture.width != labels.width) {
    fail(SKR_USAGE, "a label map of another size than the picture");
  }
}

// Frees the segmenter for the next call, whatever happens in this one.
class Turn {
 public:
  explicit Turn(std::atomic_flag &busy) : busy_(busy) {
    if (busy.test_and_set(std::memory_order_acquire)) {
      fail(SKR_USAGE, "another thread is using this segmenter; make one for each thread");
    }
  }
  ~Turn() { busy_.clear(std::memory_order_release); }
  Turn(const Turn &) = delete;
  Turn &operator=(const Turn &) = delete;

 private:
  std::atomic_flag &busy_;
};

using Clock = std::chrono::steady_clock;

std::int64_t since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

}  // namespace

Model::Model(const std::string &path, const skr_options &options) {
  const Bundle bundle(path);
  contract = read_contract(bundle.read("contract.json"), bundle.place("contract.json"));
  const std::string where = bundle.place("model.onnx");
  const std::string model = bundle.read("model.onnx");
  check_onnx(model, where);
  session = std::make_unique<const Session>(model, contract, options, where);
}

Segmenter::Fitting::Fitting(const Contract &contract, Size picture_size)
    : picture(picture_size),
      place(inside(contract.letterbox, picture_size, contract.size)),
      back(place, picture_size) {}

Segmenter::Segmenter(std::shared_ptr<const Model> model)
    : model_(std::move(model)),
      input_(Session::input_shape(model_->contract)),
      output_(Session::output_shape(model_->contract)),
      pictures_(Session::input_shape(model_->contract)) {}

void Segmenter::run(const skr_picture &picture, const skr_label_map &labels) {
  check_pair(picture, labels);
  const Turn turn(busy_);
  const auto start = Clock::now();
  const OrtValue *const input = fit(picture);
  const std::int64_t fitted = since(start);
  model_->session->run(input, output_.value());
  const std::int64_t ran = since(start);
  restore(labels);
  times_ = {fitted, ran - fitted, since(start) - ran};
}

const OrtValue *Segmenter::fit(const skr_picture &picture) {
  const Size size{picture.height, picture.width}, model = model_->contract.size;
  if (size == model) {
    const std::int64_t row = model.width * kChannels;
    const OrtValue *const there = picture.row_bytes == row ? pictures_.over(picture.data) : nullptr;
    if (there) return there;
    copy_rows(picture.data, picture.row_bytes, input_.data(), row, row, model.height);
    return input_.value();
  }
  if (!fitting_ || fitting_->picture != size) {
    fitting_.reset();
    fitting_.emplace(model_->contract, size);
  }
  scale_picture(picture, input_.data(), model, fitting_->place, model_->contract.pad);
  return input_.value();
}

void Segmenter::restore(const skr_label_map &labels) {
  const Size size{labels.height, labels.width}, model = model_->contract.size;
  if (size == model) {
    copy_rows(output_.data(), model.width, labels.data, labels.row_bytes, model.width, model.height);
  } else {
    fitting_->back.run(output_.data(), model.width, labels.data, labels.row_bytes);
  }
}

}  // namespace skr
