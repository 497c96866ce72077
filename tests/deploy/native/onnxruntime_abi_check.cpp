// Holds deploy/native/onnxruntime_abi.h to the official header; that it compiles is the test:
//     g++ -std=c++17 -fsyntax-only -I deploy/native -I INCLUDE tests/deploy/native/onnxruntime_abi_check.cpp
// where INCLUDE holds onnxruntime_c_api.h.

#include <onnxruntime_c_api.h>

#include "onnxruntime_abi.h"

#define SAME_PLACE(NAME) \
  static_assert(offsetof(OrtApi, NAME) == sk_ort::NAME::slot * sizeof(void *), #NAME " has another place")

SAME_PLACE(CreateStatus);
SAME_PLACE(CreateCustomOpDomain);
SAME_PLACE(CustomOpDomain_Add);
SAME_PLACE(AddCustomOpDomain);
SAME_PLACE(GetTensorMutableData);
SAME_PLACE(GetTensorElementType);
SAME_PLACE(GetDimensionsCount);
SAME_PLACE(GetDimensions);
SAME_PLACE(GetTensorTypeAndShape);
SAME_PLACE(KernelInfoGetAttribute_int64);
SAME_PLACE(KernelContext_GetInput);
SAME_PLACE(KernelContext_GetOutput);
SAME_PLACE(ReleaseTensorTypeAndShapeInfo);
SAME_PLACE(KernelContext_ParallelFor);

#define SAME_OFFSET(OURS, THEIRS) \
  static_assert(offsetof(sk_ort::Operator, OURS) == offsetof(OrtCustomOp, THEIRS), #THEIRS " lies elsewhere")

SAME_OFFSET(create, CreateKernel);
SAME_OFFSET(name, GetName);
SAME_OFFSET(provider, GetExecutionProviderType);
SAME_OFFSET(input_type, GetInputType);
SAME_OFFSET(input_count, GetInputTypeCount);
SAME_OFFSET(output_type, GetOutputType);
SAME_OFFSET(output_count, GetOutputTypeCount);
SAME_OFFSET(compute, KernelCompute);
SAME_OFFSET(destroy, KernelDestroy);
SAME_OFFSET(input_characteristic, GetInputCharacteristic);
SAME_OFFSET(output_characteristic, GetOutputCharacteristic);
SAME_OFFSET(input_memory, GetInputMemoryType);
SAME_OFFSET(variadic, GetVariadicInputMinArity);
SAME_OFFSET(create_checked, CreateKernelV2);
SAME_OFFSET(compute_checked, KernelComputeV2);
SAME_OFFSET(infer_shape, InferOutputShapeFn);
SAME_OFFSET(first_version, GetStartVersion);
SAME_OFFSET(last_version, GetEndVersion);
SAME_OFFSET(in_place, GetMayInplace);

#define SAME_VALUE(OURS, THEIRS) static_assert(static_cast<int>(sk_ort::OURS) == static_cast<int>(THEIRS), #THEIRS)

SAME_VALUE(FAIL, ORT_FAIL);
SAME_VALUE(INVALID_ARGUMENT, ORT_INVALID_ARGUMENT);
SAME_VALUE(UNDEFINED, ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED);
SAME_VALUE(FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
SAME_VALUE(UINT8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
SAME_VALUE(FLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
SAME_VALUE(BFLOAT16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16);
static_assert(INPUT_OUTPUT_REQUIRED == 0 && OrtMemTypeDefault == 0, "the zeros of `OPERATOR`");

int main() { return 0; }
