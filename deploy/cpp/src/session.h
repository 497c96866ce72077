// A model in ONNX Runtime, through its C interface.
#ifndef SKR_SRC_SESSION_H
#define SKR_SRC_SESSION_H

#include <onnxruntime_c_api.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "contract.h"
#include "searchkit/runtime.h"

namespace skr {

// ONNX Runtime's functions. Throws `Failure` (unsupported) where the library is too old.
const OrtApi &ort();

const char *ort_version();

template <typename T, void (*OrtApi::*Release)(T *)>
struct Releaser {
  void operator()(T *object) const { (ort().*Release)(object); }
};

using Env = std::unique_ptr<OrtEnv, Releaser<OrtEnv, &OrtApi::ReleaseEnv>>;
using SessionHandle = std::unique_ptr<OrtSession, Releaser<OrtSession, &OrtApi::ReleaseSession>>;
using ValueHandle = std::unique_ptr<OrtValue, Releaser<OrtValue, &OrtApi::ReleaseValue>>;

// Bytes that ONNX Runtime reads or writes where they are.
class ByteTensor {
 public:
  explicit ByteTensor(const std::vector<std::int64_t> &shape);
  std::uint8_t *data() { return data_.data(); }
  std::size_t bytes() const { return data_.size(); }
  OrtValue *value() const { return value_.get(); }

 private:
  std::vector<std::uint8_t> data_;
  ValueHandle value_;
};

// Tensors over a caller's own memory, so that a picture is read where it is. Streams come from a few buffers in turns: each
// of the first few gets a tensor when it is first seen, further ones none.
class SeenTensors {
 public:
  explicit SeenTensors(std::vector<std::int64_t> shape) : shape_(std::move(shape)) {}

  // Null for memory beyond the first few. ONNX Runtime never writes to an input.
  const OrtValue *over(const std::uint8_t *data);

 private:
  struct Seen {
    const std::uint8_t *data = nullptr;
    ValueHandle value;
  };
  std::vector<std::int64_t> shape_;
  std::array<Seen, 4> seen_;
};

// Any number of threads may call `run` at once.
class Session {
 public:
  // `model` has passed the gate. Throws `Failure`: damaged where it takes or gives something else than the contract says.
  Session(const std::string &model, const Contract &contract, const skr_options &options, const std::string &where);

  // Whether the graph's end was replaced by the native label head.
  bool has_label_head() const { return has_label_head_; }

  // `input` is 1 x height x width x 3, `output` 1 x height x width. Throws `Failure` (runtime).
  void run(const OrtValue *input, OrtValue *output) const;

  static std::vector<std::int64_t> input_shape(const Contract &contract);
  static std::vector<std::int64_t> output_shape(const Contract &contract);

 private:
  void open(std::string_view model, const OrtSessionOptions *options);

  Env env_;
  SessionHandle session_;
  bool has_label_head_ = false;
};

}  // namespace skr
#endif
