// Drives the plugin as TensorRT does: creator, build, serialisation, run. The kernel runs on the CPU, and the labels are
// those of the CPU's own kernel. Run under the address sanitizer; says "passed" at the end.

#include <NvInfer.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "label_head.h"

using namespace nvinfer1;

extern "C" IPluginCreatorInterface *const *getCreators(int32_t &count) noexcept;
extern "C" void setLoggerFinder(ILoggerFinder *) noexcept;

#define EXPECT(condition)                                                   \
  do {                                                                      \
    if (!(condition)) {                                                     \
      std::fprintf(stderr, "line %d: %s does not hold\n", __LINE__, #condition); \
      std::exit(1);                                                         \
    }                                                                       \
  } while (false)

namespace nvinfer1 {
// TensorRT's own is opaque; this one is the number.
class IDimensionExpr {
 public:
  int64_t value;
};
}  // namespace nvinfer1

namespace {

struct Expressions : VExprBuilder {
  std::vector<std::unique_ptr<IDimensionExpr>> made;
  const IDimensionExpr *constant(int64_t value) override {
    made.emplace_back(new IDimensionExpr{value});
    return made.back().get();
  }
};

IPluginCreatorV3One *creator() {
  int32_t count = 0;
  IPluginCreatorInterface *const *creators = getCreators(count);
  EXPECT(count == 1);
  EXPECT(std::strcmp(creators[0]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0);
  return static_cast<IPluginCreatorV3One *>(creators[0]);
}

template <typename Integer>
std::unique_ptr<IPluginV3> create(Integer height, Integer width, Integer align, PluginFieldType type, int32_t length = 1) {
  const PluginField fields[] = {{"width", &width, type, length}, {"height", &height, type, length}, {"align_corners", &align, type, length},
                                {"plugin_version", "1", PluginFieldType::kCHAR, 1}};
  const PluginFieldCollection given{4, fields};
  return std::unique_ptr<IPluginV3>(creator()->createPlugin("head", &given, TensorRTPhase::kBUILD));
}

std::unique_ptr<IPluginV3> create(int32_t height, int32_t width, int32_t align) {
  return create(height, width, align, PluginFieldType::kINT32);
}

IPluginV3OneCore *core(IPluginV3 &plugin) {
  return static_cast<IPluginV3OneCore *>(plugin.getCapabilityInterface(PluginCapabilityType::kCORE));
}

IPluginV3OneBuild *build(IPluginV3 &plugin) {
  return static_cast<IPluginV3OneBuild *>(plugin.getCapabilityInterface(PluginCapabilityType::kBUILD));
}

IPluginV3OneRuntime *runtime(IPluginV3 &plugin) {
  return static_cast<IPluginV3OneRuntime *>(plugin.getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

PluginTensorDesc tensor(DataType type, std::initializer_list<int64_t> sides, TensorFormat format = TensorFormat::kLINEAR) {
  PluginTensorDesc made{{static_cast<int32_t>(sides.size()), {}}, type, format, 1.0f};
  std::copy(sides.begin(), sides.end(), made.dims.d);
  return made;
}

void names_and_capabilities() {
  const auto plugin = create(40, 71, 1);
  for (const char *text : {core(*plugin)->getPluginName(), creator()->getPluginName()}) EXPECT(!std::strcmp(text, "LabelHead"));
  for (const char *text : {core(*plugin)->getPluginVersion(), creator()->getPluginVersion()}) EXPECT(!std::strcmp(text, "1"));
  for (const char *text : {core(*plugin)->getPluginNamespace(), creator()->getPluginNamespace()})
    EXPECT(!std::strcmp(text, "searchkit"));
  EXPECT(!std::strcmp(core(*plugin)->getInterfaceInfo().kind, "PLUGIN_V3ONE_CORE"));
  EXPECT(!std::strcmp(build(*plugin)->getInterfaceInfo().kind, "PLUGIN_V3ONE_BUILD"));
  EXPECT(!std::strcmp(runtime(*plugin)->getInterfaceInfo().kind, "PLUGIN_V3ONE_RUNTIME"));
  EXPECT(plugin->getCapabilityInterface(static_cast<PluginCapabilityType>(7)) == nullptr);
  const PluginFieldCollection *fields = creator()->getFieldNames();
  EXPECT(fields->nbFields == 3);
  for (int32_t i = 0; i < 3; ++i) EXPECT(fields->fields[i].type == PluginFieldType::kINT32 && fields->fields[i].length == 1);
  setLoggerFinder(nullptr);
}

void attributes() {
  EXPECT(create(1, 32768, 0));
  EXPECT(!create(0, 71, 0));
  EXPECT(!create(40, 32769, 0));
  EXPECT(!create(40, 71, 2));
  EXPECT(!create(-5, 71, 0));
  EXPECT((create<int64_t>(40, 71, 1, PluginFieldType::kINT64)));
  EXPECT((!create<int64_t>(40 + (int64_t{1} << 32), 71, 1, PluginFieldType::kINT64)));
  EXPECT((!create<float>(40, 71, 1, PluginFieldType::kFLOAT32)));
  EXPECT((!create<int32_t>(40, 71, 1, PluginFieldType::kINT32, 2)));
  EXPECT(!creator()->createPlugin("head", nullptr, TensorRTPhase::kBUILD));
  const PluginField nothing[] = {{"height", nullptr, PluginFieldType::kINT32, 1}, {nullptr, nullptr, PluginFieldType::kINT32, 1}};
  const PluginFieldCollection given{2, nothing};
  EXPECT(!creator()->createPlugin("head", &given, TensorRTPhase::kBUILD));
}

void shapes_and_types() {
  const auto plugin = create(40, 71, 1);
  EXPECT(build(*plugin)->getNbOutputs() == 1);
  const IDimensionExpr sides[] = {{2}, {19}, {5}, {9}};
  const DimsExprs in{4, {&sides[0], &sides[1], &sides[2], &sides[3]}}, flat{3, {&sides[0], &sides[1], &sides[2]}};
  DimsExprs out{};
  Expressions made;
  IExprBuilder builder;
  builder.inner = &made;
  EXPECT(build(*plugin)->getOutputShapes(&in, 1, nullptr, 0, &out, 1, builder) == 0);
  EXPECT(out.nbDims == 3 && out.d[0] == &sides[0] && out.d[1]->value == 40 && out.d[2]->value == 71);
  EXPECT(build(*plugin)->getOutputShapes(&flat, 1, nullptr, 0, &out, 1, builder) != 0);
  for (const DataType type : {DataType::kFLOAT, DataType::kHALF, DataType::kBF16, DataType::kINT8, DataType::kUINT8}) {
    const bool taken = type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
    DataType given = type, wanted = DataType::kBOOL;
    EXPECT((build(*plugin)->getOutputDataTypes(&wanted, 1, &given, 1) == 0) == taken);
    if (taken) EXPECT(wanted == DataType::kINT32);
    DynamicPluginTensorDesc both[] = {{tensor(type, {-1, 19, 5, 9}), {}, {}, {}}, {tensor(DataType::kINT32, {-1, 40, 71}), {}, {}, {}}};
    EXPECT(build(*plugin)->supportsFormatCombination(0, both, 1, 1) == taken);
    EXPECT(build(*plugin)->supportsFormatCombination(1, both, 1, 1));
    EXPECT((build(*plugin)->configurePlugin(both, 1, both + 1, 1) == 0));
    both[0].desc.format = both[1].desc.format = TensorFormat::kHWC8;
    EXPECT(!build(*plugin)->supportsFormatCombination(0, both, 1, 1));
    EXPECT(!build(*plugin)->supportsFormatCombination(1, both, 1, 1));
    both[1].desc = tensor(DataType::kUINT8, {-1, 40, 71});
    EXPECT(!build(*plugin)->supportsFormatCombination(1, both, 1, 1));
  }
  const PluginTensorDesc labels = tensor(DataType::kINT32, {1, 40, 71});
  for (const auto &sides_in : {tensor(DataType::kFLOAT, {1, 257, 5, 9}), tensor(DataType::kFLOAT, {1, 0, 5, 9}), tensor(DataType::kFLOAT, {19, 5, 9}),
                               tensor(DataType::kFLOAT, {1, 19, 5, 32769}), tensor(DataType::kFLOAT, {65536, 19, 5, 9})}) {
    EXPECT(runtime(*plugin)->onShapeChange(&sides_in, 1, &labels, 1) != 0);
    EXPECT(runtime(*plugin)->enqueue(&sides_in, &labels, nullptr, nullptr, nullptr, nullptr) != 0);
  }
}

// Labels of random logits, by the plugin and by the CPU's kernel.
void run(IPluginV3 &plugin, DataType type, int32_t dtype, int64_t classes, int64_t height, int64_t width, int64_t out_height,
         int64_t out_width, int32_t corners) {
  constexpr int64_t PICTURES = 2;
  std::mt19937 source(static_cast<unsigned>(classes * 100 + dtype));
  std::uniform_real_distribution<float> uniform(-4, 4);
  const size_t item = dtype == SK_FLOAT32 ? 4 : 2, count = static_cast<size_t>(classes * height * width);
  std::vector<uint8_t> bytes(PICTURES * count * item);
  for (size_t i = 0; i < PICTURES * count; ++i) {
    const float value = uniform(source);
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (dtype == SK_BFLOAT16) bits >>= 16;
    if (dtype == SK_FLOAT16) bits = 0x3000u + source() % 0x1800u;
    std::memcpy(&bytes[i * item], &bits, item);
  }
  const PluginTensorDesc in = tensor(type, {PICTURES, classes, height, width});
  const PluginTensorDesc out = tensor(DataType::kINT32, {PICTURES, out_height, out_width});
  const size_t area = static_cast<size_t>(out_height * out_width);
  std::vector<int32_t> labels(PICTURES * area, -1);
  const void *inputs[] = {bytes.data()};
  void *outputs[] = {labels.data()};
  EXPECT(runtime(plugin)->onShapeChange(&in, 1, &out, 1) == 0);
  EXPECT(runtime(plugin)->enqueue(&in, &out, inputs, outputs, nullptr, nullptr) == 0);
  for (int64_t n = 0; n < PICTURES; ++n) {
    std::vector<uint8_t> wanted(area);
    const sk_logits logits{&bytes[static_cast<size_t>(n) * count * item], dtype, classes, height, width, height * width, width, 1};
    const sk_label_map map{wanted.data(), nullptr, out_height, out_width};
    const sk_label_head_options options{corners, SK_NONE, 1, -1};
    EXPECT(sk_label_head(&logits, &map, &options) == SK_OK);
    for (size_t i = 0; i < area; ++i) EXPECT(labels[static_cast<size_t>(n) * area + i] == wanted[i]);
  }
}

void labels() {
  const struct {
    DataType type;
    int32_t dtype;
  } types[] = {{DataType::kFLOAT, SK_FLOAT32}, {DataType::kHALF, SK_FLOAT16}, {DataType::kBF16, SK_BFLOAT16}};
  for (const auto &each : types)
    for (const int32_t corners : {SK_HALF_PIXEL, SK_ALIGN_CORNERS}) {
      run(*create(40, 71, corners), each.type, each.dtype, 19, 5, 9, 40, 71, corners);
      run(*create(3, 2, corners), each.type, each.dtype, 1, 7, 8, 3, 2, corners);
      run(*create(17, 33, corners), each.type, each.dtype, 256, 2, 2, 17, 33, corners);
    }
}

// An engine holds the fields of the plugin, and makes it anew from them; contexts work with clones.
void serialisation() {
  auto plugin = create(40, 71, 1);
  const PluginFieldCollection *stored = runtime(*plugin)->getFieldsToSerialize();
  EXPECT(stored->nbFields == 3);
  std::unique_ptr<IPluginV3> read(creator()->createPlugin("head", stored, TensorRTPhase::kRUNTIME));
  std::unique_ptr<IPluginV3> clone(read->clone()), attached(runtime(*read)->attachToContext(nullptr));
  plugin.reset();
  read.reset();
  run(*clone, DataType::kFLOAT, SK_FLOAT32, 19, 5, 9, 40, 71, SK_ALIGN_CORNERS);
  run(*attached, DataType::kFLOAT, SK_FLOAT32, 19, 5, 9, 40, 71, SK_ALIGN_CORNERS);
  EXPECT(*static_cast<const int32_t *>(runtime(*clone)->getFieldsToSerialize()->fields[0].data) == 40);
}

}  // namespace

int main() {
  names_and_capabilities();
  attributes();
  shapes_and_types();
  labels();
  serialisation();
  std::puts("passed");
}
