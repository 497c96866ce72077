// The label head as a plugin of TensorRT: LabelHead, version 1, of the namespace `searchkit`.
//
// Input: N x C x h x w logits, linear, float32, float16 or bfloat16. Output: N x height x width labels, int32, since
// TensorRT gives plugins no uint8; a Cast may follow. Attributes, all integers: height, width, align_corners (0 or 1).
//
// Written against the documented interface of TensorRT 10 and 11 (IPluginV3). Not run here on a GPU.

#include <NvInfer.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <string_view>

#include "launch.h"

namespace {

using namespace nvinfer1;

constexpr char NAME[] = "LabelHead";
constexpr char VERSION[] = "1";
constexpr char NAMESPACE[] = "searchkit";

constexpr int64_t MAX_SIDE = 32768;
constexpr int64_t MAX_CLASSES = 256;
constexpr int64_t MAX_PICTURES = 65535;

constexpr int32_t DONE = 0;
constexpr int32_t REFUSED = 1;

struct Attributes {
  int32_t height = 0, width = 0, align_corners = 0;

  bool valid() const {
    return std::min(height, width) >= 1 && std::max(height, width) <= MAX_SIDE && (align_corners == 0 || align_corners == 1);
  }
};

bool within(int64_t value, int64_t largest) { return value >= 1 && value <= largest; }

// Whether sizes are in range; those that are not known before a run are -1.
bool fits(const Dims &logits) {
  const int64_t largest[] = {MAX_PICTURES, MAX_CLASSES, MAX_SIDE, MAX_SIDE};
  if (logits.nbDims != 4) return false;
  for (int i = 0; i < 4; ++i)
    if (logits.d[i] != -1 && !within(logits.d[i], largest[i])) return false;
  return true;
}

bool takes(DataType type) { return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16; }

sk::LogitsType logits_type(DataType type) {
  return type == DataType::kFLOAT  ? sk::LogitsType::FLOAT32
         : type == DataType::kHALF ? sk::LogitsType::FLOAT16
                                   : sk::LogitsType::BFLOAT16;
}

// The plugin has no state but its attributes: one class is all three capabilities.
class LabelHead : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
 public:
  explicit LabelHead(const Attributes &attributes) : attributes_(attributes) {
    fields_ = {PluginField{"height", &attributes_.height, PluginFieldType::kINT32, 1},
               PluginField{"width", &attributes_.width, PluginFieldType::kINT32, 1},
               PluginField{"align_corners", &attributes_.align_corners, PluginFieldType::kINT32, 1}};
    collection_.nbFields = static_cast<int32_t>(fields_.size());
    collection_.fields = fields_.data();
  }

  // Its fields point into itself.
  LabelHead(const LabelHead &) = delete;
  LabelHead &operator=(const LabelHead &) = delete;

