#include "session.h"

#include <functional>
#include <numeric>
#include <optional>

#include "error.h"
#include "label_tail.h"

#ifdef SEARCHKIT_NATIVE_HEAD
// In deploy/native/label_head_op.cpp, which states the few types of ONNX Runtime that it needs by itself.
extern "C" OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base);
#endif

namespace skr {
namespace {

// The oldest version of the interface that has all that is called here and in the native label head. Newer libraries
// serve it as well.
constexpr std::uint32_t kApiVersion = 20;
static_assert(ORT_API_VERSION >= kApiVersion, "these ONNX Runtime headers are too old");

constexpr const char *kInput = "image", *kOutput = "labels";

using OptionsHandle =
    std::unique_ptr<OrtSessionOptions, Releaser<OrtSessionOptions, &OrtApi::ReleaseSessionOptions>>;
using MemoryInfoHandle = std::unique_ptr<OrtMemoryInfo, Releaser<OrtMemoryInfo, &OrtApi::ReleaseMemoryInfo>>;
using TypeInfoHandle = std::unique_ptr<OrtTypeInfo, Releaser<OrtTypeInfo, &OrtApi::ReleaseTypeInfo>>;
using StatusHandle = std::unique_ptr<OrtStatus, Releaser<OrtStatus, &OrtApi::ReleaseStatus>>;

void check(OrtStatus *status, const char *doing) {
  if (!status) return;
  const StatusHandle owned(status);
  std::string reason = ort().GetErrorMessage(status);
  if (const std::size_t end = reason.find('\n'); end != std::string::npos) reason.resize(end);
  fail(SKR_RUNTIME, std::string("ONNX Runtime ") + ort_version() + " cannot " + doing + ": " + reason);
}

#ifdef SEARCHKIT_TENSORRT
using TensorRTHandle = std::unique_ptr<OrtTensorRTProviderOptionsV2,
                                       Releaser<OrtTensorRTProviderOptionsV2, &OrtApi::ReleaseTensorRTProviderOptions>>;

void add_tensorrt(OrtSessionOptions *options, int device) {
  OrtTensorRTProviderOptionsV2 *made = nullptr;
  check(ort().CreateTensorRTProviderOptions(&made), "make options of its TensorRT provider");
  const TensorRTHandle owned(made);
  const std::string number = std::to_string(device);
  const char *key = "device_id", *value = number.c_str();
  check(ort().UpdateTensorRTProviderOptions(made, &key, &value, 1), "choose the device of its TensorRT provider");
  check(ort().SessionOptionsAppendExecutionProvider_TensorRT_V2(options, made), "use its TensorRT provider");
}
#endif

void add_provider([[maybe_unused]] OrtSessionOptions *session, const skr_options &options) {
  if (options.provider == SKR_CPU) return;
#ifdef SEARCHKIT_TENSORRT
  if (options.provider == SKR_TENSORRT) return add_tensorrt(session, options.device);
#endif
  if (options.provider == SKR_TENSORRT) {
    fail(SKR_UNSUPPORTED, "this runtime was built without the CMake option SEARCHKIT_TENSORRT");
  }
  fail(SKR_USAGE, "no such provider: " + std::to_string(options.provider));
}

OptionsHandle make_options(const skr_options &options) {
  OrtSessionOptions *made = nullptr;
  check(ort().CreateSessionOptions(&made), "make session options");
  OptionsHandle owned(made);
  check(ort().SetSessionGraphOptimizationLevel(made, ORT_ENABLE_ALL), "set its graph optimiser");
  if (options.threads > 0) check(ort().SetIntraOpNumThreads(made, options.threads), "set its number of threads");
  add_provider(made, options);
  return owned;
}

// The model with the native label head at its end, which the options then know; nothing where the graph runs as it is.
std::optional<std::string> headed([[maybe_unused]] const std::string &model, [[maybe_unused]] const std::string &where,
                                  [[maybe_unused]] const skr_options &options,
                                  [[maybe_unused]] OrtSessionOptions *session) {
#ifdef SEARCHKIT_NATIVE_HEAD
  if (options.provider != SKR_CPU || (options.flags & SKR_PLAIN_GRAPH) != 0) return {};
  std::optional<std::string> result = with_label_head(model, where);
  if (result) check(RegisterCustomOps(session, OrtGetApiBase()), "take the native label head");
  return result;
#else
  return {};
#endif
}

// One side of a session: how to ask for it, and what it must be.
struct Side {
  decltype(&OrtApi::SessionGetInputCount) count;
  decltype(&OrtApi::SessionGetInputName) name;
  decltype(&OrtApi::SessionGetInputTypeInfo) type;
  const char *wanted;
  std::vector<std::int64_t> shape;
};

std::string name_of(const OrtSession *session, const Side &side) {
  OrtAllocator *allocator = nullptr;
  check(ort().GetAllocatorWithDefaultOptions(&allocator), "give its allocator");
  char *name = nullptr;
  check((ort().*side.name)(session, 0, allocator, &name), "name its tensors");
  std::string result = name;
  check(ort().AllocatorFree(allocator, name), "free a name");
  return result;
}

bool has_shape(const OrtSession *session, const Side &side) {
  OrtTypeInfo *made = nullptr;
  check((ort().*side.type)(session, 0, &made), "describe its tensors");
  const TypeInfoHandle owned(made);
  const OrtTensorTypeAndShapeInfo *info = nullptr;
  check(ort().CastTypeInfoToTensorInfo(made, &info), "describe its tensors");
  if (!info) return false;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::size_t dimensions = 0;
  check(ort().GetTensorElementType(info, &type), "describe its tensors");
  check(ort().GetDimensionsCount(info, &dimensions), "describe its tensors");
  if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 || dimensions != side.shape.size()) return false;
  std::vector<std::int64_t> shape(dimensions);
  check(ort().GetDimensions(info, shape.data(), dimensions), "describe its tensors");
  return shape == side.shape;
}

void check_side(const OrtSession *session, const Side &side, const std::string &where) {
  std::size_t count = 0;
  check((ort().*side.count)(session, &count), "count its tensors");
  if (count != 1 || name_of(session, side) != side.wanted || !has_shape(session, side)) {
    damaged(std::string("the model's tensor is not the `") + side.wanted + "` that the contract says", where);
  }
}

std::size_t element_count(const std::vector<std::int64_t> &shape) {
  return static_cast<std::size_t>(
      std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<std::int64_t>()));
}

