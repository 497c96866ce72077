/* What the plugin uses of TensorRT's C++ interface, as its documentation describes it: names, values, and the order of
 * virtual functions. A stand-in for the headers of TensorRT, which no package index carries. */
#ifndef SEARCHKIT_TESTS_NVINFER_H
#define SEARCHKIT_TESTS_NVINFER_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace nvinfer1 {

enum class DataType : int32_t { kFLOAT, kHALF, kINT8, kINT32, kBOOL, kUINT8, kFP8, kBF16, kINT64 };
enum class TensorFormat : int32_t { kLINEAR, kCHW2, kHWC8 };
enum class APILanguage : int32_t { kCPP, kPYTHON };
enum class TensorRTPhase : int32_t { kBUILD, kRUNTIME };
enum class PluginCapabilityType : int32_t { kCORE, kBUILD, kRUNTIME };
enum class PluginFieldType : int32_t { kFLOAT16, kFLOAT32, kFLOAT64, kINT8, kINT16, kINT32, kCHAR, kDIMS, kUNKNOWN, kBF16, kINT64 };
enum class DimensionOperation : int32_t { kSUM };

struct Dims {
  int32_t nbDims;
  int64_t d[8];
};

struct PluginField {
  const char *name = nullptr;
  const void *data = nullptr;
  PluginFieldType type = PluginFieldType::kUNKNOWN;
  int32_t length = 0;
  PluginField(const char *name = nullptr, const void *data = nullptr, PluginFieldType type = PluginFieldType::kUNKNOWN,
              int32_t length = 0) noexcept
      : name(name), data(data), type(type), length(length) {}
};

struct PluginFieldCollection {
  int32_t nbFields = 0;
  const PluginField *fields = nullptr;
};

struct PluginTensorDesc {
  Dims dims;
  DataType type;
  TensorFormat format;
  float scale;
};

struct DynamicPluginTensorDesc {
  PluginTensorDesc desc;
  Dims min, max, opt;
};

class IDimensionExpr;

struct DimsExprs {
  int32_t nbDims;
  const IDimensionExpr *d[8];
};

/* An interface of the application's side is a pointer to one of the library's. */
class VExprBuilder {
 public:
  virtual ~VExprBuilder() noexcept = default;
  virtual const IDimensionExpr *constant(int64_t value) = 0;
};

class IExprBuilder {
 public:
  const IDimensionExpr *constant(int64_t value) noexcept { return inner->constant(value); }
  virtual ~IExprBuilder() noexcept = default;
  VExprBuilder *inner;
};

struct InterfaceInfo {
  const char *kind;
  int32_t major, minor;
};

class IVersionedInterface {
 public:
  virtual APILanguage getAPILanguage() const noexcept { return APILanguage::kCPP; }
  virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
  virtual ~IVersionedInterface() noexcept = default;
};

class ILoggerFinder;
class IPluginResourceContext;
class IPluginCapability : public IVersionedInterface {};
class IPluginCreatorInterface : public IVersionedInterface {};

class IPluginV3 : public IVersionedInterface {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN", 1, 0}; }
  virtual IPluginCapability *getCapabilityInterface(PluginCapabilityType) noexcept = 0;
  virtual IPluginV3 *clone() noexcept = 0;
};

class IPluginV3OneCore : public IPluginCapability {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_CORE", 1, 0}; }
  virtual const char *getPluginName() const noexcept = 0;
  virtual const char *getPluginVersion() const noexcept = 0;
  virtual const char *getPluginNamespace() const noexcept = 0;
};

class IPluginV3OneBuild : public IPluginCapability {
 public:
  using Descriptions = const DynamicPluginTensorDesc *;
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_BUILD", 1, 0}; }
  virtual int32_t configurePlugin(Descriptions, int32_t, Descriptions, int32_t) noexcept = 0;
  virtual int32_t getOutputDataTypes(DataType *, int32_t, const DataType *, int32_t) const noexcept = 0;
  virtual int32_t getOutputShapes(const DimsExprs *, int32_t, const DimsExprs *, int32_t, DimsExprs *, int32_t,
                                  IExprBuilder &) noexcept = 0;
  virtual bool supportsFormatCombination(int32_t, Descriptions, int32_t, int32_t) noexcept = 0;
  virtual int32_t getNbOutputs() const noexcept = 0;
  virtual size_t getWorkspaceSize(Descriptions, int32_t, Descriptions, int32_t) const noexcept { return 0; }
  virtual int32_t getValidTactics(int32_t *, int32_t) noexcept { return 0; }
  virtual int32_t getNbTactics() noexcept { return 0; }
  virtual const char *getTimingCacheID() noexcept { return nullptr; }
  virtual int32_t getFormatCombinationLimit() noexcept { return 100; }
  virtual const char *getMetadataString() noexcept { return nullptr; }
};

class IPluginV3OneRuntime : public IPluginCapability {
 public:
  using Descriptions = const PluginTensorDesc *;
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_RUNTIME", 1, 0}; }
  virtual int32_t setTactic(int32_t) noexcept { return 0; }
  virtual int32_t onShapeChange(Descriptions, int32_t, Descriptions, int32_t) noexcept = 0;
  virtual int32_t enqueue(Descriptions, Descriptions, const void *const *, void *const *, void *, cudaStream_t) noexcept = 0;
  virtual IPluginV3 *attachToContext(IPluginResourceContext *) noexcept = 0;
  virtual const PluginFieldCollection *getFieldsToSerialize() noexcept = 0;
};

class IPluginCreatorV3One : public IPluginCreatorInterface {
 public:
  InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN CREATOR_V3ONE", 1, 0}; }
  virtual IPluginV3 *createPlugin(const char *, const PluginFieldCollection *, TensorRTPhase) noexcept = 0;
  virtual const PluginFieldCollection *getFieldNames() noexcept = 0;
  virtual const char *getPluginName() const noexcept = 0;
  virtual const char *getPluginVersion() const noexcept = 0;
  virtual const char *getPluginNamespace() const noexcept = 0;
};

}  // namespace nvinfer1

#endif
