// The part of ONNX Runtime's C interface that an operator needs, so that building one takes no header of its.
//
// OrtApi is a table of pointers to functions to which releases only append, so a function's place in it stays. The places
// and the layout of OrtCustomOp are held to the official header by tests/deploy/native/onnxruntime_abi_check.cpp.
#ifndef SEARCHKIT_ONNXRUNTIME_ABI_H
#define SEARCHKIT_ONNXRUNTIME_ABI_H

#include <cstddef>
#include <cstdint>

namespace sk_ort {

// The oldest ONNX Runtime that is supported: 1.20.
constexpr uint32_t API_VERSION = 20;

struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;
typedef void *const *Api;

enum ErrorCode { FAIL = 1, INVALID_ARGUMENT = 2 };
enum ElementType { UNDEFINED = 0, FLOAT = 1, UINT8 = 2, FLOAT16 = 10, BFLOAT16 = 16 };

struct ApiBase {
  Api (*get_api)(uint32_t version);
  const char *(*get_version)();
};

// A function of the table: its place and its type.
template <size_t SLOT, typename Type>
struct Function {
  static constexpr size_t slot = SLOT;
  template <typename... Arguments>
  static auto call(Api api, Arguments... arguments) {
    return reinterpret_cast<Type *>(api[SLOT])(arguments...);
  }
};

typedef Function<0, Status *(ErrorCode, const char *)> CreateStatus;
typedef Function<26, Status *(const char *, Domain **)> CreateCustomOpDomain;
typedef Function<27, Status *(Domain *, const struct Operator *)> CustomOpDomain_Add;
typedef Function<28, Status *(SessionOptions *, Domain *)> AddCustomOpDomain;
typedef Function<51, Status *(Value *, void **)> GetTensorMutableData;
typedef Function<60, Status *(const TensorInfo *, ElementType *)> GetTensorElementType;
typedef Function<61, Status *(const TensorInfo *, size_t *)> GetDimensionsCount;
typedef Function<62, Status *(const TensorInfo *, int64_t *, size_t)> GetDimensions;
typedef Function<65, Status *(const Value *, TensorInfo **)> GetTensorTypeAndShape;
typedef Function<86, Status *(const KernelInfo *, const char *, int64_t *)> KernelInfoGetAttribute_int64;
typedef Function<90, Status *(const KernelContext *, size_t, const Value **)> KernelContext_GetInput;
typedef Function<91, Status *(KernelContext *, size_t, const int64_t *, size_t, Value **)> KernelContext_GetOutput;
typedef Function<99, void(TensorInfo *)> ReleaseTensorTypeAndShapeInfo;
typedef Function<274, Status *(const KernelContext *, void (*)(void *, size_t), size_t, size_t, void *)>
    KernelContext_ParallelFor;

// OrtCustomOp up to what API_VERSION reads. What is left null is optional.
struct Operator {
  uint32_t version;
  void *(*create)(const Operator *, Api, const KernelInfo *);
  const char *(*name)(const Operator *);
  const char *(*provider)(const Operator *);
  ElementType (*input_type)(const Operator *, size_t);
  size_t (*input_count)(const Operator *);
  ElementType (*output_type)(const Operator *, size_t);
  size_t (*output_count)(const Operator *);
  void (*compute)(void *, KernelContext *);
  void (*destroy)(void *);
  int (*input_characteristic)(const Operator *, size_t);
  int (*output_characteristic)(const Operator *, size_t);
  int (*input_memory)(const Operator *, size_t);
  int (*variadic[4])(const Operator *);
  Status *(*create_checked)(const Operator *, Api, const KernelInfo *, void **);
  Status *(*compute_checked)(void *, KernelContext *);
  Status *(*infer_shape)(const Operator *, void *);
  int (*first_version)(const Operator *);
  int (*last_version)(const Operator *);
  void (*in_place[4])();
};

}  // namespace sk_ort
#endif
