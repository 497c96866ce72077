// The label head as an operator of ONNX Runtime: LabelHead of the domain `searchkit`.
//
// N x C x h x w logits (float32, float16 or bfloat16) to N x height x width labels (uint8). Attributes, all integers:
// height, width, align_corners (0 or 1). The runtime's own threads do the work.

#include <algorithm>
#include <new>

#include "label_head.h"
#include "onnxruntime_abi.h"

namespace {

using namespace sk_ort;

// Rows of labels that are one piece of work for a thread.
constexpr int64_t PIECE = 32;

struct Head {
  Api api;
  int64_t height, width;
  int32_t corners;
};

Status *refusal(Api api, const char *text) { return CreateStatus::call(api, INVALID_ARGUMENT, text); }

Status *create(const Operator *, Api api, const KernelInfo *info, void **kernel) {
  int64_t height = 0, width = 0, align = 0;
  if (Status *status = KernelInfoGetAttribute_int64::call(api, info, "height", &height)) return status;
  if (Status *status = KernelInfoGetAttribute_int64::call(api, info, "width", &width)) return status;
  if (Status *status = KernelInfoGetAttribute_int64::call(api, info, "align_corners", &align)) return status;
  if (std::min(height, width) < 1 || std::max(height, width) > SK_MAX_SIDE || align < 0 || align > 1)
    return refusal(api, "LabelHead: an attribute is out of its range");
  *kernel = new (std::nothrow) Head{api, height, width, align ? SK_ALIGN_CORNERS : SK_HALF_PIXEL};
  return *kernel ? nullptr : CreateStatus::call(api, FAIL, "LabelHead: no memory");
}

void destroy(void *kernel) { delete static_cast<Head *>(kernel); }

// Shape and type of the logits; `dtype` is -1 for what the label head does not take.
Status *describe(Api api, const Value *value, int64_t shape[4], int32_t *dtype) {
  TensorInfo *info = nullptr;
  if (Status *status = GetTensorTypeAndShape::call(api, value, &info)) return status;
  size_t rank = 0;
  ElementType type = UNDEFINED;
  Status *status = GetDimensionsCount::call(api, info, &rank);
  if (!status) status = GetTensorElementType::call(api, info, &type);
  if (!status && rank != 4) status = refusal(api, "LabelHead: logits are not N x C x h x w");
  if (!status) status = GetDimensions::call(api, info, shape, rank);
  ReleaseTensorTypeAndShapeInfo::call(api, info);
  *dtype = type == FLOAT ? SK_FLOAT32 : type == FLOAT16 ? SK_FLOAT16 : type == BFLOAT16 ? SK_BFLOAT16 : -1;
  return status;
}

// One picture's logits and labels, as the runtime's threads see them. Each piece has a status of its own.
struct Picture {
  sk_logits logits;
  sk_label_map out;
  sk_label_head_options options;
  int statuses[SK_MAX_SIDE / PIECE];
};

void piece(void *user, size_t index) {
  Picture &picture = *static_cast<Picture *>(user);
  const int64_t first = static_cast<int64_t>(index) * PIECE;
  picture.statuses[index] = sk_label_head_rows(&picture.logits, &picture.out, &picture.options, first,
                                               std::min(first + PIECE, picture.out.height));
}

Status *run(Api api, const KernelContext *context, Picture &picture) {
  const size_t pieces = static_cast<size_t>((picture.out.height + PIECE - 1) / PIECE);
  // Checked once for all pieces: a picture of no rows is refused for what any other would be.
  int result = sk_label_head_rows(&picture.logits, &picture.out, &picture.options, 0, 0);
  if (result == SK_OK) {
    if (Status *status = KernelContext_ParallelFor::call(api, context, piece, pieces, size_t{0}, &picture)) return status;
    for (size_t i = 0; i < pieces && result == SK_OK; ++i) result = picture.statuses[i];
  }
  return result == SK_OK ? nullptr : refusal(api, sk_status_text(result));
}

Status *compute(void *kernel, KernelContext *context) {
  const Head &head = *static_cast<const Head *>(kernel);
  const Value *input = nullptr;
  Value *output = nullptr;
  int64_t shape[4];
  int32_t dtype = -1;
  if (Status *status = KernelContext_GetInput::call(head.api, context, size_t{0}, &input)) return status;
  if (Status *status = describe(head.api, input, shape, &dtype)) return status;
  const int64_t wanted[3] = {shape[0], head.height, head.width};
  if (Status *status = KernelContext_GetOutput::call(head.api, context, size_t{0}, wanted, size_t{3}, &output)) return status;
  void *logits = nullptr, *labels = nullptr;
  if (Status *status = GetTensorMutableData::call(head.api, const_cast<Value *>(input), &logits)) return status;
  if (Status *status = GetTensorMutableData::call(head.api, output, &labels)) return status;
  const int64_t plane = shape[2] * shape[3];
  const int64_t bytes = shape[1] * plane * (dtype == SK_FLOAT32 ? 4 : 2);
  for (int64_t n = 0; n < shape[0]; ++n) {
    Picture picture{{static_cast<const char *>(logits) + n * bytes, dtype, shape[1], shape[2], shape[3],
                     static_cast<ptrdiff_t>(plane), static_cast<ptrdiff_t>(shape[3]), 1},
                    {static_cast<uint8_t *>(labels) + n * head.height * head.width, nullptr, head.height, head.width},
                    {head.corners, SK_NONE, 1, -1},
                    {}};
    if (Status *status = run(head.api, context, picture)) return status;
  }
  return nullptr;
}

constexpr Operator OPERATOR = {
    API_VERSION,
    nullptr,
    [](const Operator *) { return "LabelHead"; },
    [](const Operator *) -> const char * { return nullptr; },
    [](const Operator *, size_t) { return UNDEFINED; },
    [](const Operator *) { return size_t{1}; },
    [](const Operator *, size_t) { return UINT8; },
    [](const Operator *) { return size_t{1}; },
    nullptr,
    destroy,
    [](const Operator *, size_t) { return 0; },
    [](const Operator *, size_t) { return 0; },
    [](const Operator *, size_t) { return 0; },
    {nullptr, nullptr, nullptr, nullptr},
    create,
    compute,
    nullptr,
    nullptr,
    nullptr,
    {nullptr, nullptr, nullptr, nullptr},
};

// Made once and kept: sessions refer to it as long as they live.
struct Registered {
  Domain *domain = nullptr;
  Status *status = nullptr;
  explicit Registered(Api api) {
    status = CreateCustomOpDomain::call(api, "searchkit", &domain);
    if (!status) status = CustomOpDomain_Add::call(api, domain, &OPERATOR);
  }
};

}  // namespace

// What ONNX Runtime calls in a library of operators.
extern "C" SK_PUBLIC Status *RegisterCustomOps(SessionOptions *options, const ApiBase *base) {
  const Api api = base->get_api(API_VERSION);
  // Without a table there is no status to be made either; the runtime has said on stderr that it is older.
  if (!api) return nullptr;
  static const Registered registered(api);
  if (registered.status) return registered.status;
  return AddCustomOpDomain::call(api, options, registered.domain);
}