  IPluginCapability *getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore *>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild *>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime *>(this);
      default: return nullptr;
    }
  }

  IPluginV3 *clone() noexcept override { return new (std::nothrow) LabelHead(attributes_); }

  const char *getPluginName() const noexcept override { return NAME; }
  const char *getPluginVersion() const noexcept override { return VERSION; }
  const char *getPluginNamespace() const noexcept override { return NAMESPACE; }

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t configurePlugin(const DynamicPluginTensorDesc *in, int32_t inputs, const DynamicPluginTensorDesc *,
                          int32_t outputs) noexcept override {
    return inputs == 1 && outputs == 1 && fits(in[0].desc.dims) ? DONE : REFUSED;
  }

  int32_t getOutputDataTypes(DataType *types, int32_t outputs, const DataType *given, int32_t inputs) const noexcept override {
    if (inputs != 1 || outputs != 1 || !takes(given[0])) return REFUSED;
    types[0] = DataType::kINT32;
    return DONE;
  }

  int32_t getOutputShapes(const DimsExprs *in, int32_t inputs, const DimsExprs *, int32_t, DimsExprs *out, int32_t outputs,
                          IExprBuilder &expressions) noexcept override {
    if (inputs != 1 || outputs != 1 || in[0].nbDims != 4) return REFUSED;
    out[0].nbDims = 3;
    out[0].d[0] = in[0].d[0];
    out[0].d[1] = expressions.constant(attributes_.height);
    out[0].d[2] = expressions.constant(attributes_.width);
    return DONE;
  }

  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc *tensors, int32_t, int32_t) noexcept override {
    const PluginTensorDesc &tensor = tensors[position].desc;
    return tensor.format == TensorFormat::kLINEAR && (position == 0 ? takes(tensor.type) : tensor.type == DataType::kINT32);
  }

  int32_t onShapeChange(const PluginTensorDesc *in, int32_t inputs, const PluginTensorDesc *, int32_t outputs) noexcept override {
    return inputs == 1 && outputs == 1 && fits(in[0].dims) ? DONE : REFUSED;
  }

  int32_t enqueue(const PluginTensorDesc *in, const PluginTensorDesc *, const void *const *inputs, void *const *outputs,
                  void *, cudaStream_t stream) noexcept override {
    const Dims &shape = in[0].dims;
    if (!fits(shape) || !takes(in[0].type)) return REFUSED;
    const auto side = [&](int i) { return static_cast<int32_t>(shape.d[i]); };
    const sk::LabelHead head{logits_type(in[0].type), side(0), side(1), side(2), side(3),
                             attributes_.height,      attributes_.width, attributes_.align_corners};
    return sk::launch(head, inputs[0], static_cast<int32_t *>(outputs[0]), stream) == cudaSuccess ? DONE : REFUSED;
  }

  IPluginV3 *attachToContext(IPluginResourceContext *) noexcept override { return clone(); }

  const PluginFieldCollection *getFieldsToSerialize() noexcept override { return &collection_; }

 private:
  Attributes attributes_;
  std::array<PluginField, 3> fields_;
  PluginFieldCollection collection_;
};

// An attribute as a graph or an engine holds it: one integer of 32 or 64 bits.
bool read(const PluginField &field, int32_t &value) {
  if (!field.data || field.length != 1) return false;
  if (field.type == PluginFieldType::kINT32) {
    std::memcpy(&value, field.data, sizeof value);
    return true;
  }
  int64_t wide = 0;
  if (field.type != PluginFieldType::kINT64) return false;
  std::memcpy(&wide, field.data, sizeof wide);
  value = static_cast<int32_t>(std::clamp<int64_t>(wide, -1, MAX_SIDE + 1));
  return true;
}

class Creator : public IPluginCreatorV3One {
 public:
  IPluginV3 *createPlugin(const char *, const PluginFieldCollection *given, TensorRTPhase) noexcept override {
    Attributes attributes;
    for (int32_t i = 0; given && i < given->nbFields; ++i) {
      const PluginField &field = given->fields[i];
      const std::string_view name = field.name ? field.name : "";
      int32_t *target = name == "height"          ? &attributes.height
                        : name == "width"         ? &attributes.width
                        : name == "align_corners" ? &attributes.align_corners
                                                  : nullptr;
      if (target && !read(field, *target)) return nullptr;
    }
    return attributes.valid() ? new (std::nothrow) LabelHead(attributes) : nullptr;
  }

  const PluginFieldCollection *getFieldNames() noexcept override { return &collection_; }
  const char *getPluginName() const noexcept override { return NAME; }
  const char *getPluginVersion() const noexcept override { return VERSION; }
  const char *getPluginNamespace() const noexcept override { return NAMESPACE; }

 private:
  const std::array<PluginField, 3> fields_{PluginField{"height", nullptr, PluginFieldType::kINT32, 1},
                                           PluginField{"width", nullptr, PluginFieldType::kINT32, 1},
                                           PluginField{"align_corners", nullptr, PluginFieldType::kINT32, 1}};
  const PluginFieldCollection collection_{static_cast<int32_t>(fields_.size()), fields_.data()};
};

}  // namespace

#define SK_EXPORT extern "C" __attribute__((visibility("default")))

// What IPluginRegistry::loadLibrary looks for in a library.
SK_EXPORT IPluginCreatorInterface *const *getCreators(int32_t &count) noexcept {
  static Creator creator;
  static IPluginCreatorInterface *const creators[] = {&creator};
  count = 1;
  return creators;
}

SK_EXPORT void setLoggerFinder(ILoggerFinder *) noexcept {}