ValueHandle tensor_over(std::uint8_t *data, const std::vector<std::int64_t> &shape) {
  OrtMemoryInfo *info = nullptr;
  check(ort().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &info), "describe memory");
  const MemoryInfoHandle owned(info);
  OrtValue *value = nullptr;
  check(ort().CreateTensorWithDataAsOrtValue(info, data, element_count(shape), shape.data(), shape.size(),
                                             ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, &value),
        "make a tensor");
  return ValueHandle(value);
}

}  // namespace

const OrtApi &ort() {
  static const OrtApi *const api = OrtGetApiBase()->GetApi(kApiVersion);
  if (!api) fail(SKR_UNSUPPORTED, std::string("ONNX Runtime ") + ort_version() + " is too old");
  return *api;
}

const char *ort_version() { return OrtGetApiBase()->GetVersionString(); }

ByteTensor::ByteTensor(const std::vector<std::int64_t> &shape)
    : data_(element_count(shape)), value_(tensor_over(data_.data(), shape)) {}

const OrtValue *SeenTensors::over(const std::uint8_t *data) {
  for (Seen &seen : seen_) {
    if (!seen.data) {
      seen.value = tensor_over(const_cast<std::uint8_t *>(data), shape_);
      seen.data = data;
    }
    if (seen.data == data) return seen.value.get();
  }
  return nullptr;
}

std::vector<std::int64_t> Session::input_shape(const Contract &contract) {
  return {1, contract.size.height, contract.size.width, 3};
}

std::vector<std::int64_t> Session::output_shape(const Contract &contract) {
  return {1, contract.size.height, contract.size.width};
}

// Its log is switched off: all that goes wrong comes back as an error.
Session::Session(const std::string &model, const Contract &contract, const skr_options &options,
                 const std::string &where) {
  OrtEnv *env = nullptr;
  check(ort().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "searchkit", &env), "start");
  env_.reset(env);
  const OptionsHandle made = make_options(options);
  const std::optional<std::string> replaced = headed(model, where, options, made.get());
  has_label_head_ = replaced.has_value();
  open(replaced ? *replaced : model, made.get());
  const OrtSession *const session = session_.get();
  check_side(session,
             {&OrtApi::SessionGetInputCount, &OrtApi::SessionGetInputName, &OrtApi::SessionGetInputTypeInfo, kInput,
              input_shape(contract)},
             where);
  check_side(session,
             {&OrtApi::SessionGetOutputCount, &OrtApi::SessionGetOutputName, &OrtApi::SessionGetOutputTypeInfo, kOutput,
              output_shape(contract)},
             where);
}

void Session::open(std::string_view model, const OrtSessionOptions *options) {
  OrtSession *session = nullptr;
  check(ort().CreateSessionFromArray(env_.get(), model.data(), model.size(), options, &session), "load the model");
  session_.reset(session);
}

void Session::run(const OrtValue *input, OrtValue *output) const {
  check(ort().Run(session_.get(), nullptr, &kInput, &input, 1, &kOutput, 1, &output), "run the model");
}

}  // namespace skr
